"""One epoch as one rank reads it: the indices of its steps, the plan registered for it, and how far it has come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from swingby.core.epoch import Draw
from swingby.core.order import Share, consumed_positions, step_count, step_positions

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from swingby.core.epoch import Order
    from swingby.data.ahead import Job
    from swingby.data.dataset import Dataset
    from swingby.keeper.protocol import Plan

ORDER_POSITIONS = 1 << 16  # computed at once


class Steps:
    """The indices of one epoch for one rank."""

    def __init__(self, count: int, share: Share, order: Order | None) -> None:
        self._count = count
        self._share = share
        self._order = order
        self._first = self._known = 0
        self._block = np.zeros(0, np.int64)

    def indices(self, step: int) -> NDArray[np.int64]:
        """Indices of a step: int64[≤ batch_size + 1]. Steps are asked for in ascending order."""
        start, stop = step_positions(self._count, self._share, step)
        if self._order is None:
            return np.arange(start, stop)
        if stop > self._known:
            self._first = start
            self._known = min(self._count, max(stop, start + ORDER_POSITIONS))
            self._block = self._order.take(np.arange(self._first, self._known))
        return self._block[start - self._first : stop - self._first]


class Epoch:
    """See the module's text. The plan is registered where the epoch is entered, and stays until the job has another.

    Args:
        dataset: to read.
        plan: what is read.
        job: to register it on.
        note: told epoch and samples consumed by all ranks, at every step that is given out.

    Attributes:
        number: of the epoch.
        draw: what its order is drawn from.
        steps: numbers of its steps.
    """

    def __init__(self, dataset: Dataset, plan: Plan, job: Job, note: Callable[[int, int], None]) -> None:
        self.number = plan.epoch
        self.draw = Draw(plan.seed, plan.epoch, dataset.digest)
        self._dataset = dataset
        self._plan = plan
        self._note = note
        self._share = Share(*plan.share)
        self.steps = range(step_count(len(dataset), self._share))
        self._order = dataset.order(plan.order, plan.seed, plan.epoch)
        self._known = Steps(len(dataset), self._share, self._order)
        self._job = job
        self._registered = self._given = 0

    def __enter__(self) -> Self:
        self._registered = self._job.begin(self._plan)
        return self

    def __exit__(self, *_: object) -> None:
        if self._given == len(self.steps):
            self._job.advance(self._registered, self._given, at_once=True)

    def indices(self, step: int) -> NDArray[np.int64]:
        """See `Steps.indices`."""
        return self._known.indices(step)

    def stand_in(self, step: int) -> int:
        """The first index of a step, for a rank that has none of it and must keep step with the others."""
        start, _ = step_positions(len(self._dataset), self._share._replace(rank=0), step)
        return int(self._order.take(np.array([start]))[0]) if self._order else start

    def gave(self, step: int) -> None:
        """A step is given out."""
        self._note(self.number, consumed_positions(len(self._dataset), self._share, step + 1))
        self._given = step + 1
        self._job.advance(self._registered, step)
