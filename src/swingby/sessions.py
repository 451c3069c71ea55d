"""Sessions: how a process reaches its keeper, and what an entry of the public API works with."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

from swingby import assemble, config
from swingby.assemble import Hooks
from swingby.core import forks
from swingby.errors import KeeperUnavailableError
from swingby.keeper import place as places
from swingby.keeper.client import Connector, KeeperClient
from swingby.keeper.place import place_of
from swingby.path.fallback import Fallback

if TYPE_CHECKING:
    from swingby.base.browse import Browser
    from swingby.config import Settings
    from swingby.keeper.protocol import Location


class ProcessConnector:
    """Connects to the home's keeper process, starting it if need be.

    Args:
        settings: for a keeper that is started.
        module: whose `run_keeper` is the body of that keeper; tests bring one of their own.
    """

    def __init__(self, settings: Settings, module: str = "swingby.assemble") -> None:
        self._settings = settings
        self._module = module
        self._lock = threading.Lock()
        forks.register(self)

    def connect(self) -> socket.socket:
        """See `Connector.connect`."""
        from swingby.keeper import process

        place = place_of(self._settings)
        with contextlib.suppress(OSError):
            return process.connect(place)
        limit = self._settings.keeper.start_seconds_max
        until = time.monotonic() + limit
        with self._lock:
            with contextlib.suppress(OSError):
                return process.connect(place)
            code = f"from {self._module} import run_keeper; run_keeper({config.to_json(self._settings)!r})"
            package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
            process.spawn(place, [sys.executable, "-c", code], config.spawn_environment(package), limit)
        while True:
            try:
                return process.connect(place)
            except OSError as error:
                if time.monotonic() > until:
                    raise KeeperUnavailableError(
                        f"a keeper holds {place.state} but does not answer here: {error}",
                        remedy="Is home shared with a container? Give each its own SWINGBY_HOME",
                    ) from None
            time.sleep(0.005)

    def after_fork(self) -> None:
        """See `forks`."""
        self._lock = threading.Lock()


class InlineConnector:
    """A keeper made of threads of this process. It does not survive a fork: there reads go to the base.

    Args:
        settings: of the keeper.
        hooks: of tests.
    """

    def __init__(self, settings: Settings, hooks: Hooks) -> None:
        from swingby.keeper.server import Server

        place = place_of(settings)
        self._held = places.lock(place)
        if self._held is None:
            raise KeeperUnavailableError(f"another keeper holds {place.state}", remedy="Run `swingby stop`")
        self._process = os.getpid()
        try:
            self.keeper = assemble.make_keeper(settings, place, hooks)
        except BaseException:
            os.close(self._held)
            raise
        self._server = Server(self.keeper.handle, settings.keeper.clients_max, None)
        self._thread = threading.Thread(
            target=self.keeper.serve, args=(self._server,), name="swingby-keeper", daemon=True
        )
        self._thread.start()

    def connect(self) -> socket.socket:
        """See `Connector.connect`."""
        if os.getpid() != self._process or not self._thread.is_alive():
            raise KeeperUnavailableError("the inline keeper lives in another process, or has ended")
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.adopt(its)
        return mine

    def close(self) -> None:
        """End the keeper and give the home back."""
        self.keeper.stop()
        self._thread.join()
        if self._held is not None:
            os.close(self._held)
            self._held = None


class OffConnector:
    """No keeper at all: every read goes to the base."""

    def connect(self) -> socket.socket:
        """See `Connector.connect`."""
        raise KeeperUnavailableError("the keeper is switched off (keeper.mode)")


class Session:
    """What an entry of the public API works with.

    Args:
        settings: in force.
        connector: to the keeper.
        hooks: of tests.
    """

    def __init__(self, settings: Settings, connector: Connector, hooks: Hooks) -> None:
        self.settings = settings
        self.client = KeeperClient(connector, config.keeper_json(settings))
        self._hooks = hooks
        self._fallbacks: dict[tuple[str, str], Fallback] = {}
        self._browsers: dict[tuple[int, str, str], Browser] = {}

    def fallback(self, location: Location) -> Fallback:
        """The base of a location, read from this process; one for each container."""
        found = self._fallbacks.get((location.scheme, location.container))
        if found is None:
            found = Fallback(lambda where: assemble.make_base(where, self.settings, self._hooks)[0], location)
            self._fallbacks[location.scheme, location.container] = found
        return found

    def browser(self, location: Location) -> Browser:
        """Looks into the base of a location from this process; one for each container, and a child's are its own."""
        name = (os.getpid(), location.scheme, location.container)
        found = self._browsers.get(name)
        if found is None:
            found = self._browsers[name] = assemble.make_browser(location, self.settings, self._hooks)
        return found


_sessions: dict[Settings, Session] = {}
_sessions_lock = threading.Lock()


def session(overrides: config.Overrides = None) -> Session:
    """The session of these settings; one a process for each.

    Raises:
        ConfigError: a setting is wrong.
    """
    settings = config.load(overrides)
    with _sessions_lock:
        found = _sessions.get(settings)
        if found is None:
            found = _sessions[settings] = Session(settings, _connector(settings), Hooks())
        return found


def adopt(found: Session) -> None:
    """Use a session made elsewhere for its settings."""
    with _sessions_lock:
        _sessions[found.settings] = found


def forget(found: Session) -> None:
    """Undo `adopt`."""
    with _sessions_lock:
        _sessions.pop(found.settings, None)


def _connector(settings: Settings) -> Connector:
    if settings.keeper.mode == "off":
        return OffConnector()
    if settings.keeper.mode == "inline":
        return InlineConnector(settings, Hooks())
    return ProcessConnector(settings)
