"""Loaders that are fed while everything around them fails, by seeded schedules.

A round is a job: ranks read epochs through a loader of some kind, attempt after attempt, each from the state that the last one
left, while the faults of its schedule come. Promises: no hang; every sample of an epoch exactly once, or replaced with a reason;
right bytes; ranks keep step; errors by name; no process and no plan that outlives its loader.
"""

from __future__ import annotations

import functools
import importlib
import os
import pickle
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

import swingby
from swingby.errors import StateError
from swingby.testing.campaign import leaks
from swingby.testing.campaign.children import Children
from swingby.testing.campaign.feeder import Task, live, weights
from swingby.testing.campaign.ground import MIB, Ground
from swingby.testing.campaign.job import promise
from swingby.testing.campaign.ledger import Ledger, Report, read_report
from swingby.testing.campaign.schedule import HAS_TORCH, draw
from swingby.testing.campaign.stock import Member, Stock
from swingby.testing.campaign.truth import Shape
from swingby.testing.campaign.watch import Watch

if TYPE_CHECKING:
    import random

    from swingby.data.dataset import Dataset, Sample
    from swingby.testing.campaign.job import Job
    from swingby.testing.campaign.schedule import Attempt, Schedule

ROUND_SECONDS_MAX = 300.0
DATA_BYTES = 700_000  # of a dataset, about
SETTINGS: dict[str, Any] = {"listing.manifests_kept_max": 16}
GONE_ERRORS = {"ObjectNotFoundError", "BaseNotFoundError", "BadSampleError", "BaseUnavailableError", "DeadlineError"}
ERRORS = {
    "change": {"ObjectChangedError", "ObjectNotFoundError", "BadSampleError"},
    "vanish": GONE_ERRORS | {"ObjectChangedError"},
    "base down": {"BaseUnavailableError", "DeadlineError"},
}


def run(job: Job) -> None:
    """Round after round, each on ground of its own."""
    if not HAS_TORCH:
        job.skip("PyTorch is not installed")
    else:
        importlib.import_module("swingby.torch")  # once, for all ranks that are forked
    for steps in job.rounds(1):
        with job.guard():
            rng = job.begin(steps.start, ROUND_SECONDS_MAX)
            schedule = draw(rng, steps.start)
            try:
                _round(job, schedule, rng)
            except BaseException as error:
                error.add_note(f"{schedule}")
                raise


def _round(job: Job, schedule: Schedule, rng: random.Random) -> None:
    memory = 64 * MIB if schedule.level_ratio > 1 else int(schedule.level_ratio * schedule.members * DATA_BYTES)
    budgets = {"memory.budget_bytes": memory, "burst.budget_bytes": 64 * MIB if schedule.level_ratio else 0}
    name = f"feeding-{job.counts['steps']}"
    with (
        Ground(name, SETTINGS | budgets, is_far=schedule.is_far, is_rough=schedule.is_far) as ground,
        Children(os.path.join(ground.root, "children")) as children,
    ):
        shape = Shape(3, 16, 28_000, schedule.large, 5 * MIB, schedule.is_even)
        layout = schedule.layout
        members = [Member(f"m{n}", os.path.join(ground.root, f"data{n}"), layout) for n in range(schedule.members)]
        stocks = [Stock(member, number, shape) for number, member in enumerate(members)]
        _Round(job, schedule, rng, (ground, children, stocks)).run()
        leaks.check(ground)
        ground.stop_keeper()


class _Round:
    """One job.

    Args:
        job: that counts.
        schedule: of the round.
        rng: draws on.
        place: ground, children and data.
    """

    def __init__(
        self, job: Job, schedule: Schedule, rng: random.Random, place: tuple[Ground, Children, list[Stock]]
    ) -> None:
        self._job = job
        self._schedule = schedule
        self._rng = rng
        self._ground, self._children, self._stocks = place
        self._folder = os.path.join(self._ground.root, "job")
        os.makedirs(self._folder)
        self._state: dict[str, Any] | None = None
        self._so_far: set[str] = set()  # kinds of faults
        self._begin()

    def run(self) -> None:
        """Attempt after attempt, until every epoch was given wholly."""
        number = 0
        while number < len(self._schedule.attempts):
            attempt, is_last = self._schedule.attempts[number], number == len(self._schedule.attempts) - 1
            self._job.counts["attempts"] += 1
            self._job.counts.update(fault.kind for fault in attempt.faults)
            ranks = self._attempt(number, attempt, set() if is_last and not self._schedule.replaces else self._bad)
            errors = self._settle(attempt, [read_report(task.path("log")) for task in ranks])
            if self._ledger.is_complete:
                break
            if errors & {"ObjectChangedError", "ObjectNotFoundError", "BadSampleError"} and "change" in self._so_far:
                self._renew()
                if is_last:  # nobody had met the change before
                    self._schedule = self._schedule._replace(attempts=(*self._schedule.attempts, attempt))
            number += 1
        promise(self._ledger.is_complete, "the last attempt has no faults, and did not end the job")
        self._same_substitutes()

    def _begin(self) -> None:
        """Take a snapshot, and know what is in it."""
        ground, schedule = self._ground, self._schedule
        self._datasets = [stock.member.open(ground.settings, refresh="always") for stock in self._stocks]
        source = self._source = mixed(schedule, self._stocks, self._datasets)
        prefix = [f"{stock.member.name}/" if len(self._stocks) > 1 else "" for stock in self._stocks]
        digests = {
            before + key: digest.hex()
            for before, stock in zip(prefix, self._stocks, strict=True)
            for key, digest in stock.samples().items()
        }
        promise(sorted(source.keys) == sorted(digests), "a fresh listing is wrong")
        orders = []
        for epoch in range(schedule.epochs):
            order, places = source.order(schedule.order, schedule.seed, epoch), np.arange(source.epoch_samples)
            orders.append([source.keys[index] for index in (order.take(places) if order else places).tolist()])
            _is_fair(orders[-1], sorted(digests), schedule)
        self._bad = set(self._rng.sample(sorted(digests), schedule.bad_count)) if schedule.bad else set()
        self._ledger = Ledger(orders, digests)
        source.batch(range(min(8, len(source))))  # ranks that are forked inherit a dataset in use

    def _renew(self) -> None:
        """The base has changed for good: the snapshot is given up, and its state belongs to no other."""
        self._begin()
        if self._state and self._schedule.reader != "iterable":
            loader = swingby.Loader(self._source, batch_size=2, **order_of(self._schedule))
            try:
                loader.load_state_dict(self._state)
            except StateError as error:
                promise(str(error), "an error says what happened")
            else:
                promise(False, "the state of another snapshot was accepted")
        self._state = None
        self._so_far.discard("change")

    # -- one attempt ---------------------------------------------------------------------------------------------------

    def _attempt(self, number: int, attempt: Attempt, bad: set[str]) -> list[Task]:
        """Run the ranks until they have ended, one way or another."""
        members, manifests = [stock.member for stock in self._stocks], [one.manifest for one in self._datasets]
        tasks = [
            Task(
                self._schedule,
                number,
                rank,
                members,
                manifests,
                self._ground.settings,
                self._folder,
                self._state,
                frozenset(bad),
                self._schedule.is_far,
            )
            for rank in range(attempt.world_size)
        ]
        programs = {fault.rank for fault in attempt.faults if fault.kind == "interrupt"}
        datasets = self._datasets if attempt.inherits else None
        ranks = []
        for task in tasks:
            is_program = task.rank in programs
            ranks.append(
                self._children.start(functools.partial(_as_program if is_program else _as_fork, task, datasets))
            )
        watch = Watch(self._ground, self._children, self._stocks, self._rng)
        try:
            watch.over(attempt, tasks, ranks)
        finally:
            watch.mend()
        self._so_far |= watch.happened
        return tasks

    def _settle(self, attempt: Attempt, reports: list[Report]) -> set[str]:
        """Check what the ranks were given, commit it; the errors they ended with."""
        self._ledger.look(reports)
        errors = {report.end: report.text for report in reports if report.end}
        allowed = self._allowed(attempt)
        odd = {name: text for name, text in errors.items() if name not in allowed}
        promise(not odd, f"an error that nothing explains: {odd}")
        if self._schedule.reader == "iterable":
            state = self._ledger.commit_whole(reports)
        else:
            most = min(len(report.steps) for report in reports)
            is_whole = all(report.end == "" for report in reports)
            steps = most if is_whole else self._rng.randint(max(0, most - 2), most)
            state = self._ledger.commit(reports, steps)
        self._state = state or self._state
        self._job.counts["samples"] += sum(len(step.samples) for report in reports for step in report.steps)
        return set(errors)

    def _allowed(self, attempt: Attempt) -> set[str]:
        """Errors that the faults explain."""
        allowed = set().union(*(ERRORS.get(kind, set()) for kind in self._so_far & {"change"}))
        allowed |= set().union(*(ERRORS.get(fault.kind, set()) for fault in attempt.faults))
        if self._bad and not self._schedule.replaces:
            allowed |= {"BadSampleError"} if self._schedule.reader == "loader" else {"ValueError"}
        if attempt.has("kill worker") and self._schedule.reader != "loader":
            allowed.add("RuntimeError")
        return allowed

    def _same_substitutes(self) -> None:
        """What stands for a bad sample does not depend on ranks, workers and resumes."""
        if not self._schedule.replaces or self._schedule.bad == "hangs" or self._so_far & {"change", "vanish"}:
            return
        found = self._ledger.replaced
        promise({key for _, key in found} <= self._bad, f"replaced without need: {sorted(found)}")
        if not found:
            return
        how = swingby.Decode(functools.partial(_refuse, self._bad), workers=1)
        loader = swingby.Loader(self._source, batch_size=7, decode=how, on_bad="substitute", **order_of(self._schedule))
        for epoch in range(self._schedule.epochs):
            for _ in loader:
                pass
            right = {(epoch, one.key): {one.substitute} for one in loader.bad}
            wrong = {name: one for name, one in found.items() if name[0] == epoch and one != right[name]}
            promise(not wrong, f"other substitutes than {right}: {wrong}")


def mixed(schedule: Schedule, stocks: list[Stock], datasets: list[Dataset]) -> Any:
    """What is read: the dataset, or the mixture of all."""
    if len(datasets) == 1:
        return datasets[0]
    names = [stock.member.name for stock in stocks]
    return swingby.Mixture(dict(zip(names, datasets, strict=True)), weights=weights(schedule))


def order_of(schedule: Schedule) -> dict[str, Any]:
    """Arguments of a loader."""
    order = schedule.order if schedule.order != "key" else "global"
    return {"shuffle": schedule.order != "key", "order": order, "seed": schedule.seed}


def _is_fair(order: list[str], keys: list[str], schedule: Schedule) -> None:
    """An epoch has every sample once; one of a mixture is a stretch: each as often as the others but for the passes at its ends."""
    if schedule.members == 1:
        promise(sorted(order) == keys, "an epoch has not every sample once")
        return
    times = Counter(order)
    for number in range(schedule.members):
        counts = [times[key] for key in keys if key.startswith(f"m{number}/")]
        promise(max(counts) - min(counts) <= 2, f"dataset {number} is given unevenly: {sorted(counts)}")


def _refuse(bad: set[str], sample: Sample) -> int:
    """Decoding that fails for the same samples."""
    if sample.key in bad:
        raise ValueError("bad")
    return 1


def _as_fork(task: Task, datasets: list[Dataset] | None) -> None:
    os.setpgid(0, 0)
    live(task, datasets)


def _as_program(task: Task, datasets: list[Dataset] | None) -> None:
    del datasets
    os.setpgid(0, 0)
    path = task.path("task")
    with open(path, "wb") as file:
        pickle.dump(task, file)
    os.execv(sys.executable, [sys.executable, "-m", "swingby.testing.campaign.feeder", path])
