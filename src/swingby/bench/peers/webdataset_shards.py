"""WebDataset over tar shards, in sequence, undecoded.

    python -m swingby.bench.peers.webdataset_shards FOLDER WORKERS

Prints seconds of the second epoch and how many samples had the right bytes, as JSON.
"""

from __future__ import annotations

import glob
import json
import os
import sys
import time

import webdataset

from swingby.bench import data


def main() -> None:
    """Two epochs, so that the shards are in the page cache."""
    folder, workers = sys.argv[1], int(sys.argv[2])
    shards = sorted(glob.glob(os.path.join(folder, "*.tar")))
    samples = webdataset.WebDataset(shards, shardshuffle=False, empty_check=False)
    loader = webdataset.WebLoader(samples, batch_size=None, num_workers=workers) if workers else samples
    for _ in range(2):
        started = time.perf_counter()
        found = [(sample["__key__"], sample["bin"]) for sample in loader]
        seconds = time.perf_counter() - started
    right = sum(data.is_small_record(key, content) for key, content in found)
    print(json.dumps({"seconds": seconds, "right": right}))


if __name__ == "__main__":
    main()
