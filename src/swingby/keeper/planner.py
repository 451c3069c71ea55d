"""Walks the plans of live jobs ahead of their readers and has fetched what will be needed.

Threads: one walks all plans; the methods from any.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from swingby.errors import ProtocolError
from swingby.keeper.plans import EVERYTHING, GivenPlan
from swingby.keeper.wanted import wanted_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from swingby.keeper.plans import Walk
    from swingby.keeper.sources import Source
    from swingby.keeper.supply import Request, Supply

log = logging.getLogger("swingby")


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
        self._plans: dict[int, Walk] = {}
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, owner: int, plan: Walk) -> None:
        """Begin a plan; an owner has one."""
        with self._changed:
            self._plans[owner] = plan
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="swingby-plans", daemon=True)
                self._thread.start()
            self._changed.notify()

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

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not any(plan.has_room for plan in self._plans.values()):
                    self._changed.wait()
                if self._closed:
                    return
                plans = [plan for plan in self._plans.values() if plan.has_room]
            for plan in plans:
                try:
                    self._walk(plan)
                except Exception:
                    log.exception("a plan cannot be walked")
                    with self._changed:
                        plan.advance(EVERYTHING)

    def _walk(self, plan: Walk) -> None:
        """One block of a plan."""
        with self._changed:
            if not plan.has_room:  # a reader has overtaken it
                return
            indices = plan.next_block()
        if not self._is_complete(plan.source):
            wants = wanted_of(plan.source.manifest, indices)
            self._supply.begin(plan.source.base, wants, _ignore, urgent=False)


def _ignore(request: Request) -> None:
    """Fetched ahead: whoever needs it will ask."""
    del request
