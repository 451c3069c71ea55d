"""A base that errs, cuts bodies short, stalls, changes objects between listing and read, or does not answer at all.

Promises: every read is right or one of the documented errors, within its deadline; no error is remembered once the base is well;
what is cached is read while the base is down.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from typing import TYPE_CHECKING

import swingby
from swingby.errors import (
    BaseUnavailableError,
    CorruptDataError,
    DeadlineError,
    ObjectChangedError,
    ObjectNotFoundError,
    SwingbyError,
    TruncatedReadError,
)
from swingby.testing.campaign.children import Children
from swingby.testing.campaign.ground import MIB, Ground
from swingby.testing.campaign.job import promise
from swingby.testing.faulty_base import Faults, FaultyBase
from swingby.testing.harness import Inline, inline
from swingby.testing.memory_base import MemoryBase

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from swingby.base.contract import Base
    from swingby.data.dataset import Dataset
    from swingby.testing.campaign.job import Job

STEPS_A_ROUND = 10
SMALL, LARGE = 200, 2
BATCH = 32
DEADLINE_SECONDS = 1.0
LATE_SECONDS_MAX = 3.0  # of a busy machine, beyond the deadline
STEP_SECONDS_MAX = 60.0
CHANGED_SHARE = 0.1
STALLED_SHARE = 0.2
URL = "memory://x/data"
SETTINGS = {"client.deadline_seconds": DEADLINE_SECONDS, "memory.headroom_bytes": 0, "burst.free_floor_ratio": 0.01}
SIZES = ({"memory.budget_bytes": 64 * MIB}, {"memory.budget_bytes": 0}, {"memory.budget_bytes": 9 * MIB})
FAULTS = (BaseUnavailableError, TruncatedReadError, DeadlineError, ObjectChangedError)
LIES = (CorruptDataError,)


def run(job: Job) -> None:
    """Fail, read, compare; then heal, read, compare."""
    for steps in job.rounds(STEPS_A_ROUND):
        name = f"bases-{steps.start}"
        with job.guard(), Ground(name, {}, is_far=True) as ground, Children(f"{ground.root}/children") as children:
            for step in steps:
                rng = job.begin(step)
                kind = list(KINDS)[step % len(KINDS)]
                job.counts[kind] += 1
                children.run(functools.partial(_in_child, ground, step, kind, rng), STEP_SECONDS_MAX)


class _Bad:
    """A dataset on a base whose faults can be changed."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.objects = {f"{n:04d}": rng.randbytes(rng.randint(0, 30_000)) for n in range(SMALL)}
        self.objects |= {f"large/{n}": rng.randbytes(5 * MIB + n) for n in range(LARGE)}
        self.base = MemoryBase({f"data/{key}".encode(): data for key, data in self.objects.items()})
        self.stalled = threading.Event()
        self.faulty = FaultyBase(self.base, Faults(), rng.randrange(1 << 30), self._sleep)
        self.found: Inline

    def wrap(self, base: Base) -> Base:
        """Every base of the keeper is the faulty one."""
        del base
        return self.faulty

    def open(self, refresh: str = "auto") -> Dataset:
        """The dataset."""
        return swingby.open(URL, refresh=refresh, settings=self.found.settings)

    def read(self, dataset: Dataset, allowed: tuple[type[SwingbyError], ...] = (), share: float = 1.0) -> int:
        """Read everything, or a share of it, in random batches; how many failed as they may.

        Raises:
            BrokenPromiseError: a wrong byte, or a wait beyond its end.
        """
        order = self.rng.sample(range(len(dataset)), int(share * len(dataset)))
        failed = 0
        for start in range(0, len(order), BATCH):
            began = time.monotonic()
            try:
                batch = dataset.batch(order[start : start + BATCH])
            except allowed:
                failed += 1
            else:
                for key, view in zip(batch.keys, batch.views, strict=True):
                    promise(view == self.objects[key], f"WRONG BYTES of {key}")
            seconds = time.monotonic() - began
            promise(seconds < DEADLINE_SECONDS + LATE_SECONDS_MAX, f"A HANG: a batch took {seconds:.1f} s")
        return failed

    def _sleep(self, seconds: float) -> None:
        """A stall ends with the step at the latest."""
        self.stalled.wait(seconds)


def _in_child(ground: Ground, step: int, name: str, rng: random.Random) -> None:
    bad = _Bad(rng)
    settings = SETTINGS | rng.choice(SIZES)
    with inline(
        os.path.join(ground.root, f"home-{step}"), base=bad.base, wrap=bad.wrap, settings=settings
    ) as bad.found:
        try:
            KINDS[name](bad)
        finally:
            bad.stalled.set()


def _faults(bad: _Bad) -> None:
    """Errors and cut bodies, many and few; then health."""
    dataset = bad.open()
    much = bad.rng.choice([0.01, 0.1, 0.5])
    bad.faulty.faults = Faults(error=much, truncate=much, latency_seconds=0.0005)
    bad.read(dataset, FAULTS)
    bad.faulty.faults = Faults()
    bad.read(dataset)


def _lies(bad: _Bad) -> None:
    """Bodies that are too short, and nobody says so."""
    dataset = bad.open()
    bad.faulty.faults = Faults(shorten=0.2)
    bad.read(dataset, LIES)
    bad.faulty.faults = Faults()
    bad.read(dataset)


def _changes(bad: _Bad) -> None:
    """Objects that change between listing and read: those of the snapshot or an error, never others; then the new ones."""
    dataset = bad.open()
    before = dict(bad.objects)
    for key in bad.rng.sample(sorted(before), int(CHANGED_SHARE * len(before))):
        if bad.rng.random() < 0.2:
            bad.base.delete(f"data/{key}".encode())
            del bad.objects[key]
        else:
            bad.objects[key] = bad.rng.randbytes(max(1, len(before[key])))
            bad.base.write(f"data/{key}".encode(), bad.objects[key])
    changed = {key for key in before if bad.objects.get(key) != before[key]}
    for index, key in enumerate(dataset.keys):
        try:
            promise(dataset[index].data == before[key], f"WRONG BYTES of {key}")
            promise(key not in changed, f"{key} has changed, and its old bytes were never read")
        except (ObjectChangedError, ObjectNotFoundError):
            promise(key in changed, f"{key} has not changed")
    bad.read(bad.open("always"))


def _down(bad: _Bad) -> None:
    """The base goes away: what is cached is read, what is not is an error in time; then it comes back."""
    dataset = bad.open()
    is_cached = bad.read(dataset) == 0 and bad.found.settings.memory.budget_bytes == SIZES[0]["memory.budget_bytes"]
    bad.faulty.is_down = True
    if is_cached:
        bad.read(dataset)
        bad.read(bad.open("never"))
    else:
        bad.read(dataset, FAULTS)
    began = time.monotonic()
    try:
        swingby.read("memory://x/other/key", settings=bad.found.settings)
        promise(False, "a base that is down gave bytes")
    except (BaseUnavailableError, DeadlineError) as error:
        promise(str(error), "an error says what happened")
    promise(time.monotonic() - began < DEADLINE_SECONDS + LATE_SECONDS_MAX, "A HANG: an error came late")
    bad.faulty.is_down = False
    bad.read(dataset)
    bad.read(bad.open("always"))


def _stalls(bad: _Bad) -> None:
    """Calls that take longer than anyone waits."""
    dataset = bad.open()
    bad.faulty.faults = Faults(stall=bad.rng.choice([0.02, 1.0]), stall_seconds=30.0)
    bad.read(dataset, FAULTS, STALLED_SHARE)
    bad.faulty.faults = Faults()
    bad.stalled.set()
    bad.read(dataset)


KINDS: dict[str, Callable[[_Bad], None]] = {
    "errors and cut bodies": _faults,
    "bodies too short": _lies,
    "changes under a snapshot": _changes,
    "base down": _down,
    "stalls": _stalls,
}
