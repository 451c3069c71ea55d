"""What the keeper is told of the reads to come. Reads are right without it, so its failures are not the reader's.

A plan lives as long as the connection it was registered on, which is the job's: it stays between two epochs, so that what the next
one needs is not given away.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from swingby.errors import SwingbyError
from swingby.keeper.protocol import INDICES_MAX, INDICES_WAITING_MAX, Advance, Follow, Plan, Planned, Upcoming

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from swingby.data.epoch import Steps
    from swingby.data.loadable import Reading
    from swingby.keeper.client import Exchange, KeeperClient
    from swingby.keeper.protocol import Message, Selection
    from swingby.path.read import DatasetReader

ADVANCE_SECONDS = 0.02  # between two notes to the keeper of how far a plan is
PLAN_SECONDS_MAX = 10.0


class Job:
    """A connection that plans are registered on, for as long as the job lives.

    Args:
        client: to the keeper.
    """

    def __init__(self, client: Callable[[], KeeperClient]) -> None:
        self._client = client
        self._exchange: Exchange | None = None
        self._plans = 0
        self._told_at = 0.0
        self.sweeps = False  # the keeper, through all of the last plan's dataset
        self._closing: weakref.finalize[[], Job] | None = None

    def begin(self, plan: Plan | Follow) -> int:
        """Register a plan in place of the last one; what it is called in `advance`."""
        self._plans += 1
        self._told_at = 0.0
        self.sweeps = False
        if plan.ahead_bytes_max and not self._ask(plan):
            self._ask(plan)  # the keeper was restarted since
        return self._plans

    def advance(self, plan: int, mark: int, *, at_once: bool = False) -> None:
        """How far a plan is consumed; the keeper is told now and then."""
        now = time.monotonic()
        if plan == self._plans and (at_once or now - self._told_at >= ADVANCE_SECONDS):
            self._told_at = now
            self.send(Advance(mark))

    def send(self, message: Message) -> None:
        """Tell the keeper something that is not answered."""
        if self._exchange:
            try:
                self._exchange.send(message, PLAN_SECONDS_MAX)
            except (SwingbyError, OSError):  # gone, or the parent's, in a forked child
                self.close()

    def close(self) -> None:
        """End the job."""
        self._exchange = None
        if self._closing:
            self._closing()

    def _ask(self, plan: Plan | Follow) -> bool:
        """Send a plan; False if the connection turned out to be dead."""
        is_new = self._exchange is None
        with contextlib.suppress(SwingbyError, OSError):
            if self._exchange is None:
                self._exchange = exchange = self._client().dedicated()
                self._closing = weakref.finalize(self, exchange.close)
            self._exchange.send(plan, PLAN_SECONDS_MAX)
            answer = self._exchange.receive(PLAN_SECONDS_MAX).message
            self.sweeps = isinstance(answer, Planned) and answer.sweeps
            return True
        self.close()
        return is_new


class EpochsAhead:
    """Reads ahead of the epochs of one dataset, whose orders the keeper computes itself. See `ReadAhead`.

    Args:
        job: to register on.
        dataset: digest of the manifest, and filters.
        reader: told whether the keeper sweeps.
    """

    def __init__(self, job: Job, dataset: tuple[str, Selection], reader: DatasetReader) -> None:
        self._job = job
        self._dataset = dataset
        self._reader = reader

    def begin(self, reading: Reading, steps: Steps) -> int:
        """See `ReadAhead`."""
        del steps  # the keeper makes its own
        share = reading.share
        parts = (share.batch_size, share.rank, share.world_size, share.drop_last, share.first)
        plan = Plan(*self._dataset, reading.order, reading.seed, reading.epoch, parts, reading.ahead_bytes_max)
        number = self._job.begin(plan)
        self._reader.sweeps = self._job.sweeps
        return number

    def advance(self, plan: int, mark: int, *, at_once: bool = False) -> None:
        """See `ReadAhead`."""
        self._job.advance(plan, mark, at_once=at_once)
        if at_once:
            self._reader.report(at_once=True)


class Following:
    """Reads ahead of indices that somebody else orders: a sampler of PyTorch's, a mixture.

    Args:
        job: to register on.
        plan: of the dataset, with the bytes ahead.
        numbers: turns indices of the dataset into those of its manifest.
    """

    def __init__(self, job: Job, plan: Follow, numbers: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> None:
        self._job = job
        self._plan = job.begin(plan)
        self._numbers = numbers
        self._waiting: deque[NDArray[np.int64]] = deque()
        self._told = self._consumed = 0

    def upcoming(self, indices: NDArray[np.int64]) -> None:
        """What will be read next, in order; any number, of which the keeper is told what it has room for."""
        if len(indices):
            self._waiting.append(np.asarray(indices, np.int64))
            self._tell()

    def consumed(self, count: int) -> None:
        """How many of all that were announced have been read by now."""
        self._consumed = count
        self._job.advance(self._plan, count)
        self._tell()

    def close(self) -> None:
        """End the plan."""
        self._waiting.clear()
        self._job.close()

    def _tell(self) -> None:
        while self._waiting and self._told - self._consumed < INDICES_WAITING_MAX - INDICES_MAX:
            indices = self._waiting.popleft()
            if len(indices) > INDICES_MAX:
                self._waiting.appendleft(indices[INDICES_MAX:])
                indices = indices[:INDICES_MAX]
            self._told += len(indices)
            self._job.send(Upcoming(self._numbers(indices).astype("<i8").tobytes()))
