"""Single flight: every chunk is fetched once, however many wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from swingby.keeper.jobs import FetchJob, Outcome, Place, Waiter

Planner = Callable[[list[int]], "list[FetchJob]"]


class Joined(NamedTuple):
    """Jobs that are waited for: new ones, to be run, and those that were under way or queued."""

    new: list[FetchJob]
    joined: list[FetchJob]


class Flights:
    """The table of what is being fetched."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[tuple[str, int], FetchJob] = {}

    def join(self, place: Place | None, chunks: NDArray[np.intp], plan: Planner, waiter: Waiter) -> Joined:
        """Wait for the absent ones of some chunks: with jobs under way where there are, with new ones for the rest.

        An entry is stored or kept before its job leaves the table, so what is in neither is absent.

        Args:
            place: where the chunks belong; None: nowhere, then all are absent and nothing is shared.
            chunks: numbers, ascending.
            plan: makes jobs for the chunks that nobody fetches yet.
            waiter: told once for every job.
        """
        with self._lock:
            flying: dict[int, FetchJob] = {}
            absent: list[int] = (place.file.absent(chunks) if place else chunks).tolist()
            if place and self._jobs:
                path = place.file.path
                flying = {chunk: job for chunk in absent if (job := self._jobs.get((path, chunk)))}
            joined = list({id(job): job for job in flying.values()}.values())
            for job in joined:
                job.waiters.append(waiter)
            rest = [chunk for chunk in absent if chunk not in flying] if flying else absent
            new = plan(rest) if rest else []
            for job in new:
                job.waiters.append(waiter)
                job.attach(self.land)
                for key in _keys(job):
                    self._jobs[key] = job
            return Joined(new, joined)

    def land(self, job: FetchJob, outcome: Outcome) -> None:
        """A job is over: take it from the table and tell who waits."""
        with self._lock:
            for key in _keys(job):
                self._jobs.pop(key, None)
        for waiter in job.waiters:
            waiter(job, outcome)


def _keys(job: FetchJob) -> Iterable[tuple[str, int]]:
    if job.target is None:
        return ()
    path = job.target.file.path
    return [(path, chunk) for chunk in job.chunks()]
