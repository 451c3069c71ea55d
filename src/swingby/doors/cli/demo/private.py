"""A Swingby of the demo's own: a home that is removed afterwards, and a keeper in this process whose base can be far."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import tempfile
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from swingby import sessions
from swingby.doors.cli import removal
from swingby.keeper.client import KeeperClient
from swingby.sessions import InlineConnector, Session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swingby.assemble import Hooks
    from swingby.config import Settings
    from swingby.keeper.client import Exchange
    from swingby.keeper.service import Keeper

SETTLE_SECONDS_MAX = 60.0
SETTLE_POLL_SECONDS = 0.02
CLOSE_SECONDS_MAX = 0.3
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class WatchedClient(KeeperClient):
    """Notes when this process waited for the keeper.

    Attributes:
        waits: spans of `time.perf_counter`.
    """

    def __init__(self, connector: InlineConnector) -> None:
        super().__init__(connector)
        self.waits: list[tuple[float, float]] = []

    @contextlib.contextmanager
    def exchange(self) -> Iterator[Exchange]:
        """See `KeeperClient.exchange`."""
        started = time.perf_counter()
        try:
            with super().exchange() as found:
                yield found
        finally:
            self.waits.append((started, time.perf_counter()))


class Private:
    """The demo's Swingby.

    Attributes:
        settings: for `settings=` of the public functions.
        client: of every dataset opened with them.
        keeper: behind them.
    """

    def __init__(self, settings: Settings, connector: InlineConnector, client: WatchedClient) -> None:
        self.settings = settings
        self.client = client
        self.keeper: Keeper = connector.keeper

    def settle(self) -> float:
        """Wait until nothing is fetched or copied down any more; how long it took."""
        started = time.perf_counter()
        while time.perf_counter() < started + SETTLE_SECONDS_MAX:
            is_idle = all(base.pool.is_idle for base in self.keeper.engine.bases.all())
            if is_idle and not self.keeper.upkeep.waiting_count:
                break
            time.sleep(SETTLE_POLL_SECONDS)
        return time.perf_counter() - started

    def forget_memory(self) -> bool:
        """Evict the memory level; whether the burst level holds anything to read instead."""
        memory, burst = self.keeper.engine.levels
        if memory is None or burst is None or not burst.counts().segments:
            return False
        for identity in memory.identities():
            memory.evict(identity)
        return not memory.counts().segments


@contextlib.contextmanager
def private(settings: Settings, hooks: Hooks) -> Iterator[Private]:
    """Swingby with an empty home inside the user's, so that its levels lie where the user's would; removed at the end.

    Homes of demos that were killed are removed as well.
    """
    for one in removal.abandoned_demos(settings):
        removal.remove_home(one)
    with contextlib.ExitStack() as ends:
        with _uninterrupted():  # what is begun is also registered to be ended
            inline = msgspec.structs.replace(settings.keeper, mode="inline")
            mine = msgspec.structs.replace(settings, home=_make_home(settings), keeper=inline)
            ends.callback(_remove, mine, settings)
            connector = InlineConnector(mine, hooks)
            ends.push(lambda kind, *_: _close(connector, kind))
            session = Session(mine, connector, hooks)
            session.client = client = WatchedClient(connector)
            ends.callback(client.close)
            sessions.adopt(session)
            ends.callback(sessions.forget, session)
        yield Private(mine, connector, client)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Signals that end a command come when the block is through."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)


def _close(connector: InlineConnector, kind: type[BaseException] | None) -> None:
    """End the keeper; of an interrupted demo, what waits for a silent base is left to the end of the process."""
    is_interrupted = kind is not None and not issubclass(kind, Exception)
    closing = threading.Thread(target=connector.close, name="swingby-close", daemon=True)
    closing.start()
    closing.join(CLOSE_SECONDS_MAX if is_interrupted else None)


def _remove(mine: Settings, settings: Settings) -> None:
    removal.remove_directories(mine)
    if os.path.dirname(mine.home) == settings.home:
        with contextlib.suppress(OSError):
            os.rmdir(settings.home)  # where this was its first use


def _make_home(settings: Settings) -> str:
    name = removal.DEMO_PREFIX + secrets.token_hex(4)
    for parent in (settings.home, tempfile.gettempdir()):
        with contextlib.suppress(OSError):
            os.makedirs(parent, mode=0o700, exist_ok=True)
            os.mkdir(os.path.join(parent, name), 0o700)
            return os.path.join(parent, name)
    return os.path.join(settings.home, name)  # the keeper says what is wrong with it
