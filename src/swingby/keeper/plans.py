"""Walks the orders of live jobs ahead of their readers and has fetched what will be needed.

A plan is one epoch of one rank. It lives as long as the connection that registered it, and stays within its bytes ahead.

Threads: one walks all plans; `add`, `advance` and `remove` from any.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from swingby.core.epoch import ORDERS, Draw, make_order
from swingby.core.manifest.packs import row_sizes
from swingby.core.order import Share, step_count, step_positions
from swingby.core.selection import dataset_digest
from swingby.errors import ProtocolError
from swingby.keeper.wanted import wanted_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from swingby.keeper.protocol import Plan
    from swingby.keeper.sources import Source
    from swingby.keeper.supply import Request, Supply

BLOCK_SAMPLES = 512  # walked at once

log = logging.getLogger("swingby")


class EpochPlan:
    """The order of one epoch and how far it is fetched and consumed.

    Raises:
        ProtocolError: it makes no sense.
    """

    def __init__(self, source: Source, selection: NDArray[np.int64] | None, message: Plan) -> None:
        batch_size, rank, world_size, _, first = message.share
        if batch_size < 1 or not 0 <= rank < world_size or first < 0 or message.order not in ORDERS:
            raise ProtocolError(f"there is no such part of an epoch: {message.share} of order {message.order!r}")
        self.source = source
        self._selection = selection
        self._count = len(source.manifest) if selection is None else len(selection)
        self._share = Share(*message.share)
        self._steps = step_count(self._count, self._share)
        digest = dataset_digest(message.digest, message.selection.include, message.selection.exclude)
        self._order = make_order(message.order, source.manifest, selection, Draw(message.seed, message.epoch, digest))
        self._ahead_bytes_max = message.ahead_bytes_max
        self._next_step = 0
        self._ahead: deque[tuple[int, int]] = deque()  # last step of a block, its bytes
        self._ahead_bytes = 0

    @property
    def is_over(self) -> bool:
        """Whether all has been asked for."""
        return self._next_step >= self._steps

    @property
    def has_room(self) -> bool:
        """Whether more may be fetched ahead."""
        return not self.is_over and self._ahead_bytes < self._ahead_bytes_max

    def advance(self, step: int) -> None:
        """Steps below `step` are consumed; a reader that overtook the walk takes it along."""
        self._next_step = max(self._next_step, step)
        while self._ahead and self._ahead[0][0] < step:
            self._ahead_bytes -= self._ahead.popleft()[1]

    def next_block(self) -> NDArray[np.int64]:
        """Indices of the next steps, about 512 samples."""
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
        rows = self.source.manifest.rows(indices)
        size = int(row_sizes(rows, self.source.manifest.large_rows(rows)).sum())
        self._ahead.append((self._next_step - 1, size))
        self._ahead_bytes += size
        return indices


class Planner:
    """See the module's text.

    Args:
        supply: makes present.
        is_complete: whether all of a dataset is on the memory level, when there is nothing to walk for.
    """

    def __init__(self, supply: Supply, is_complete: Callable[[Source], bool]) -> None:
        self._supply = supply
        self._is_complete = is_complete
        self._changed = threading.Condition()
        self._plans: dict[int, EpochPlan] = {}
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, owner: int, plan: EpochPlan) -> None:
        """Begin a plan; an owner has one."""
        with self._changed:
            self._plans[owner] = plan
            if self._thread is None:
                self._thread = threading.Thread(target=self._walk, name="swingby-plans", daemon=True)
                self._thread.start()
            self._changed.notify()

    def advance(self, owner: int, step: int) -> None:
        """How far the owner's epoch is consumed."""
        with self._changed:
            if plan := self._plans.get(owner):
                plan.advance(step)
                if plan.is_over and not plan.has_room:
                    del self._plans[owner]
                self._changed.notify()

    def remove(self, owner: int) -> None:
        """The owner is gone."""
        with self._changed:
            self._plans.pop(owner, None)

    def count(self) -> int:
        """Live plans."""
        return len(self._plans)

    def close(self) -> None:
        """End the walk."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _walk(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not any(plan.has_room for plan in self._plans.values()):
                    self._changed.wait()
                if self._closed:
                    return
                plans = [plan for plan in self._plans.values() if plan.has_room]
            for plan in plans:
                try:
                    with self._changed:
                        if not plan.has_room:  # a reader has overtaken it
                            continue
                        indices = plan.next_block()
                    if not self._is_complete(plan.source):
                        wants = wanted_of(plan.source.manifest, indices)
                        self._supply.begin(plan.source.base, wants, _ignore, urgent=False)
                except Exception:
                    log.exception("a plan cannot be walked")
                    with self._changed:
                        plan.advance(1 << 62)


def _ignore(request: Request) -> None:
    """Fetched ahead: whoever needs it will ask."""
    del request
