"""Walks the plans of live jobs ahead of their readers and has fetched what will be needed.

What the memory level will not admit, because it holds what is worth more, is fetched ahead into the stash, within its bounds.

Threads: one walks all plans; the methods from any.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from swingby.errors import ProtocolError
from swingby.keeper.plans import EVERYTHING, EpochPlan, GivenPlan
from swingby.keeper.wanted import wanted_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from swingby.keeper.outlook import Outlook
    from swingby.keeper.plans import Walk
    from swingby.keeper.sources import Source
    from swingby.keeper.stash import Kept
    from swingby.keeper.supply import Request, Supply
    from swingby.keeper.wanted import Wanted

AHEAD_PART = 8  # of a level that cannot hold all that is read, plans are ahead by one part: what waits there displaces
SWEEP_BYTES_MAX = 32 << 20  # asked for at once by plans that sweep
PREPARED_PART = 2  # of a level that will be full, one part is, when plans are looked at
BLOCK_PART = 4  # a block of a plan is at most one part of the stash
NOTHING = np.zeros(0, np.int64)
BLOCKED_SECONDS = 0.05  # between two looks whether the stash has room again

log = logging.getLogger("swingby")


class _Block(NamedTuple):
    """What a plan reads next."""

    plan: Walk
    mark: int
    wants: list[Wanted]


class Planner:
    """See the module's text.

    Args:
        supply: makes present.
        outlook: told of the plans.
        is_complete: whether all of a dataset is on the memory level, when there is nothing to walk for.
    """

    def __init__(self, supply: Supply, outlook: Outlook, is_complete: Callable[[Source], bool]) -> None:
        self._supply = supply
        self._stash = supply.stash
        self._outlook = outlook
        self._is_complete = is_complete
        self._changed = threading.Condition()
        self._plans: dict[int, Walk] = {}
        self._blocked: dict[int, _Block] = {}  # by owner: blocks that wait for room in the stash
        self._ahead_bytes_max = EVERYTHING
        self._is_short = False
        self._coming_bytes = 0  # asked for, and not there yet
        self._closed = False
        self._thread: threading.Thread | None = None
        self._stash.on_room = self._go_on

    def add(self, owner: int, plan: Walk) -> bool:
        """Begin a plan; an owner has one. Whether it sweeps, so that readers do better to read for themselves what is absent."""
        with self._changed:
            self._drop(owner)
            self._plans[owner] = plan
            self._outlook.set(owner, plan)
            self._reserve()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="swingby-plans", daemon=True)
                self._thread.start()
            self._changed.notify()
            return plan.sweeps

    def append(self, owner: int, indices: NDArray[np.int64]) -> None:
        """More indices of a plan that is given.

        Raises:
            ProtocolError: the owner has no such plan, or they make no sense.
        """
        with self._changed:
            plan = self._plans.get(owner)
            if not isinstance(plan, GivenPlan):
                raise ProtocolError("indices come after Follow")
            plan.append(indices)
            self._changed.notify()

    def advance(self, owner: int, mark: int) -> None:
        """How far the owner's plan is consumed."""
        with self._changed:
            if plan := self._plans.get(owner):
                plan.advance(mark)
                self._stash.pass_by(owner, mark)
                self._changed.notify()

    def remove(self, owner: int) -> None:
        """The owner is gone."""
        with self._changed:
            self._drop(owner)
            self._outlook.drop(owner)
            self._reserve()

    def count(self) -> int:
        """Live plans."""
        return len(self._plans)

    def close(self) -> None:
        """End the walk."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _drop(self, owner: int) -> None:
        self._plans.pop(owner, None)
        self._blocked.pop(owner, None)
        self._stash.drop(owner)

    def _reserve(self) -> None:
        """Where live plans read more than the memory level can hold, the stash takes its room from there.

        Where it can hold all, what is as near as the levels is swept.
        """
        if memory := self._supply.levels.memory:
            sources = {plan.source.manifest.digest: plan.source.manifest.data_bytes for plan in self._plans.values()}
            budget = memory.options.budget_bytes
            is_short = sum(sources.values()) > budget - self._stash.bytes_max
            memory.reserved_bytes = self._stash.bytes_max if is_short else 0
            self._ahead_bytes_max = budget // AHEAD_PART if is_short else EVERYTHING
            self._is_short = is_short
            for plan in self._plans.values():
                plan.sweeps = (
                    isinstance(plan, EpochPlan) and plan.may_sweep and plan.source.base.is_near and not is_short
                )

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not any(map(self._may_go, self._plans)):
                    self._changed.wait(BLOCKED_SECONDS if self._blocked else None)
                    if self._blocked:
                        break
                if self._closed:
                    return
                owners = [owner for owner in self._plans if owner in self._blocked or self._may_go(owner)]
            for owner in owners:
                try:
                    self._walk(owner)
                except Exception:
                    log.exception("a plan cannot be walked")
                    with self._changed:
                        if plan := self._plans.get(owner):
                            plan.advance(EVERYTHING)

    def _go_on(self) -> None:
        """There is room in the stash again."""
        if self._blocked:
            with self._changed:
                self._changed.notify()

    def _may_go(self, owner: int) -> bool:
        plan = self._plans[owner]
        if owner in self._blocked or (plan.sweeps and self._coming_bytes > SWEEP_BYTES_MAX):
            return False
        return plan.has_room(self._ahead_bytes_max)

    def _walk(self, owner: int) -> None:
        """One block of a plan."""
        with self._changed:
            plan, block = self._plans.get(owner), self._blocked.pop(owner, None)
            if plan is None or (
                block is None and not plan.has_room(self._ahead_bytes_max)
            ):  # a reader has overtaken it
                return
            bytes_max = self._stash.bytes_max // BLOCK_PART
            indices = NOTHING if block else plan.next_window(bytes_max, self._ahead_bytes_max, self._plans.values())
            mark = plan.walked
        if block is None:
            if self._is_complete(plan.source):
                return
            block = _Block(plan, mark, wanted_of(plan.source.manifest, indices))
        size = self._absent_bytes(block)
        memory = self._supply.levels.memory
        if self._is_short and memory and memory.counts().used_bytes > memory.options.budget_bytes // PREPARED_PART:
            self._outlook.prepare()  # not at the beginning, when a reader waits for his first batch
        is_full = memory and memory.holds_back(block.wants[0].segment, self._coming_bytes + size)
        with self._changed:
            if self._plans.get(owner) is not plan:
                return
            if is_full and size > self._stash.bytes_max:  # ahead of use there is no place for it
                return
            if is_full and self._stash.used_bytes + self._coming_bytes + size > self._stash.bytes_max:
                self._blocked[owner] = block
                return
            self._coming_bytes += size

        def done(request: Request) -> None:
            del request
            with self._changed:
                self._coming_bytes -= size
                self._changed.notify()

        def keep(segment: bytes, chunks: dict[int, Kept]) -> None:
            with self._changed:
                if self._plans.get(owner) is plan:
                    self._stash.put(owner, block.mark, (((segment, chunk), kept) for chunk, kept in chunks.items()))

        self._supply.begin(plan.source.base, block.wants, done, urgent=False, keep=keep)

    def _absent_bytes(self, block: _Block) -> int:
        """About how much of a block is on no level."""
        absent = [(wanted, len(self._supply.absent(wanted))) for wanted in block.wants]
        return sum(wanted.size_bytes * count // max(1, len(wanted.chunks)) for wanted, count in absent)
