"""What Swingby will do here and why, in sentences. Pure: made from what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swingby.doors.cli.quantities import duration, number, objects, share, size
from swingby.keeper.bases import NEAR_FACTOR, REQUESTS_A_SECOND

if TYPE_CHECKING:
    from swingby.config import Fetch
    from swingby.doors.cli.doctor.reach import Reach


class Budgets(NamedTuple):
    """Bytes of the levels; 0: off.

    Attributes:
        memory, burst: of levels 1 and 2.
        memory_why, burst_why: how they came about.
        floor_ratio: of the disk, kept free.
        memory_now: what level 1 could hold now, as memory is free; None: its budget.
    """

    memory: int
    burst: int
    memory_why: str
    burst_why: str
    floor_ratio: float
    memory_now: int | None = None

    @property
    def kept(self) -> int:
        """Bytes that level 1 holds at most, now."""
        return self.memory if self.memory_now is None else min(self.memory, self.memory_now)


def sentences(budgets: Budgets, reach: Reach | None, burst_seconds: float | None, fetch: Fetch) -> list[str]:
    """What will happen, in the order in which a read meets it.

    Args:
        budgets: of the levels.
        reach: of the base that was asked about.
        burst_seconds: of a small read of the burst level; None where there is none.
        fetch: settings of reading.
    """
    found = [_of_memory(budgets), _of_burst(budgets)]
    if reach:
        found += [_of_distance(budgets, reach, burst_seconds), _of_flight(reach, fetch)]
        found += [_of_fit(budgets, reach, burst_seconds)] if reach.is_all else []
    return found


def is_near(reach: Reach, burst_seconds: float | None) -> bool:
    """The keeper's own rule: files about as near as the burst level are not copied there."""
    if not reach.is_local or burst_seconds is None:
        return reach.is_local
    return reach.far_seconds is None or reach.far_seconds <= NEAR_FACTOR * burst_seconds


def _of_memory(budgets: Budgets) -> str:
    if not budgets.memory:
        return "Nothing is kept in memory: every read goes to the burst level or the base."
    text = f"Up to {size(budgets.memory)} are kept in memory ({budgets.memory_why}), read without a copy by every process of yours"
    if budgets.kept < budgets.memory:
        return f"{text}; at the moment up to {size(budgets.kept)}, because no more memory is free."
    return f"{text}."


def _of_burst(budgets: Budgets) -> str:
    if not budgets.burst:
        return "Nothing is kept on the burst level: what leaves memory is fetched from the base again."
    return (
        f"Up to {size(budgets.burst)} are kept on the burst level ({budgets.burst_why}); "
        f"{share(budgets.floor_ratio)} of that disk stay free."
    )


def _of_distance(budgets: Budgets, reach: Reach, burst_seconds: float | None) -> str:
    if burst_seconds is None or not budgets.burst:
        return f"The base is {duration(reach.far_seconds or reach.latency_seconds)} away; there is no burst level to copy it to."
    burst = duration(burst_seconds)
    if not reach.is_local:
        return (
            f"The base is {duration(reach.latency_seconds)} away, the burst level {burst}: what is fetched is copied there in "
            "idle moments, and comes from there after a restart."
        )
    far = duration(reach.far_seconds or 0.0)
    if is_near(reach, burst_seconds):
        return f"This directory is as near as the burst level ({far} against {burst}): it is not copied there, only to memory."
    return f"This directory is farther than the burst level ({far} against {burst}): what is fetched is copied there."


def _of_flight(reach: Reach, fetch: Fetch) -> str:
    wanted = int(reach.latency_seconds * REQUESTS_A_SECOND)
    count = max(fetch.inflight_count_min, min(fetch.inflight_count_max, wanted))
    return (
        f"At {duration(reach.latency_seconds)} a request, up to {number(count)} requests are kept in flight, "
        f"and no more than {size(fetch.inflight_bytes_max)}."
    )


def _of_fit(budgets: Budgets, reach: Reach, burst_seconds: float | None) -> str:
    what = f"{objects(reach.objects)}, {size(reach.bytes)}"
    if reach.bytes <= budgets.kept:
        return f"The dataset ({what}) fits into memory: from the second epoch on the base is asked for nothing."
    if reach.bytes <= budgets.burst and not is_near(reach, burst_seconds):
        return f"The dataset ({what}) fits on the burst level: from the second epoch on the base is asked for nothing."
    return f"The dataset ({what}) is larger than what is kept: a part of every epoch comes from the base."
