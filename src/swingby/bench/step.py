"""A cold epoch under an accelerator that takes nine tenths of what the base can give: does it ever wait?

The accelerator is a sleep of the length of a step, on a core that has nothing else to do but hand out batches, as beside a GPU.
"""

from __future__ import annotations

import itertools
import statistics
import time
from typing import TYPE_CHECKING

import swingby
from swingby.bench import data
from swingby.bench.context import Context, Keeper, keeper, pin, pinned
from swingby.bench.figures import Figure
from swingby.testing import ceph as ceph_s3

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swingby.data.dataset import Dataset

BUCKET = "swingby-bench"
BATCH = 32
DEMAND = 0.9  # of the cold rate
SERVER_CORE, CLIENT_CORE = 0, 1
SETS = [("16 KiB objects", 16 << 10, 8192), ("128 KiB objects", 128 << 10, 4096)]


def run(context: Context) -> Iterator[Figure]:
    """Cold epochs without and with steps, in turn."""
    with ceph_s3.running() as ceph:
        for process in ceph.processes:
            pin(process, SERVER_CORE)
        for name, size, full in SETS:
            count = context.size(full, 128)
            url = data.make_objects(ceph, BUCKET, f"step-{size}", size, count)
            settings = ceph.settings() | {"memory.budget_bytes": 3 << 30, "burst.budget_bytes": 0}
            with (
                pinned(CLIENT_CORE),
                keeper(settings) as ours,
                swingby.open(url, settings=ours.settings) as dataset,
            ):
                ratios = [_ratio(ours, dataset, number) for number in range(context.repetitions + 1)][1:]
            value = statistics.median(ratios)
            yield Figure("step", f"{name}: speed over that without I/O", value, "×", at_least=0.95, samples=ratios)


def _ratio(ours: Keeper, dataset: Dataset, seed: int) -> float:
    """Time that the steps take alone, over what they take with cold data; from the second on."""
    ours.evict()
    started = time.perf_counter()
    steps = sum(1 for _ in _batches(dataset, 2 * seed))
    seconds = (time.perf_counter() - started) / steps / DEMAND
    ours.evict()
    batches = iter(_batches(dataset, 2 * seed + 1))
    next(batches)
    started, alone = time.perf_counter(), 0.0
    for batch in itertools.chain([None], batches):
        if batch is not None and len(batch.views) > BATCH:
            raise AssertionError("a batch is too large")
        began = time.perf_counter()
        time.sleep(seconds)
        alone += time.perf_counter() - began
    return alone / (time.perf_counter() - started)


def _batches(dataset: Dataset, seed: int) -> swingby.Loader:
    return swingby.Loader(dataset, batch_size=BATCH, shuffle=True, seed=seed)
