"""What the demo measured; the JSON, the summary and the report are made from it and nothing else."""

from __future__ import annotations

from typing import Literal

import msgspec

Way = Literal["file by file", "cold", "burst", "warm"]


class Split(msgspec.Struct, frozen=True):
    """Where an epoch's seconds went; they add up to the epoch's.

    Attributes:
        latency: waiting while a request was on its way to the base, as `--latency-ms` has it.
        base: waiting for the base, network included.
        keeper: waiting for the keeper alone: copies from the burst level, and its bookkeeping.
        process: in this process: views of the memory level, and the loop.
        check: hashing every byte.
    """

    latency: float
    base: float
    keeper: float
    process: float
    check: float


class Epoch(msgspec.Struct, frozen=True):
    """One epoch: every object once, in random order.

    Attributes:
        way: how it was loaded.
        number: from 1, on each side.
        seconds: of the whole epoch, hashing included.
        objects, bytes: loaded.
        objects_per_second, bytes_per_second: these over the seconds.
        base_requests, base_bytes: read from the base meanwhile.
        burst_bytes: copied from the burst level to the memory level meanwhile.
        wrong_objects: whose hash was another than in the first epoch file by file.
        split: where the seconds went.
        progress: points (seconds, objects) along the way.
    """

    way: Way
    number: int
    seconds: float
    objects: int
    bytes: int
    objects_per_second: float
    bytes_per_second: float
    base_requests: int
    base_bytes: int
    burst_bytes: int
    wrong_objects: int
    split: Split
    progress: list[tuple[float, int]]


class Listing(msgspec.Struct, frozen=True):
    """The listing, made once, by `swingby.open`.

    Attributes:
        objects: found, before patterns leave any out.
        by_file: seconds of it spent on the base's answers, which a plain listing takes as well.
        by_swingby: seconds of all of it, with saving the manifest.
    """

    objects: int
    by_file: float
    by_swingby: float


class LevelUse(msgspec.Struct, frozen=True):
    """A level after the warm epochs."""

    name: str
    used_bytes: int
    budget_bytes: int
    directory: str


class Speedups(msgspec.Struct, frozen=True):
    """Seconds file by file over seconds through Swingby; below 1 Swingby was slower; None: not measured.

    Attributes:
        cold, burst, warm: the `typical` epoch against the fastest file by file.
        job: listing and all epochs one after the other, the cold one first, against as many file by file.
    """

    cold: float
    burst: float | None
    warm: float
    job: float | None


class Results(msgspec.Struct, frozen=True):
    """Everything.

    Attributes:
        version: of Swingby.
        taken_at: local time, ISO 8601.
        url: what was loaded.
        objects, bytes: of the dataset.
        latency_ms: added to every request to the base.
        epochs_wanted: on each side.
        batch_size: of the loader.
        listing: before the first epoch.
        epochs: in the order in which they were run.
        speedups: see there.
        levels: after the warm epochs.
        is_near: whether the keeper judged the base as near as the burst level, and did not copy it there.
        machine: what this machine is; `available_bytes` of memory were free after the warm epochs, `headroom_bytes` stay so.
        settle_seconds: after the cold epoch, until what was fetched was copied down; not in any epoch.
        unreadable: keys left out because this user may not read them.
        wrong_keys: at most ten, whose bytes differed.
        verdicts: the figures in sentences; those of losses begin with "Slower:" or "Wrong bytes:".
    """

    version: str
    taken_at: str
    url: str
    objects: int
    bytes: int
    latency_ms: float
    epochs_wanted: int
    batch_size: int
    listing: Listing
    epochs: list[Epoch]
    speedups: Speedups
    levels: list[LevelUse]
    is_near: bool
    machine: dict[str, str | int]
    settle_seconds: float = 0.0
    unreadable: list[str] = []
    wrong_keys: list[str] = []
    verdicts: list[str] = []


def of_way(epochs: list[Epoch], way: Way) -> list[Epoch]:
    """The epochs loaded in this way."""
    return [one for one in epochs if one.way == way]


def typical(epochs: list[Epoch], way: Way) -> Epoch:
    """The epoch to show for a way that was run: file by file the fastest, else the middle one, of two the slower one."""
    found = sorted(of_way(epochs, way), key=lambda one: one.seconds)
    return found[0] if way == "file by file" else found[len(found) // 2]


def job(epochs: list[Epoch]) -> list[Epoch]:
    """The epochs of the job through Swingby: the cold one and the warm ones."""
    return [*of_way(epochs, "cold"), *of_way(epochs, "warm")]


def speedups(epochs: list[Epoch], listing: Listing) -> Speedups:
    """What to claim; conservative, against the fastest epoch file by file."""
    plain = [one.seconds for one in of_way(epochs, "file by file")]
    ours = [one.seconds for one in job(epochs)]
    return Speedups(
        cold=min(plain) / typical(epochs, "cold").seconds,
        burst=min(plain) / typical(epochs, "burst").seconds if of_way(epochs, "burst") else None,
        warm=min(plain) / typical(epochs, "warm").seconds,
        job=(listing.by_file + sum(plain)) / (listing.by_swingby + sum(ours)) if len(plain) == len(ours) else None,
    )
