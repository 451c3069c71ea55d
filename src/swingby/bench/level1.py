"""Level 1: warm random batches against a compiled gather of the same records, in one process and in two."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

import swingby
from swingby.bench import data
from swingby.bench.context import Context, keeper
from swingby.bench.figures import Figure
from swingby.bench.gather import compiled_gather

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from swingby.data.dataset import Dataset

BATCH = 64
RECORDS = {"4KiB": 4 << 10, "128KiB": 128 << 10, "1MiB": 1 << 20}
PROMISES = {
    ("4KiB", "fresh"): 0.65,
    ("4KiB", "out"): 0.45,
    ("128KiB", "fresh"): 0.8,
    ("1MiB", "fresh"): 0.85,
}
VIEW_SECONDS_MAX = 0.4e-6
BYTES_A_ROUND = 512 << 20


def run(context: Context) -> Iterator[Figure]:
    """All sizes, fresh and into a buffer; one process, then two at once."""
    for name, size in RECORDS.items():
        total = context.size(1 << 30, 16 << 20)
        root = data.make_files(context, size, total // size)
        with keeper({"memory.budget_bytes": 3 << 30}) as ours:
            # The first process warms the level and checks every byte; the keeper then has a moment for its huge pages.
            one = _measure(root, ours.settings, size, context.repetitions, None)
            two = _together(root, ours.settings.home, size, context.repetitions)
        for kind in ("fresh", "out"):
            promise = PROMISES.get((name, kind))
            yield _figure(f"{name} {kind}, 1 process", one, kind, promise)
            yield _figure(f"{name} {kind}, 2 processes", two, kind, promise)
        if size == RECORDS["4KiB"]:
            yield Figure(
                "level1",
                "views",
                statistics.median(one["views"]),
                "s a sample",
                at_most=VIEW_SECONDS_MAX,
                samples=one["views"],
            )


def _figure(name: str, found: dict[str, list[float]], kind: str, promise: float | None) -> Figure:
    ratios = [limit / ours for limit, ours in zip(found["limit"], found[kind], strict=True)]
    notes = {
        "limit_seconds_a_sample": statistics.median(found["limit"]),
        "seconds_a_sample": statistics.median(found[kind]),
    }
    return Figure("level1", name, statistics.median(ratios), "× gather", promise, samples=ratios, notes=notes)


def _together(root: str, home: str, size: int, repetitions: int) -> dict[str, list[float]]:
    """Two processes at once; each measures its own limit beside the other's."""
    command = [sys.executable, "-m", "swingby.bench.level1", root, home, str(size), str(repetitions)]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in started:
        assert process.stdout is not None  # it was asked for
        process.stdout.readline()
    for process in started:
        assert process.stdin is not None  # it was asked for
        process.stdin.write("go\n")
        process.stdin.flush()
    found = [json.loads(process.communicate()[0]) for process in started]
    return {
        name: [statistics.mean(pair) for pair in zip(*(one[name] for one in found), strict=True)] for name in found[0]
    }


def _measure(
    root: str, settings: Any, size: int, repetitions: int, ready: Callable[[], None] | None
) -> dict[str, list[float]]:
    gather, _ = compiled_gather()
    with swingby.open(root, settings=settings) as dataset:
        addresses = _warm(dataset, size)
        _await_huge_pages(dataset)
        out = np.ones(BATCH * size, np.uint8)
        if ready:
            ready()
        rng = np.random.default_rng(0)
        count = max(BATCH, min(len(dataset), BYTES_A_ROUND // size)) // BATCH
        found: dict[str, list[float]] = {"limit": [], "fresh": [], "out": [], "views": []}
        for _ in range(repetitions + 1):
            order = rng.permutation(len(dataset))
            batches = [order[start : start + BATCH] for start in range(0, count * BATCH, BATCH)]
            before = _timed(gather, [addresses[one] for one in batches], size, out)
            views = _timed(_each, batches, lambda one: dataset.batch(one).views)
            fresh = _timed(_each, batches, lambda one: dataset.batch(one).packed())
            into = _timed(_each, batches, lambda one: dataset.batch(one).packed(out=out))
            after = _timed(gather, [addresses[one] for one in batches], size, out)
            for name, seconds in (("limit", (before + after) / 2), ("fresh", fresh), ("out", into), ("views", views)):
                found[name].append(seconds / (count * BATCH))
        return {name: seconds[1:] for name, seconds in found.items()}  # the first round warms caches


def _warm(dataset: Dataset, size: int) -> NDArray[np.uint64]:
    """Read everything once, check every byte, and learn where each record lies."""
    expected = data.words(size, len(dataset))
    addresses = np.zeros(len(dataset), np.uint64)
    for start in range(0, len(dataset), BATCH):
        batch = dataset.batch(np.arange(start, min(len(dataset), start + BATCH)))
        data.check(batch, expected)
        batch = dataset.batch(batch.indices)
        for number, view in zip(batch.indices.tolist(), batch.views, strict=True):
            addresses[number] = np.frombuffer(view, np.uint8).ctypes.data
    return addresses


def _await_huge_pages(dataset: Dataset) -> None:
    """An idle keeper gathers complete segments within seconds; figures of before and after are both real, these are after."""
    seconds = dataset.sizes.sum() / (256 << 20) + 2
    time.sleep(float(min(12.0, seconds)))


def _each(batches: list[Any], call: Callable[[Any], object]) -> None:
    for batch in batches:
        call(batch)


def _timed(call: Callable[..., object], *arguments: object) -> float:
    started = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started


def main() -> None:
    """One of two processes: warm, say so, wait for the word, measure."""
    root, home, size, repetitions = sys.argv[1:5]

    def ready() -> None:
        print("ready", flush=True)
        sys.stdin.readline()

    settings = {"home": home, "memory.budget_bytes": 3 << 30}
    print(json.dumps(_measure(root, settings, int(size), int(repetitions), ready)))


if __name__ == "__main__":
    main()
