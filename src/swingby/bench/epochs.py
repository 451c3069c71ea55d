"""What a cache is for: the second epoch, one object at a time, and several processes on one dataset."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

import swingby
from swingby.bench import data
from swingby.bench.context import Context, Keeper, keeper
from swingby.bench.figures import Figure
from swingby.testing import ceph as ceph_s3

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swingby.data.dataset import Dataset

BUCKET = "swingby-bench"
SIZE = 128 << 10
BATCH = 64
PROCESSES = 4


def run(context: Context) -> Iterator[Figure]:
    """All three, on one prefix of a real Ceph."""
    count = context.size(4096, 128)
    with ceph_s3.running() as ceph:
        url = data.make_objects(ceph, BUCKET, "epochs", SIZE, count)
        with keeper(ceph.settings() | {"memory.budget_bytes": 3 << 30}) as ours:
            with swingby.open(url, settings=ours.settings) as dataset:
                yield _one_object(ours, dataset)
                yield from _second_epoch(context, ours, dataset)
            yield from _four_processes(ours, url, count * SIZE)


def _one_object(ours: Keeper, dataset: Dataset) -> Figure:
    """Requests of one cold read of one small object in a pack."""
    before = _base(ours)
    dataset[17]
    after = _base(ours)
    notes = {"bytes": after["bytes"] - before["bytes"], "object_bytes": int(dataset.sizes[17])}
    if notes["bytes"] != notes["object_bytes"]:
        raise AssertionError(f"{notes['bytes']} bytes were read for an object of {notes['object_bytes']}")
    requests = after["requests"] - before["requests"]
    return Figure("epochs", "one cold object: requests", requests, "", at_least=1, at_most=1, notes=notes)


def _second_epoch(context: Context, ours: Keeper, dataset: Dataset) -> Iterator[Figure]:
    expected = data.words(SIZE, len(dataset))
    for batch in swingby.Loader(dataset, batch_size=BATCH, shuffle=True):
        data.check(batch, expected)
    before = _base(ours)["requests"]
    epochs, direct = [], []
    for number in range(context.repetitions + 1):
        started = time.perf_counter()
        for batch in swingby.Loader(dataset, batch_size=BATCH, shuffle=True, seed=number):
            batch.packed()
        epochs.append(time.perf_counter() - started)
        order = np.random.default_rng(number).permutation(len(dataset))
        started = time.perf_counter()
        for start in range(0, len(order), BATCH):
            dataset.batch(order[start : start + BATCH]).packed()
        direct.append(time.perf_counter() - started)
    requests = _base(ours)["requests"] - before
    yield Figure("epochs", "second epoch: requests to the base", requests, "", at_most=0)
    ratios = [one / other for one, other in zip(direct[1:], epochs[1:], strict=True)]
    notes = {"bytes_a_second": len(dataset) * SIZE / statistics.median(epochs[1:])}
    value = statistics.median(ratios)
    yield Figure("epochs", "second epoch: rate over level 1's", value, "×", at_least=0.9, samples=ratios, notes=notes)


def _four_processes(ours: Keeper, url: str, size: int) -> Iterator[Figure]:
    ours.evict()
    before = _base(ours)["bytes"]
    used = _shared_memory_bytes()
    command = [sys.executable, "-m", "swingby.bench.epochs", url, ours.settings.home]
    environment = ours.environment()
    readers = [
        subprocess.Popen(
            [*command, str(seed)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, env=environment
        )
        for seed in range(PROCESSES)
    ]
    reports = []
    for reader in readers:
        assert reader.stdout is not None  # it was asked for
        reports.append(json.loads(reader.stdout.readline()))
    memory = _shared_memory_bytes() - used + sum(report["private_bytes"] for report in reports)
    for reader in readers:
        reader.communicate("done\n")
    if any(report["bytes"] != size for report in reports):
        raise AssertionError("a process did not read everything")
    base_bytes = _base(ours)["bytes"] - before
    yield Figure(
        "epochs", f"{PROCESSES} processes, cold: base bytes over dataset", base_bytes / size, "×", at_most=1.02
    )
    yield Figure("epochs", f"{PROCESSES} processes: data memory over data", memory / size, "×", at_most=1.1)


def _read_all(url: str, home: str, seed: int) -> None:
    """One of the processes: an epoch in its own order, every byte touched; tells what memory of its own the data took."""
    with swingby.open(url, settings={"home": home, "memory.budget_bytes": 3 << 30}) as dataset:
        dataset.keys[0]
        before = _private_bytes()
        total = 0
        held = []
        for batch in swingby.Loader(dataset, batch_size=BATCH, shuffle=True, seed=seed):
            for view in batch.views:
                total += len(view)
                np.frombuffer(view, np.uint8)[::64].sum()
            held.append(batch.views[0])
        print(json.dumps({"bytes": total, "private_bytes": _private_bytes() - before}), flush=True)
        sys.stdin.readline()


def _private_bytes() -> int:
    """Memory of this process alone."""
    with open("/proc/self/smaps_rollup") as file:
        fields = dict(line.split(":", 1) for line in file if ":" in line and not line.startswith("0"))
    return sum(int(fields[name].split()[0]) * 1024 for name in ("Private_Clean", "Private_Dirty"))


def _shared_memory_bytes() -> int:
    status = os.statvfs("/dev/shm")
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def _base(ours: Keeper) -> dict[str, int]:
    (found,) = ours.facts()["bases"].values()
    return dict(found)


if __name__ == "__main__":
    _read_all(sys.argv[1], sys.argv[2], int(sys.argv[3]))
