"""Plans: what live jobs will read, in order, and how far it is fetched and consumed.

A plan lives as long as the connection that registered it, and stays within its bytes ahead.
"""

from __future__ import annotations

import abc
import time
from collections import deque
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from swingby.core.epoch import ORDERS, Draw, SegmentOrder, make_order
from swingby.core.manifest.packs import row_sizes
from swingby.core.order import Share, consumed_positions, step_count, step_positions
from swingby.core.selection import dataset_digest
from swingby.errors import ProtocolError
from swingby.keeper.protocol import INDICES_WAITING_MAX, Selection

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from swingby.core.epoch import WindowedOrder
    from swingby.keeper.protocol import Follow, Plan
    from swingby.keeper.sources import Source

BLOCK_SAMPLES = 512  # walked at once
EVERYTHING = 1 << 62


class Walk(abc.ABC):
    """What plans have in common: the blocks that are fetched ahead and not yet consumed.

    Args:
        source: that is read.
        ahead_bytes_max: fetched and not consumed.
        filters, selection: what of the source; the latter as indices, None: all.
    """

    def __init__(
        self, source: Source, ahead_bytes_max: int, filters: Selection, selection: NDArray[np.int64] | None
    ) -> None:
        self.source = source
        self.selection = selection
        self.selection_name = msgspec.msgpack.encode(filters)
        self.sweeps = False
        self.position = 0  # how many samples, of all ranks, are consumed
        self._began = (time.monotonic(), 0)  # and the position then
        self._ahead_bytes_max = ahead_bytes_max
        self._ahead: deque[tuple[int, int]] = deque()  # where a block ends, in the plan's own units, and its bytes
        self._ahead_bytes = 0

    @property
    @abc.abstractmethod
    def is_over(self) -> bool:
        """Whether all that is known has been asked for."""

    @property
    def walked(self) -> int:
        """The mark at which the last block ends."""
        return self._ahead[-1][0] if self._ahead else 0

    def has_room(self, bytes_max: int) -> bool:
        """Whether more may be fetched ahead, where the keeper allows so much."""
        return not self.is_over and self._ahead_bytes < min(bytes_max, self._ahead_bytes_max)

    def advance(self, mark: int) -> None:
        """What ends at or before this mark is consumed; a reader that overtook the walk takes it along."""
        while self._ahead and self._ahead[0][0] <= mark:
            self._ahead_bytes -= self._ahead.popleft()[1]

    def seconds_a_position(self, now: float) -> float:
        """How long a sample took so far, on the whole; a job that stands still gets slower and slower."""
        return (now - self._began[0]) / max(1, self.position - self._began[1])

    @abc.abstractmethod
    def next_block(self, bytes_max: int) -> NDArray[np.int64]:
        """Indices of the next samples: about 512, or as many as are about so many bytes; at least one step."""

    def next_window(self, bytes_max: int, ahead_bytes_max: int, plans: Iterable[Walk]) -> NDArray[np.int64]:
        """As `next_block`; samples in containers as far as it pays to fetch them together.

        Args:
            bytes_max: of a block.
            ahead_bytes_max: that may be ahead.
            plans: live ones, of which some may be other ranks of the same job.
        """
        del ahead_bytes_max, plans
        return self.next_block(bytes_max)

    def _samples_max(self, bytes_max: int) -> int:
        manifest = self.source.manifest
        return max(1, min(BLOCK_SAMPLES, bytes_max * len(manifest) // max(1, manifest.data_bytes)))

    def _note(self, mark: int, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count a block that ends at a mark."""
        rows = self.source.manifest.rows(indices)
        size = int(row_sizes(rows, self.source.manifest.large_rows(rows)).sum())
        self._ahead.append((mark, size))
        self._ahead_bytes += size
        return indices


class EpochPlan(Walk):
    """One epoch of one rank: the order is a pure function. Its marks are steps.

    A plan that sweeps goes through the dataset as listed, which costs the least an object, whoever overtakes it: for a base that is
    as near as the levels.

    Raises:
        ProtocolError: it makes no sense.
    """

    def __init__(self, source: Source, selection: NDArray[np.int64] | None, message: Plan) -> None:
        batch_size, rank, world_size, _, first = message.share
        if batch_size < 1 or not 0 <= rank < world_size or first < 0 or message.order not in ORDERS:
            raise ProtocolError(f"there is no such part of an epoch: {message.share} of order {message.order!r}")
        super().__init__(source, message.ahead_bytes_max, message.selection, selection)
        self._count = len(source.manifest) if selection is None else len(selection)
        self._share = Share(*message.share)
        self._steps = step_count(self._count, self._share)
        digest = dataset_digest(message.digest, message.selection.include, message.selection.exclude)
        self._kind = message.order
        self._draw = Draw(message.seed, message.epoch, digest)
        self.epoch = (message.order, self._draw, self._share._replace(rank=0))  # the same of all ranks
        self.order = make_order(message.order, source.manifest, selection, self._draw)
        self.position = first
        self._began = (self._began[0], first)
        self._next_step = 0
        self._swept, self._sweep_start = 0, self._count * rank // world_size  # ranks begin at different places

    @property
    def is_over(self) -> bool:
        """See `Walk`."""
        return self._swept >= self._count if self.sweeps else self._next_step >= self._steps

    @property
    def may_sweep(self) -> bool:
        """Whether going through the dataset as listed may cost less than the order. Where that has neighbours in containers read
        together, it does not.
        """
        return not self.source.manifest.is_contained or self._kind == "global"

    def next_order(self) -> WindowedOrder | None:
        """Of the epoch that is likely to follow."""
        draw = self._draw._replace(epoch=self._draw.epoch + 1)
        return make_order(self._kind, self.source.manifest, self.selection, draw)

    def advance(self, mark: int) -> None:
        """See `Walk`: steps below `mark` are consumed."""
        self._next_step = max(self._next_step, mark)
        self.position = max(self.position, consumed_positions(self._count, self._share, min(mark, self._steps)))
        super().advance(mark)

    def next_window(self, bytes_max: int, ahead_bytes_max: int, plans: Iterable[Walk]) -> NDArray[np.int64]:
        """See `Walk`. The samples of a window are neighbours in their containers, and it mixes them among the ranks."""
        first = self._next_step
        blocks = [self.next_block(bytes_max)]
        if not isinstance(self.order, SegmentOrder) or not self.source.manifest.is_contained:
            return blocks[0]
        window = self.order.window_of(self._next_position() - 1)
        while self.has_room(ahead_bytes_max) and self.order.window_of(self._next_position()) == window:
            blocks.append(self.next_block(bytes_max))
        here = sum(isinstance(plan, EpochPlan) and plan.epoch == self.epoch for plan in plans)
        if here * 2 < self._share.world_size:
            return np.concatenate(blocks)
        step = self._share.batch_size * self._share.world_size
        start, stop = (min(self._count, self._share.first + number * step) for number in (first, self._next_step))
        return self._indices(np.arange(start, self._count if self.is_over and not self._share.drop_last else stop))

    def _next_position(self) -> int:
        return min(step_positions(self._count, self._share, self._next_step)[0], self._count - 1)

    def next_block(self, bytes_max: int) -> NDArray[np.int64]:
        """See `Walk`."""
        if self.sweeps:
            stop = min(self._count, self._swept + BLOCK_SAMPLES)
            chosen = (np.arange(self._swept, stop) + self._sweep_start) % self._count
            self._swept = stop
            return chosen if self.selection is None else self.selection[chosen]
        parts: list[NDArray[np.int64]] = []
        wanted = self._samples_max(bytes_max)
        while wanted > 0 and not self.is_over:
            start, stop = step_positions(self._count, self._share, self._next_step)
            parts.append(np.arange(start, stop))
            wanted -= stop - start
            self._next_step += 1
        return self._note(self._next_step, self._indices(np.concatenate(parts)))

    def _indices(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        chosen = self.order.take(positions) if self.order else positions
        return chosen if self.selection is None else self.selection[chosen]


class GivenPlan(Walk):
    """Indices as the client hands them over, for orders that the keeper does not know. Its marks are samples."""

    def __init__(self, source: Source, message: Follow) -> None:
        super().__init__(source, message.ahead_bytes_max, Selection(), None)
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
        self.position = max(self.position, mark)
        while self._waiting and self._asked < mark:
            self._take(mark - self._asked)
        super().advance(mark)

    def next_block(self, bytes_max: int) -> NDArray[np.int64]:
        """See `Walk`."""
        indices = self._take(self._samples_max(bytes_max))
        return self._note(self._asked, indices)

    def _take(self, count: int) -> NDArray[np.int64]:
        """At most so many of the next given ones."""
        given = self._waiting.popleft()
        if len(given) > count:
            self._waiting.appendleft(given[count:])
        taken = given[:count]
        self._asked += len(taken)
        return taken
