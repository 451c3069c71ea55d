"""One rank of a job that is fed: it reads epochs as its task says, and writes down what it was given, step by step.

`python -m swingby.testing.campaign.feeder FILE` is a rank that is a program of its own, as a user starts it.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import pickle
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple

import swingby
from swingby import sessions
from swingby.errors import StateError
from swingby.testing.campaign.ground import make_session
from swingby.testing.campaign.job import promise, until
from swingby.testing.campaign.stock import told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swingby.config import Settings
    from swingby.data.dataset import Dataset, Sample
    from swingby.testing.campaign.schedule import Schedule
    from swingby.testing.campaign.stock import Member

HANG_SECONDS = 8.0
DECODE_SECONDS_MAX = 1.5
DECODE_SECONDS = 0.001
STEP_SECONDS = 0.002
RELEASE_SECONDS_MAX = 60.0
CHILDREN_SECONDS_MAX = 10.0  # for workers to be gone once their loader is
HELPERS = (b"resource_tracker", b"forkserver")  # multiprocessing's own, which live as long as their process


class Task(NamedTuple):
    """What one rank does in one attempt.

    Attributes:
        schedule: of the round.
        attempt, rank: number of either.
        members, manifests: the datasets, and their snapshots.
        settings: of the ground.
        folder: for what it writes.
        state: to go on from; None: the beginning.
        bad: keys whose decoding fails.
        is_rough: see `Ground`.
    """

    schedule: Schedule
    attempt: int
    rank: int
    members: list[Member]
    manifests: list[str]
    settings: Settings
    folder: str
    state: dict[str, Any] | None
    bad: frozenset[str]
    is_rough: bool

    def path(self, name: str) -> str:
        """Of a file that the rank and its watcher share."""
        return os.path.join(self.folder, f"{name}-{self.attempt}-{self.rank}")

    def moment(self, name: str) -> None:
        """The rank has come to a moment: faults that wait for it happen."""
        for number, fault in enumerate(self.schedule.attempts[self.attempt].faults):
            want = f"{self.path('want')}-{number}"
            if fault.rank == self.rank and fault.moment == name and fault.kind != "break" and not os.path.exists(want):
                _touch(want)
                if fault.waits:
                    until(lambda want=want: not os.path.exists(want + ".done"), RELEASE_SECONDS_MAX, "no fault came")


class Look:
    """Decodes a sample: key, and what its bytes are told by. May fail as the task says.

    Args:
        task: of the rank.
        layout: of the datasets.
    """

    def __init__(self, task: Task) -> None:
        self._task = task

    def __call__(self, sample: Sample) -> Any:
        """See above."""
        self._task.moment("decode")
        time.sleep(DECODE_SECONDS)
        if sample.key in self._task.bad:
            return _fail(self._task.schedule.bad)
        return told(sample, self._task.schedule.layout)


def _fail(how: str) -> Any:
    if how == "hangs":
        time.sleep(HANG_SECONDS)
    if how == "dies":
        os._exit(3)
    if how == "unpicklable":
        return lambda: None
    if how == "raises":
        raise ValueError("this sample cannot be decoded")
    return None


def live(task: Task, datasets: list[Dataset] | None) -> None:
    """The rank's life, until its watcher lets it end.

    Args:
        task: what to do.
        datasets: open ones, inherited by a fork; None: it opens them.
    """
    log = os.open(task.path("log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def say(**facts: Any) -> None:
        os.write(log, json.dumps(facts).encode() + b"\n")

    try:
        _feed(task, datasets, say)
        say(end="")
    except Exception as error:  # whoever watches knows which are right
        say(end=type(error).__name__, text=traceback.format_exc())
    gc.collect()
    until(_children, CHILDREN_SECONDS_MAX, "A LEAK: workers live on after their loader")
    _touch(task.path("idle"))
    until(lambda: not os.path.exists(task.path("release")), RELEASE_SECONDS_MAX, "nobody lets the rank end")


def _feed(task: Task, datasets: list[Dataset] | None, say: Any) -> None:
    task.moment("open")
    if datasets is None:
        datasets = [one.open(task.settings, digest) for one, digest in zip(task.members, task.manifests, strict=True)]
    state = task.state
    breaks = [fault for fault in task.schedule.attempts[task.attempt].faults if fault.kind == "break"]
    while True:
        feeder = FEEDERS[task.schedule.reader](task, datasets)
        if task.schedule.attempts[task.attempt].garbage:
            _refuses_garbage(feeder)
        if state is not None:
            feeder.load(state)
        stops = {fault.moment for fault in breaks if fault.rank == task.rank}
        if feeder.run(say, stops):
            return
        state, breaks = feeder.state(), []
        del feeder
        gc.collect()
        if task.rank % 2:  # another loader, perhaps over the same datasets
            datasets = [
                one.open(task.settings, digest) for one, digest in zip(task.members, task.manifests, strict=True)
            ]


class LoaderFeeder:
    """Reads by `swingby.Loader`.

    Args:
        task: of the rank.
        datasets: open.
    """

    def __init__(self, task: Task, datasets: list[Dataset]) -> None:
        self._task = task
        self.source: Any = datasets[0]
        if len(datasets) > 1:
            names = [member.name for member in task.members]
            self.source = swingby.Mixture(dict(zip(names, datasets, strict=True)), weights=weights(task.schedule))
        self.loader = self._make()

    def _make(self) -> Any:
        """The loader."""
        task, how = self._task, self._task.schedule.attempts[self._task.attempt]
        decode = None
        if how.where != "nowhere":
            seconds_max = DECODE_SECONDS_MAX if task.schedule.bad == "hangs" else None
            decode = swingby.Decode(Look(task), where=how.where, workers=how.workers, seconds_max=seconds_max)
        return swingby.Loader(self.source, decode=decode, **self._order(how))

    def _order(self, how: Any) -> dict[str, Any]:
        schedule = self._task.schedule
        return {
            "batch_size": how.batch_size,
            "shuffle": schedule.order != "key",
            "order": schedule.order if schedule.order != "key" else "global",
            "seed": schedule.seed,
            "rank": self._task.rank,
            "world_size": how.world_size,
            "on_bad": "substitute" if schedule.replaces else "raise",
        }

    def state(self) -> dict[str, Any]:
        """See `Loader.state_dict`."""
        return dict(self.loader.state_dict())

    def load(self, state: dict[str, Any]) -> None:
        """See `Loader.load_state_dict`."""
        self.loader.load_state_dict(state)

    def run(self, say: Any, stops: set[str]) -> bool:
        """Read what is left of the epochs; False if it broke off at one of the moments `stops`."""
        for _ in range(self.state()["epoch"], self._task.schedule.epochs):
            steps = len(self.loader)
            self._task.moment("first")
            for step, batch in enumerate(self.loader):
                bad = [list(one) for one in self.loader.bad]
                say(state=self.state(), samples=self.samples(batch), bad=bad)
                self._task.moment(f"step {step}")
                if step == steps - 2:
                    self._task.moment("last")
                if f"step {step}" in stops:
                    return False
                time.sleep(STEP_SECONDS)
        return True

    def samples(self, batch: Any) -> list[Any]:
        """Key and digest of each."""
        if self._task.schedule.attempts[self._task.attempt].where == "nowhere":
            batch = [told(sample, self._task.schedule.layout) for sample in batch]
        return [(key, digest.hex()) for key, digest in batch]


class TorchFeeder(LoaderFeeder):
    """Reads by `swingby.torch.DataLoader`."""

    def _make(self) -> Any:
        """See `LoaderFeeder`."""
        import swingby.torch

        how = self._task.schedule.attempts[self._task.attempt]
        if self._task.schedule.is_even:  # bytes as they are, copied by threads
            return swingby.torch.DataLoader(
                swingby.torch.Dataset(self.source), num_workers=how.workers - 1, **self._order(how)
            )
        return swingby.torch.DataLoader(
            swingby.torch.Dataset(self.source, Look(self._task)), **_workers(how), **self._order(how)
        )

    def samples(self, batch: Any) -> list[Any]:
        """See `LoaderFeeder`; of bytes as they are only the digest is known."""
        if not self._task.schedule.is_even:
            return [(key, digest.hex()) for key, digest in batch]
        from swingby.testing.campaign.truth import digest_of

        return [(None, digest_of(row.numpy()).hex()) for row in batch]


class IterableFeeder(LoaderFeeder):
    """Reads by `swingby.torch.IterableDataset` in PyTorch's own DataLoader. It has no position but whole epochs."""

    def _make(self) -> Any:
        import torch.utils.data

        import swingby.torch

        self._epoch = 0
        order = self._order(how := self._task.schedule.attempts[self._task.attempt])
        batch_size, _ = order.pop("batch_size"), order.pop("on_bad")
        self._objects = swingby.torch.IterableDataset(self.source, Look(self._task), **order)
        return torch.utils.data.DataLoader(self._objects, batch_size=batch_size, **_workers(how))

    def state(self) -> dict[str, Any]:
        """The epoch."""
        return {"epoch": self._epoch}

    def load(self, state: dict[str, Any]) -> None:
        """Begin with this epoch."""
        self._epoch = state["epoch"]

    def run(self, say: Any, stops: set[str]) -> bool:
        """See `LoaderFeeder`."""
        del stops
        while self._epoch < self._task.schedule.epochs:
            self._objects.set_epoch(self._epoch)
            self._task.moment("first")
            found: list[Any] = []
            for step, batch in enumerate(self.loader):
                found += self.samples(batch)
                self._task.moment(f"step {step}")
                time.sleep(STEP_SECONDS)
            self._task.moment("last")
            self._epoch += 1
            say(state=self.state(), samples=found, bad=[])
        return True

    def samples(self, batch: Any) -> list[Any]:
        """See `LoaderFeeder`."""
        return [(key, digest.hex()) for key, digest in batch]


FEEDERS: dict[str, type[LoaderFeeder]] = {"loader": LoaderFeeder, "torch": TorchFeeder, "iterable": IterableFeeder}


def weights(schedule: Schedule) -> list[int] | None:
    """Of the members of a mixture."""
    return None if schedule.seed % 2 else [1, 2, 3][: schedule.members]


def _workers(how: Any) -> dict[str, Any]:
    """Arguments of a DataLoader with processes, or without."""
    if how.where != "processes":
        return {"num_workers": 0, "collate_fn": list}
    return {"num_workers": how.workers, "multiprocessing_context": how.method, "collate_fn": list}


GARBAGE: tuple[Any, ...] = (
    None,
    7,
    "epoch",
    [],
    {},
    {"format": 2},
    {"dataset": None},
    {"dataset": 5},
    {"dataset": "0" * 64},
    {"order": "by heart"},
    {"seed": -1},
    {"epoch": -1},
    {"epoch": 1.5},
    {"epoch": None},
    {"epoch": 1 << 80},
    {"consumed": -1},
    {"consumed": "3"},
    {"consumed": 1 << 60},
    {"consumed": float("nan")},
)


def _refuses_garbage(feeder: LoaderFeeder) -> None:
    """States that are none, and none of this dataset: refused, and nothing changes."""
    before = feeder.state()
    for part in GARBAGE:
        state = before | part if isinstance(part, dict) and part else part
        try:
            feeder.load(state)
        except StateError as error:
            promise(str(error), "an error says what happened")
        else:
            promise(False, f"the state {state} was accepted")
        promise(feeder.state() == before, f"the state {state} was refused, and changed where the loader stands")


def _children() -> list[str]:
    """Processes that this one started and that are still there, zombies too."""
    return [
        line
        for line in _process_lines()
        if int(line.split()[1]) == os.getpid() and not any(one in _command(line) for one in HELPERS)
    ]


def _process_lines() -> Iterator[str]:
    """Number, parent and state of each process of this one's group."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == os.getpgid(0):
                yield f"{name} {fields[1]} {fields[0]}"


def _command(line: str) -> bytes:
    try:
        with open(f"/proc/{line.split(maxsplit=1)[0]}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


def main() -> None:
    """A rank as a program."""
    faulthandler.register(signal.SIGUSR2, 2, all_threads=True)
    with open(sys.argv[1], "rb") as file:
        task: Task = pickle.load(file)
    sessions.adopt(make_session(task.settings, is_far=task.is_rough, is_rough=task.is_rough))
    live(task, None)


if __name__ == "__main__":
    main()
