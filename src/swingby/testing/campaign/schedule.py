"""What a round of the feeding part does, drawn from its seed: who reads what, how, and which faults come when."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random

HAS_TORCH = importlib.util.find_spec("torch") is not None
READERS = ("loader", "loader", "torch", "iterable")
FAULTS = (
    "kill rank",
    "kill worker",
    "kill keeper",
    "interrupt",
    "bad decode",
    "change",
    "vanish",
    "break",
    "storm",
    "base down",
)
MOMENTS = ("open", "first", "decode", "step", "step", "step", "last")  # each step more often
BAD = {
    "threads": ("raises", "None", "hangs"),
    "processes": ("raises", "None", "hangs", "unpicklable", "dies"),
    "torch": ("raises",),
}
STORM_RANKS = 20
ATTEMPTS_MAX = 3  # with faults; one without follows
WAITS_SECONDS = 0.02


class Fault(NamedTuple):
    """Something bad.

    Attributes:
        kind: one of FAULTS.
        rank: whose.
        moment: "open", "first", "decode", "last", or "step N": when the rank reaches it.
        delay_seconds: after that.
        waits: whether the rank stands still meanwhile.
    """

    kind: str
    rank: int
    moment: str
    delay_seconds: float
    waits: bool


class Attempt(NamedTuple):
    """One run of the job, from the last state on.

    Attributes:
        world_size, batch_size: of it.
        where: samples are decoded: "nowhere", "threads", "processes".
        workers: that decode.
        method: they are started by.
        inherits: ranks are forked after the dataset was used, and go on with it.
        garbage: states of others are tried first.
        faults: that come.
    """

    world_size: int
    batch_size: int
    where: str
    workers: int
    method: str
    inherits: bool
    garbage: bool
    faults: tuple[Fault, ...]

    def has(self, *kinds: str) -> bool:
        """Whether one of these comes."""
        return any(fault.kind in kinds for fault in self.faults)


class Schedule(NamedTuple):
    """See the module's text.

    Attributes:
        reader: "loader", "torch" (our DataLoader), "iterable" (in PyTorch's).
        layout: of the datasets.
        members: how many; more than one are a mixture.
        order, seed: of the loader.
        epochs: read.
        replaces: bad samples are replaced.
        bad, bad_count: how decoding fails, and of how many samples.
        level_ratio: of the data, that the memory level holds.
        is_far: the base is remote, and errs now and then.
        is_even: all objects have one size.
        large: objects with a segment of their own.
        attempts: one after another, each from the state that the last one left; the last has no faults.
    """

    reader: str
    layout: str
    members: int
    order: str
    seed: int
    epochs: int
    replaces: bool
    bad: str
    bad_count: int
    level_ratio: float
    is_far: bool
    is_even: bool
    large: int
    attempts: tuple[Attempt, ...]


def draw(rng: random.Random, number: int) -> Schedule:
    """The schedule of a round; its number says which fault is certain to come."""
    main = FAULTS[number % len(FAULTS)]
    reader = rng.choice(READERS if HAS_TORCH else READERS[:2])
    if main == "kill worker" and reader == "iterable" and rng.random() < 0.5:
        reader = "loader"
    where, method = _decoding(rng, main, reader)
    is_even = reader == "torch" and where == "nowhere"
    bad = (
        rng.choice(BAD["torch" if reader != "loader" else where]) if where != "nowhere" and _has_bad(rng, main) else ""
    )
    members = 1 if reader == "iterable" or rng.random() < 0.6 else rng.randint(2, 3)
    is_slow = reader != "loader" and (
        bad or main == "kill worker"
    )  # PyTorch takes 5 s to end each worker after an error
    attempts = [_attempt(rng, main, reader, (where, method)) for _ in range(rng.randint(1, ATTEMPTS_MAX))]
    if is_slow:
        attempts = [one._replace(workers=1) for one in attempts[:2]]
    last = _attempt(rng, "", reader, (where, method))._replace(faults=())
    is_spawned = any(one.method != "fork" for one in [*attempts, last])
    return Schedule(
        reader=reader,
        layout="objects" if is_even or rng.random() < 0.65 else rng.choice(("tar", "webdataset")),
        members=members,
        order=rng.choice(("key", "global", "global", "segments")),
        seed=rng.randrange(1000),
        epochs=2 if rng.random() < 0.2 else 1,
        replaces=reader != "iterable" and rng.random() < 0.5,
        bad=bad,
        bad_count=rng.randint(1, 3),
        level_ratio=rng.choice((10.0, 10.0, 0.5, 0.0)),
        is_far=main == "base down" or (not is_spawned and rng.random() < 0.5),
        is_even=is_even,
        large=1 if not is_even and rng.random() < 0.2 else 0,
        attempts=(*attempts, last),
    )


def _has_bad(rng: random.Random, main: str) -> bool:
    return main == "bad decode" or rng.random() < 0.15


def _decoding(rng: random.Random, main: str, reader: str) -> tuple[str, str]:
    """Where samples are decoded, and how processes for it are started. New interpreters take their time, so they are rare."""
    if main == "kill worker" or (main == "bad decode" and reader != "loader"):
        where = "processes"
    elif main == "bad decode":
        where = rng.choice(("threads", "processes"))
    else:
        where = rng.choice(("nowhere", "threads", "processes"))
    if main == "base down" or rng.random() < 0.85:
        return where, "fork"
    return where, rng.choice(("forkserver", "spawn"))


def _attempt(rng: random.Random, main: str, reader: str, decoding: tuple[str, str]) -> Attempt:
    where, method = decoding
    world_size = STORM_RANKS if main == "storm" else rng.choice((1, 1, 2, 3, 4) if method == "fork" else (1, 1, 2))
    faults = [_fault(rng, main, world_size)] if main not in {"", "bad decode", "storm"} else []
    if rng.random() < 0.3:
        faults.append(_fault(rng, rng.choice(("kill keeper", "kill rank", "break", "change")), world_size))
    if reader == "iterable":
        faults = [fault for fault in faults if fault.kind != "break"]
    if reader == "torch" and where == "nowhere":
        faults = [fault for fault in faults if fault.kind != "change"]  # which changes sizes: no tensor is made of them
    return Attempt(
        world_size=world_size,
        batch_size=rng.randint(1, 3) if world_size == STORM_RANKS else rng.randint(1, 9),
        where=where,
        workers=rng.randint(1, 3 if method == "fork" else 1),
        method=method,
        inherits=world_size == STORM_RANKS or rng.random() < 0.4,
        garbage=reader != "iterable" and rng.random() < 0.3,
        faults=tuple(faults),
    )


def _fault(rng: random.Random, kind: str, world_size: int) -> Fault:
    moment = rng.choice(MOMENTS)
    if kind == "break" or (kind == "kill worker" and moment in {"open", "first"}):
        moment = "step"  # there is nothing to break off before
    if moment == "step":
        moment = f"step {rng.randint(0, 4)}"
    stops = kind in {"change", "kill keeper", "vanish", "base down"}
    delay = 0.0 if rng.random() < 0.4 else rng.uniform(0, WAITS_SECONDS)
    return Fault(kind, rng.randrange(world_size), moment, delay, stops and rng.random() < 0.6)
