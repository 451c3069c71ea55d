"""WebDataset's own reading of tars, in order: the library alone, or its loader with workers.

    python -m swingby.bench.peers.webdataset_tars WORKERS SIZE URL …

Without shuffling, decoding or batches, which only cost it time; workers give whole samples, as its documentation does with
`WebLoader(…, batch_size=None)`. Prints seconds and how many samples had the right bytes, as JSON.
"""

from __future__ import annotations

import json
import sys
import time

import webdataset

from swingby.bench import data


def main() -> None:
    """One epoch."""
    workers, size, urls = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    samples = webdataset.WebDataset(
        urls,
        shardshuffle=False,
        nodesplitter=webdataset.split_by_node,
        workersplitter=webdataset.split_by_worker,
        empty_check=False,
    )
    loader = webdataset.WebLoader(samples, batch_size=None, num_workers=workers) if workers else samples
    started = time.perf_counter()
    found = [(sample["__key__"], sample["bin"]) for sample in loader]
    seconds = time.perf_counter() - started
    right = sum(content == data.record(int(key), size) for key, content in found)
    print(json.dumps({"seconds": seconds, "samples": len(found), "right": right}))


if __name__ == "__main__":
    main()
