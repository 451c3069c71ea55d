"""Plans: what live jobs will read, in order, and how far it is fetched and consumed.

A plan lives as long as the connection that registered it, and stays within its bytes ahead.
"""

from __future__ import annotations

import abc
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from swingby.core.epoch import ORDERS, Draw, make_order
from swingby.core.manifest.packs import row_sizes
from swingby.core.order import Share, step_count, step_positions
from swingby.core.selection import dataset_digest
from swingby.errors import ProtocolError
from swingby.keeper.protocol import INDICES_WAITING_MAX

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from swingby.keeper.protocol import Follow, Plan
    from swingby.keeper.sources import Source

BLOCK_SAMPLES = 512  # walked at once
EVERYTHING = 1 << 62


class Walk(abc.ABC):
    """What plans have in common: the blocks that are fetched ahead and not yet consumed.

    Args:
        source: that is read.
        ahead_bytes_max: fetched and not consumed.
    """

    def __init__(self, source: Source, ahead_bytes_max: int) -> None:
        self.source = source
        self._ahead_bytes_max = ahead_bytes_max
        self._ahead: deque[tuple[int, int]] = deque()  # where a block ends, in the plan's own units, and its bytes
        self._ahead_bytes = 0

    @property
    @abc.abstractmethod
    def is_over(self) -> bool:
        """Whether all that is known has been asked for."""

    @property
    def has_room(self) -> bool:
        """Whether more may be fetched ahead."""
        return not self.is_over and self._ahead_bytes < self._ahead_bytes_max

    def advance(self, mark: int) -> None:
        """What ends at or before this mark is consumed; a reader that overtook the walk takes it along."""
        while self._ahead and self._ahead[0][0] <= mark:
            self._ahead_bytes -= self._ahead.popleft()[1]

    @abc.abstractmethod
    def next_block(self) -> NDArray[np.int64]:
        """Indices of the next samples, about 512."""

    def _note(self, mark: int, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count a block that ends at a mark."""
        rows = self.source.manifest.rows(indices)
        size = int(row_sizes(rows, self.source.manifest.large_rows(rows)).sum())
        self._ahead.append((mark, size))
        self._ahead_bytes += size
        return indices


class EpochPlan(Walk):
    """One epoch of one rank: the order is a pure function. Its marks are steps.

    Raises:
        ProtocolError: it makes no sense.
    """

    def __init__(self, source: Source, selection: NDArray[np.int64] | None, message: Plan) -> None:
        batch_size, rank, world_size, _, first = message.share
        if batch_size < 1 or not 0 <= rank < world_size or first < 0 or message.order not in ORDERS:
            raise ProtocolError(f"there is no such part of an epoch: {message.share} of order {message.order!r}")
        super().__init__(source, message.ahead_bytes_max)
        self._selection = selection
        self._count = len(source.manifest) if selection is None else len(selection)
        self._share = Share(*message.share)
        self._steps = step_count(self._count, self._share)
        digest = dataset_digest(message.digest, message.selection.include, message.selection.exclude)
        self._order = make_order(message.order, source.manifest, selection, Draw(message.seed, message.epoch, digest))
        self._next_step = 0

    @property
    def is_over(self) -> bool:
        """See `Walk`."""
        return self._next_step >= self._steps

    def advance(self, mark: int) -> None:
        """See `Walk`: steps below `mark` are consumed."""
        self._next_step = max(self._next_step, mark)
        super().advance(mark)

    def next_block(self) -> NDArray[np.int64]:
        """See `Walk`."""
        parts = []
        samples = 0
        while samples < BLOCK_SAMPLES and not self.is_over:
            start, stop = step_positions(self._count, self._share, self._next_step)
            parts.append(np.arange(start, stop))
            samples += stop - start
            self._next_step += 1
        positions = np.concatenate(parts)
        chosen = self._order.take(positions) if self._order else positions
        indices = chosen if self._selection is None else self._selection[chosen]
        return self._note(self._next_step, indices)


class GivenPlan(Walk):
    """Indices as the client hands them over, for orders that the keeper does not know. Its marks are samples."""

    def __init__(self, source: Source, message: Follow) -> None:
        super().__init__(source, message.ahead_bytes_max)
        self._waiting: deque[NDArray[np.int64]] = deque()
        self._known = self._asked = 0

    @property
    def is_over(self) -> bool:
        """See `Walk`."""
        return not self._waiting

    def append(self, indices: NDArray[np.int64]) -> None:
        """What will be read next.

        Raises:
            ProtocolError: no such objects, or too many that are not walked yet.
        """
        if not len(indices):
            return
        if indices.min() < 0 or indices.max() >= len(self.source.manifest):
            raise ProtocolError(f"an index is out of range for {len(self.source.manifest)} objects")
        if self._known + len(indices) - self._asked > INDICES_WAITING_MAX:
            raise ProtocolError(f"more than {INDICES_WAITING_MAX} indices ahead")
        self._waiting.append(indices)
        self._known += len(indices)

    def advance(self, mark: int) -> None:
        """See `Walk`: so many samples of all that were given are consumed."""
        while self._waiting and self._asked < mark:
            self._take(mark - self._asked)
        super().advance(mark)

    def next_block(self) -> NDArray[np.int64]:
        """See `Walk`."""
        indices = self._take(BLOCK_SAMPLES)
        return self._note(self._asked, indices)

    def _take(self, count: int) -> NDArray[np.int64]:
        """At most so many of the next given ones."""
        given = self._waiting.popleft()
        if len(given) > count:
            self._waiting.appendleft(given[count:])
        taken = given[:count]
        self._asked += len(taken)
        return taken
