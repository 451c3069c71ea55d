"""The plan of an epoch, registered with the keeper. Reads are right without it, so its failures are not the reader's."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from swingby.errors import SwingbyError
from swingby.keeper.protocol import Advance

if TYPE_CHECKING:
    from swingby.keeper.client import Exchange, KeeperClient
    from swingby.keeper.protocol import Plan

ADVANCE_SECONDS = 0.02  # between two notes to the keeper of how far the epoch is
PLAN_SECONDS_MAX = 10.0


class Ahead:
    """See the module's text.

    Args:
        client: to the keeper.
        plan: of the epoch; none is registered where it reads nothing ahead.
    """

    def __init__(self, client: KeeperClient, plan: Plan) -> None:
        self._exchange: Exchange | None = None
        self._told_at = 0.0
        if plan.ahead_bytes_max:
            with contextlib.suppress(SwingbyError, ConnectionError):
                self._exchange = client.dedicated()
                self._exchange.send(plan, PLAN_SECONDS_MAX)
                self._exchange.receive(PLAN_SECONDS_MAX)

    def advance(self, step: int) -> None:
        """Steps below this one are consumed."""
        now = time.monotonic()
        if self._exchange is None or now - self._told_at < ADVANCE_SECONDS:
            return
        self._told_at = now
        try:
            self._exchange.send(Advance(step), PLAN_SECONDS_MAX)
        except (SwingbyError, ConnectionError):
            self.close()

    def close(self) -> None:
        """End the plan."""
        exchange, self._exchange = self._exchange, None
        if exchange:
            exchange.close()
