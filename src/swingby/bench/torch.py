"""PyTorch's DataLoader of ours, warm, against level 1 alone and against PyTorch's own over files; and the memory it takes."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.utils.data

import swingby
import swingby.torch
from swingby.bench import data
from swingby.bench.context import Context, keeper
from swingby.bench.figures import Figure
from swingby.core.checksum import word_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

SIZE = 128 << 10
BATCH = 64
WORKERS = 2
WARM_EPOCHS = 3
MEASURED_EVERY = 16  # batches


class Files(torch.utils.data.Dataset[torch.Tensor]):
    """What people write: one file an index.

    Args:
        root: directory of the files, listed once.
    """

    def __init__(self, root: str) -> None:
        self._paths = sorted(os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(np.fromfile(self._paths[index], np.uint8))


def copied(sample: swingby.Sample) -> torch.Tensor:
    """The least that a transform does: bytes of its own."""
    return torch.from_numpy(np.array(memoryview(sample.data)))


def run(context: Context) -> Iterator[Figure]:
    """Rates in turn, then memory."""
    total = context.size(1 << 30, 16 << 20)
    root = data.make_files(context, SIZE, total // SIZE)
    with keeper({"memory.budget_bytes": 3 << 30}) as ours:
        process = ours.facts()["process"]
        with swingby.open(root, settings=ours.settings) as dataset:
            _check(dataset)
            loaders = {
                "threads": swingby.torch.DataLoader(swingby.torch.Dataset(dataset), BATCH, True, num_workers=WORKERS),
                "processes": swingby.torch.DataLoader(
                    swingby.torch.Dataset(dataset, copied), BATCH, True, num_workers=WORKERS
                ),
                "stock": torch.utils.data.DataLoader(swingby.torch.Dataset(dataset), BATCH, True, num_workers=WORKERS),
                "files": torch.utils.data.DataLoader(Files(root), BATCH, True, num_workers=WORKERS),
            }
            if not context.is_toy:
                time.sleep(total / (256 << 20) + 2)  # the idle keeper gathers segments into huge pages
            yield from _rates(context, dataset, loaders)
        for kind in ("threads", "processes"):
            command = [sys.executable, "-m", "swingby.bench.torch", root, ours.settings.home, kind, str(process)]
            most = int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
            promise = None if context.is_toy else 1.1  # of little data, what a process takes anyway is most
            yield Figure("torch", f"2 workers, {kind}: memory over data", most / total, "×", at_most=promise)


def _rates(
    context: Context, dataset: swingby.Dataset, loaders: Mapping[str, Iterable[torch.Tensor]]
) -> Iterator[Figure]:
    found: dict[str, list[float]] = {name: [] for name in ("level1", *loaders)}
    for number in range(context.repetitions):
        found["level1"].append(_seconds(_level1, dataset, number))
        for name, loader in loaders.items():
            found[name].append(_seconds(_read_all, loader, len(dataset)))
    rates = {name: len(dataset) * SIZE / statistics.median(seconds) for name, seconds in found.items()}
    notes = {f"{name} bytes a second": rate for name, rate in rates.items()}
    promises = {("threads", "level1"): 0.7, ("threads", "files"): 2.0, ("processes", "files"): 0.9}
    for (one, other), promise in promises.items():
        ratios = [theirs / ours for ours, theirs in zip(found[one], found[other], strict=True)]
        name = {"level1": "level 1's", "files": "DataLoader's over files, 2 workers"}[other]
        yield Figure(
            "torch",
            f"2 workers, {one}: rate over {name}",
            statistics.median(ratios),
            "×",
            at_least=promise,
            samples=ratios,
            notes=notes if other == "level1" else {},
        )


def _check(dataset: swingby.Dataset) -> None:
    """Every byte, through both kinds of loader; and warm, until all is known to be mapped.

    Raises:
        AssertionError: a byte is wrong; a benchmark of wrong bytes is none.
    """
    expected = data.words(SIZE, len(dataset))
    for transform in (None, copied):
        loader = swingby.torch.DataLoader(swingby.torch.Dataset(dataset, transform), BATCH, num_workers=WORKERS)
        if [word_of(row.numpy()) for batch in loader for row in batch] != expected:
            raise AssertionError("the DataLoader's bytes are not what was written")
    for seed in range(WARM_EPOCHS):
        _level1(dataset, seed)


def _level1(dataset: swingby.Dataset, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(dataset))
    out = np.ones(BATCH * SIZE, np.uint8)
    for start in range(0, len(order), BATCH):
        dataset.batch(order[start : start + BATCH]).packed(out=out)


def _read_all(loader: Iterable[torch.Tensor], count: int) -> None:
    if sum(len(batch) for batch in loader) != count:
        raise AssertionError("an epoch is not complete")


def _seconds(call: Callable[..., None], *arguments: Any) -> float:
    started = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started


def _memory_bytes(keeper_process: int | None = None) -> int:
    """Proportional memory of this process and its children, and what of level 1 is accounted to the keeper: it counts once."""
    total = _proportional(keeper_process, "Pss_Shmem") if keeper_process else 0
    for process in _tree(os.getpid()):
        with contextlib.suppress(OSError):  # a worker that has ended
            total += _proportional(process, "Pss")
    return total


def _proportional(process: int, field: str) -> int:
    with open(f"/proc/{process}/smaps_rollup") as file:
        fields = dict(line.split(":", 1) for line in file if ":" in line and not line.startswith("0"))
    return int(fields[field].split()[0]) * 1024


def _tree(process: int) -> Iterator[int]:
    """A process and those below it."""
    yield process
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{process}/task"):
            with open(f"/proc/{process}/task/{thread}/children") as file:
                for child in file.read().split():
                    yield from _tree(int(child))


def main() -> None:
    """A program that does nothing but load: prints the most memory that the data took, in bytes."""
    root, home, kind, keeper_process = sys.argv[1:5]
    before = _memory_bytes()
    most = 0
    with swingby.open(root, settings={"home": home, "memory.budget_bytes": 3 << 30}) as dataset:
        objects = swingby.torch.Dataset(dataset, None if kind == "threads" else copied)
        for _ in range(2):
            for number, _ in enumerate(swingby.torch.DataLoader(objects, BATCH, True, num_workers=WORKERS)):
                if number % MEASURED_EVERY == 0:
                    most = max(most, _memory_bytes(int(keeper_process)))
    print(most - before)


if __name__ == "__main__":
    main()
