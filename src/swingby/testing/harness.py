"""A Swingby in this process, with a home of its own and whatever base a test wants under it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from swingby import config, sessions
from swingby.assemble import Hooks
from swingby.sessions import InlineConnector, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from swingby.base.contract import Base
    from swingby.keeper.service import Keeper

QUICK_RETRIES = {"fetch.retry_count_max": 3, "fetch.retry_delay_seconds_max": 0.01, "fetch.retry_seconds_max": 2.0}


class Inline:
    """A session whose keeper is threads of this process.

    Attributes:
        session: for `settings=`, by way of `settings`.
        settings: in force; pass them to `swingby.open` and `swingby.read`.
    """

    def __init__(self, settings: config.Settings, hooks: Hooks) -> None:
        self.settings = settings
        self.connector = InlineConnector(settings, hooks)
        self.session = Session(settings, self.connector, hooks)

    @property
    def keeper(self) -> Keeper:
        """The keeper."""
        return self.connector.keeper

    def facts(self) -> dict[str, Any]:
        """What `status` shows."""
        return self.keeper.control.facts()


@contextlib.contextmanager
def inline(
    home: str,
    *,
    base: Base | None = None,
    wrap: Callable[[Base], Base] = lambda base: base,
    settings: dict[str, Any] | None = None,
) -> Iterator[Inline]:
    """Swingby with an inline keeper; `swingby.open(url, settings=found.settings)` reads through it.

    Args:
        home: a directory of the test.
        base: what every URL with the scheme `memory://` is; None: there is no such scheme.
        wrap: put around every base, as a `FaultyBase`.
        settings: more settings.
    """
    merged = QUICK_RETRIES | {"keeper.mode": "inline", "home": home} | (settings or {})
    hooks = Hooks(make_base=lambda location: base if location.scheme == "memory" else None, wrap_base=wrap)
    found = Inline(config.load(merged), hooks)
    sessions.adopt(found.session)
    try:
        yield found
    finally:
        sessions.forget(found.session)
        found.session.client.close()
        found.connector.close()
