"""One epoch as one rank reads it: the indices of its steps, the plan registered for it, and how far it has come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from swingby.core.epoch import Draw
from swingby.core.order import consumed_positions, step_count, step_positions

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from swingby.core.epoch import Order
    from swingby.core.order import Share
    from swingby.data.loadable import Loadable, ReadAhead, Reading

ORDER_POSITIONS = 1 << 16  # computed at once
STEPS_TOGETHER_FIRST, STEPS_TOGETHER_MAX = 16, 256  # the same; few at first, so that the first batch does not wait


class Steps:
    """The indices of one epoch for one rank.

    Args:
        samples: of the epoch.
        share: of the rank.
        order: of the samples; None: as listed.

    Attributes:
        count: of the steps.
    """

    def __init__(self, samples: int, share: Share, order: Order | None) -> None:
        self.count = step_count(samples, share)
        self._samples = samples
        self._share = share
        self._order = order
        self._together = STEPS_TOGETHER_FIRST
        self._first = 0
        self._known: list[NDArray[np.int64]] = []

    def indices(self, step: int) -> NDArray[np.int64]:
        """Indices of a step: int64[≤ batch_size + 1]. Steps are asked for in ascending order."""
        if self._order is None:
            return np.arange(*step_positions(self._samples, self._share, step))
        if not 0 <= step - self._first < len(self._known):
            self._first, self._known = step, self._compute(step, self._order)
        return self._known[step - self._first]

    def _compute(self, step: int, order: Order) -> list[NDArray[np.int64]]:
        """The indices of this step and some behind it: only the rank's own, however many ranks there are."""
        together = max(1, min(self._together, ORDER_POSITIONS // self._share.batch_size))
        self._together = min(2 * self._together, STEPS_TOGETHER_MAX)
        steps = range(step, min(step + together, self.count))
        parts = [np.arange(*step_positions(self._samples, self._share, one)) for one in steps]
        return np.split(order.take(np.concatenate(parts)), np.cumsum([len(part) for part in parts])[:-1])


class Epoch:
    """See the module's text. The plan is registered where the epoch is entered, and stays until the job has another.

    Args:
        dataset: to read.
        reading: what of it.
        ahead: to register that with.
        note: told epoch and samples consumed by all ranks, at every step that is given out.

    Attributes:
        number: of the epoch.
        draw: what its order is drawn from.
        steps: numbers of its steps.
    """

    def __init__(self, dataset: Loadable, reading: Reading, ahead: ReadAhead, note: Callable[[int, int], None]) -> None:
        self.number = reading.epoch
        self.draw = Draw(reading.seed, reading.epoch, dataset.digest)
        self._reading = reading
        self._note = note
        self._count = dataset.epoch_samples
        self.steps = range(step_count(self._count, reading.share))
        self._order = dataset.order(reading.order, reading.seed, reading.epoch)
        self._known = Steps(self._count, reading.share, self._order)
        self._ahead = ahead
        self._registered = self._given = 0

    def __enter__(self) -> Self:
        self._registered = self._ahead.begin(self._reading, Steps(self._count, self._reading.share, self._order))
        return self

    def __exit__(self, *_: object) -> None:
        if self._given == len(self.steps):
            self._ahead.advance(self._registered, self._given, at_once=True)

    def indices(self, step: int) -> NDArray[np.int64]:
        """See `Steps.indices`."""
        return self._known.indices(step)

    def stand_in(self, step: int) -> int:
        """The first index of a step, for a rank that has none of it and must keep step with the others."""
        start, _ = step_positions(self._count, self._reading.share._replace(rank=0), step)
        return int(self._order.take(np.array([start]))[0]) if self._order else start

    def gave(self, step: int) -> None:
        """A step is given out."""
        self._note(self.number, consumed_positions(self._count, self._reading.share, step + 1))
        self._given = step + 1
        self._ahead.advance(self._registered, step)
