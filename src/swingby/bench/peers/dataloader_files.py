"""PyTorch's DataLoader over small files in random order, as people write it.

    python -m swingby.bench.peers.dataloader_files ROOT WORKERS

Prints seconds of the second epoch and how many files had the right bytes, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time

import torch.utils.data

from swingby.bench import data


class Files(torch.utils.data.Dataset[tuple[str, bytes]]):
    """One file an index."""

    def __init__(self, root: str) -> None:
        self._paths = sorted(os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[str, bytes]:
        with open(self._paths[index], "rb") as file:
            return self._paths[index], file.read()


def main() -> None:
    """Two epochs, so that the files are in the page cache."""
    root, workers = sys.argv[1:3]
    loader = torch.utils.data.DataLoader(
        Files(root), batch_size=64, shuffle=True, num_workers=int(workers), collate_fn=list, prefetch_factor=4
    )
    for _ in range(2):
        started = time.perf_counter()
        found = [sample for batch in loader for sample in batch]
        seconds = time.perf_counter() - started
    right = sum(data.is_small_record(path, content) for path, content in found)
    print(json.dumps({"seconds": seconds, "right": right}))


if __name__ == "__main__":
    main()
