"""A memory level of half the dataset, in random order: what it saves, how near it comes to its bound, and two jobs on it."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import swingby
from swingby.bench import data
from swingby.bench.cold import Obstore
from swingby.bench.context import Context, Keeper, keeper, pin, pinned
from swingby.bench.figures import Figure
from swingby.testing import ceph as ceph_s3

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swingby.data.dataset import Dataset

BUCKET = "swingby-bench"
SIZE = 128 << 10
BATCH = 32
EPOCHS = 3
SERVER_CORE, CLIENT_CORE = 0, 1
JOB_SECONDS_MAX = 600.0


def run(context: Context) -> Iterator[Figure]:
    """One job, then two."""
    count = context.size(4096, 128)
    with ceph_s3.running() as ceph:
        for process in ceph.processes:
            pin(process, SERVER_CORE)
        url = data.make_objects(ceph, BUCKET, "short", SIZE, count)
        with pinned(CLIENT_CORE):
            raw = Obstore(ceph, url, SIZE, count)
            with keeper(_settings(ceph.settings(), count * SIZE // 2)) as ours:
                yield from _one_job(ours, url, raw)
            yield from _two_jobs(context, ceph.settings(), url, count * SIZE)


def _settings(base: dict[str, Any], budget: int) -> dict[str, Any]:
    return base | {"memory.budget_bytes": budget, "burst.budget_bytes": 0}


def _one_job(ours: Keeper, url: str, raw: Obstore) -> Iterator[Figure]:
    with swingby.open(url, settings=ours.settings) as dataset:
        size = int(dataset.sizes.sum())
        expected = data.words(SIZE, len(dataset))
        loader = swingby.Loader(dataset, batch_size=BATCH, shuffle=True)
        for batch in loader:
            data.check(batch, expected)
        shares, ratios, rates = [], [], []
        for _ in range(EPOCHS):
            raw_seconds, _ = raw.seconds()
            seconds, fetched = _epoch(ours, dataset, loader)
            raw_seconds = (raw_seconds + raw.seconds()[0]) / 2
            shares.append(fetched / size)
            ratios.append(raw_seconds * shares[-1] / seconds)
            rates.append(size / seconds)
    share = statistics.median(shares)
    notes = {"bytes_a_second": statistics.median(rates), "obstore_threads": raw.threads}
    yield Figure("short", "base bytes of an epoch over dataset", share, "×", at_most=0.54, samples=shares)
    yield Figure("short", "byte hit rate", 1 - share, "", at_least=0.48)
    value = statistics.median(ratios)
    yield Figure("short", "rate over the base's for what misses", value, "×", at_least=0.9, samples=ratios, notes=notes)


def _epoch(ours: Keeper, dataset: Dataset, loader: swingby.Loader) -> tuple[float, int]:
    """Seconds, and bytes of the base."""
    before = ours.facts()["base_bytes"]
    started = time.perf_counter()
    total = sum(len(view) for batch in loader for view in batch.views)
    seconds = time.perf_counter() - started
    if total != int(dataset.sizes.sum()):
        raise AssertionError("not everything was read")
    return seconds, ours.facts()["base_bytes"] - before


def _two_jobs(context: Context, base: dict[str, Any], url: str, size: int) -> Iterator[Figure]:
    """Two jobs with orders of their own on one level of half the dataset, against each on a level of a quarter."""
    ratios = []
    for _ in range(context.repetitions):
        with keeper(_settings(base, size // 2)) as shared:
            together = _jobs(url, [shared, shared], size)
        with keeper(_settings(base, size // 4)) as one, keeper(_settings(base, size // 4)) as other:
            apart = _jobs(url, [one, other], size)
        ratios.append(min(alone / with_other for alone, with_other in zip(apart, together, strict=True)))
    value = statistics.median(ratios)
    yield Figure(
        "short", "two jobs: rate of the slower over that with half the level", value, "×", at_least=0.9, samples=ratios
    )


def _jobs(url: str, keepers: list[Keeper], size: int) -> list[float]:
    """Seconds of the later epochs of each of several jobs at the same time."""
    running = []
    for seed, one in enumerate(keepers):
        command = [sys.executable, "-m", "swingby.bench.short", url, one.settings.home, str(seed)]
        command.append(str(one.settings.memory.budget_bytes))
        running.append(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=one.environment())
        )
    reports = []
    for job in running:
        assert job.stdout is not None  # it was asked for
        reports.append(json.loads(job.stdout.readline() or "{}"))
    for job in running:
        job.communicate("done\n", timeout=JOB_SECONDS_MAX)
    if any(report.get("bytes") != EPOCHS * size for report in reports):
        raise AssertionError("a job did not read everything")
    return [report["seconds"] for report in reports]


def _job(url: str, home: str, seed: int, budget: int) -> None:
    """One of two jobs; it goes on until both were measured."""
    with swingby.open(url, settings={"home": home} | _settings({}, budget)) as dataset:
        loader = swingby.Loader(dataset, batch_size=BATCH, shuffle=True, seed=seed)
        total, seconds = 0, 0.0
        for number in range(EPOCHS):
            started = time.perf_counter()
            total += sum(len(view) for batch in loader for view in batch.views)
            seconds += time.perf_counter() - started if number else 0.0
        print(json.dumps({"bytes": total, "seconds": seconds}), flush=True)
        os.set_blocking(sys.stdin.fileno(), False)
        while not sys.stdin.readline():
            for batch in loader:
                assert batch.views
                if sys.stdin.readline():
                    return


if __name__ == "__main__":
    _job(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
