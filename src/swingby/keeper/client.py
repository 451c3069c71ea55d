"""The library's side of the keeper: connections that survive forks, restarts and crashes.

Guarantees: no thread and no lock of ours crosses a fork; a keeper that is gone is started again; every wait ends.
Threads: safe; each request has a connection of its own while it runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from swingby.core import forks
from swingby.errors import DeadlineError, KeeperUnavailableError, ProtocolError, SwingbyError, from_facts
from swingby.keeper import frames, protocol
from swingby.keeper.frames import Frames
from swingby.keeper.protocol import Failed, Hello, Message, Welcome
from swingby.levels.mapping import map_read_only

if TYPE_CHECKING:
    from collections.abc import Iterator

IDLE_CONNECTIONS_MAX = 8
GRACE_SECONDS = 1.0  # beyond a request's own deadline, for the keeper to say that it is over
HELLO_SECONDS_MAX = 10.0
ATTEMPTS_MAX = 5
RECONNECT_SECONDS = 0.02

log = logging.getLogger("swingby")


class Connector(Protocol):
    """Makes connections to a keeper."""

    def connect(self) -> socket.socket:
        """A new connection; starts a keeper if there is none.

        Raises:
            KeeperUnavailableError: none can be had.
        """
        ...


class Reply(NamedTuple):
    """A message of the keeper, and descriptors that are the receiver's to close."""

    message: Any
    descriptors: list[int]


class Exchange:
    """One connection in use by one request.

    Attributes:
        board: counts the level's evictions, mapped: one uint64.
        settings: of the keeper.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        forks.register(self)
        self._frames = Frames.of_replies()
        connection.setblocking(False)
        try:
            self.board = self._greet()
        except BaseException:
            self.close()
            raise

    def _greet(self) -> memoryview:
        self.send(Hello(protocol.VERSION, os.getpid()), HELLO_SECONDS_MAX)
        welcome = self.receive(HELLO_SECONDS_MAX)
        try:
            if not isinstance(welcome.message, Welcome) or len(welcome.descriptors) != 1:
                raise ProtocolError("the keeper does not greet")
            self.settings = welcome.message.settings
            return map_read_only(welcome.descriptors[0], 8).cast("Q")
        finally:
            frames.close_all(welcome.descriptors)

    def send(self, message: Message, seconds: float) -> None:
        """Send a whole message.

        Raises:
            ConnectionError: the keeper is gone.
        """
        frame = memoryview(frames.encode(message))
        until = time.monotonic() + seconds
        while frame:
            sent = self._sent(frame)
            frame = frame[sent:]
            if not sent:
                self._wait(select.POLLOUT, until)

    def receive(self, seconds: float) -> Reply:
        """The next message.

        Raises:
            ConnectionError: the keeper is gone.
            DeadlineError: nothing came in time.
            SwingbyError: the keeper's own, from a Failed message.
        """
        until = time.monotonic() + seconds
        while (found := self._frames.next()) is None:
            if not self._received():
                self._wait(select.POLLIN, until)
        message, descriptors = found
        if isinstance(message, Failed):
            frames.close_all(descriptors)
            raise from_facts(message.name, message.facts)
        return Reply(message, descriptors)

    def _sent(self, frame: memoryview) -> int:
        """Send what goes at once; waiting is done elsewhere, so that Ctrl-C meanwhile shows nothing else."""
        try:
            return self._socket.send(frame)
        except BlockingIOError:
            return 0

    def _received(self) -> bool:
        """Take in what has arrived, if anything has."""
        try:
            if not self._frames.receive(self._socket):
                raise ConnectionResetError("the keeper closed the connection")
        except BlockingIOError:
            return False
        return True

    def is_quiet(self) -> bool:
        """Whether the connection is alive and nothing unexpected waits in it."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        """Close the connection."""
        self._frames.close()
        self._socket.close()

    def after_fork(self) -> None:
        """Close the child's copy: a connection must end when its owner does, not when the owner's last child does."""
        self.close()

    def _wait(self, event: int, until: float) -> None:
        poll = select.poll()
        poll.register(self._socket, event)
        left = until - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise DeadlineError("the keeper did not answer in time")


class KeeperClient:
    """See the module's text.

    Args:
        connector: makes connections.
        settings: that a keeper started from here would have; a running one may have others, which is logged once.
    """

    def __init__(self, connector: Connector, settings: str = "") -> None:
        self._connector = connector
        self._settings = settings
        self._idle: list[Exchange] = []
        self._lock = threading.Lock()
        forks.register(self)

    @contextlib.contextmanager
    def exchange(self) -> Iterator[Exchange]:
        """A connection for one request; kept for the next one if the request ended well.

        Raises:
            KeeperUnavailableError: no keeper can be had.
            ConnectionError: it went away meanwhile.
        """
        exchange = self._take()
        try:
            yield exchange
        except BaseException as error:
            exchange.close()
            if isinstance(error, ConnectionError) and not isinstance(error, SwingbyError):
                self.close()  # the others lead to the same keeper: one that is dying looks alive for a while
            raise
        with self._lock:
            if len(self._idle) < IDLE_CONNECTIONS_MAX:
                self._idle.append(exchange)
                return
        exchange.close()

    def call(self, message: Message, seconds: float) -> Reply:
        """Send a message and return the one answer. A keeper that vanished is asked again.

        Raises:
            KeeperUnavailableError: no keeper can be had.
            SwingbyError: the keeper's.
        """
        for attempt in range(ATTEMPTS_MAX):
            try:
                with self.exchange() as exchange:
                    exchange.send(message, seconds)
                    return exchange.receive(seconds + GRACE_SECONDS)
            except KeeperUnavailableError:
                raise
            except ConnectionError as error:
                if attempt == ATTEMPTS_MAX - 1:
                    raise KeeperUnavailableError(f"the keeper goes away again and again: {error}") from None
        raise AssertionError("unreachable")

    def dedicated(self) -> Exchange:
        """A connection that the caller keeps and closes: plans and pins live as long as it does."""
        for attempt in range(ATTEMPTS_MAX):
            try:
                exchange = Exchange(self._connector.connect())
            except SwingbyError:
                raise
            except ConnectionError:  # a keeper that is dying still listens for a moment
                time.sleep(RECONNECT_SECONDS * (attempt + 1))
            else:
                self._compare(exchange.settings)
                return exchange
        raise KeeperUnavailableError("the keeper goes away while it greets")

    def _compare(self, settings: str) -> None:
        if self._settings and settings and settings != self._settings:
            self._settings = ""
            log.warning(
                "the running keeper was started with other settings, which stay in force; `swingby stop` ends it"
            )

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for exchange in idle:
            exchange.close()

    def after_fork(self) -> None:
        """Start afresh; the connections are the parent's."""
        self._idle, self._lock = [], threading.Lock()

    def _take(self) -> Exchange:
        while True:
            with self._lock:
                exchange = self._idle.pop() if self._idle else None
            if exchange is None:
                return self.dedicated()
            if exchange.is_quiet():
                return exchange
            exchange.close()
