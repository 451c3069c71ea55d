"""Listens, frames, and keeps time for the keeper: one thread that never blocks.

Guarantees: a client that sends nonsense or does not read is cut off; every timer fires or is cancelled.
Threads: `run` is the loop's; `Connection.send`, `call_later` and `stop` from any.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from swingby.errors import ProtocolError, SwingbyError
from swingby.keeper import frames
from swingby.keeper.frames import Frames
from swingby.keeper.protocol import Failed, Message

UNSENT_BYTES_MAX = 64 << 20  # a connection; one that reads nothing for so long is cut off

log = logging.getLogger("swingby")


class Connection:
    """One client's connection, as the keeper sees it.

    Attributes:
        number: unique in this keeper.
        known: what the client has been sent, by (dataset, slot): the generation.
        on_close: called once when it ends.
    """

    def __init__(self, server: Server, connection: socket.socket, number: int) -> None:
        self.number = number
        self.known: dict[tuple[str, int], int] = {}
        self.on_close: list[Callable[[], None]] = []
        self.frames = Frames.of_requests()
        self.socket = connection
        self.is_open = True
        self.has_greeted = False
        self._server = server
        self._lock = threading.Lock()
        self._unsent: deque[tuple[memoryview, Sequence[int]]] = deque()
        self._unsent_bytes = 0

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message; its descriptors are closed here. A connection that is gone takes it silently."""
        frame = memoryview(frames.encode(message, len(descriptors)))
        with self._lock:
            if not self.is_open:
                frames.close_all(descriptors)
                return
            self._unsent.append((frame, descriptors))
            self._unsent_bytes += len(frame)
            if len(self._unsent) == 1:
                self._flush()
            if self._unsent_bytes > UNSENT_BYTES_MAX:
                log.warning("a client does not read its answers; it is cut off")
                self._unsent_bytes = 0
                self._server.call_later(0, lambda: self._server.drop(self))
            elif self._unsent:
                self._server.watch(self)

    def fail(self, error: SwingbyError) -> None:
        """Send an error."""
        self.send(Failed(type(error).__name__, error.facts()))

    def flush(self) -> bool:
        """Send what waits; whether anything is left."""
        with self._lock:
            self._flush()
            return bool(self._unsent)

    def close(self) -> None:
        """End it; the loop calls this."""
        with self._lock:
            self.is_open = False
            for _, descriptors in self._unsent:
                frames.close_all(descriptors)
            self._unsent.clear()
            self.socket.close()
        self.frames.close()
        for call in self.on_close:
            call()

    def _flush(self) -> None:
        while self._unsent:
            frame, descriptors = self._unsent[0]
            try:
                sent = frames.send(self.socket, frame, descriptors)
            except BlockingIOError:
                return
            except OSError:  # gone; the loop will notice
                sent = len(frame)
            if sent:
                frames.close_all(descriptors)
            self._unsent_bytes -= sent
            if sent < len(frame):
                self._unsent[0] = (frame[sent:], ())
            else:
                self._unsent.popleft()


Handler = Callable[[Connection, Any], None]


class Server:
    """See the module's text.

    Args:
        handle: called for each message, in the loop's thread.
        clients_max: connections at once.
        listener: a listening Unix socket; None: connections only come by `adopt`.
    """

    def __init__(self, handle: Handler, clients_max: int, listener: socket.socket | None) -> None:
        self._handle = handle
        self._clients_max = clients_max
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._connections: set[Connection] = set()
        self._to_watch: set[Connection] = set()
        self._to_adopt: list[socket.socket] = []
        self._stopping = self._closed = False
        self.idle_since = time.monotonic()
        self._wake_reader, self._wake_writer = socket.socketpair()
        for end in (self._wake_reader, self._wake_writer):
            end.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        if listener:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ)

    @property
    def client_count(self) -> int:
        """Connections now."""
        return len(self._connections)

    def run(self) -> None:
        """Serve until `stop`."""
        while not self._stopping:
            for key, events in self._selector.select(self._until_next_timer()):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._wake_reader:
                    self._woken()
                elif isinstance(key.data, Connection):
                    self._serve(key.data, events)
            self._fire_timers()
        self._close()

    def stop(self) -> None:
        """End `run` soon."""
        self._stopping = True
        self._wake()

    def adopt(self, connection: socket.socket) -> None:
        """Serve a connection made elsewhere: one end of a pair."""
        with self._lock:
            if not self._closed:
                self._to_adopt.append(connection)
                self._wake()
                return
        connection.close()

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call in the loop's thread, then."""
        with self._lock:
            heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), call))
        self._wake()

    def watch(self, connection: Connection) -> None:
        """Send the rest of its answers when it can take them."""
        with self._lock:
            self._to_watch.add(connection)
        self._wake()

    def drop(self, connection: Connection) -> None:
        """Cut a connection off; the loop's thread."""
        if connection in self._connections:
            self._connections.discard(connection)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(connection.socket)
            connection.close()
            self.idle_since = time.monotonic()

    # -- the loop's own ------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_writer.send(b"\0")

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_reader.recv(4096):
                pass
        with self._lock:
            adopted, self._to_adopt = self._to_adopt, []
            watched, self._to_watch = self._to_watch, set()
        for one in adopted:
            self._add(one)
        for connection in watched & self._connections:
            self._selector.modify(connection.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)

    def _accept(self) -> None:
        assert self._listener is not None  # it is what woke us
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        if peer_user(connection) not in {os.getuid(), None} or len(self._connections) >= self._clients_max:
            connection.close()
            return
        self._add(connection)

    def _add(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        one = Connection(self, connection, next(self._numbers))
        self._connections.add(one)
        self._selector.register(connection, selectors.EVENT_READ, one)

    def _serve(self, connection: Connection, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE and not connection.flush():
                self._selector.modify(connection.socket, selectors.EVENT_READ, connection)
            if events & selectors.EVENT_READ:
                is_alive = connection.frames.receive(connection.socket)
                while (found := connection.frames.next()) is not None:
                    frames.close_all(found[1])
                    self._handle(connection, found[0])
                if not is_alive:
                    self.drop(connection)
        except BlockingIOError:
            pass
        except ProtocolError as error:
            connection.fail(error)
            self.drop(connection)
        except OSError:
            self.drop(connection)

    def _until_next_timer(self) -> float | None:
        with self._lock:
            return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _fire_timers(self) -> None:
        while True:
            with self._lock:
                if not self._timers or self._timers[0][0] > time.monotonic():
                    return
                call = heapq.heappop(self._timers)[2]
            call()

    def _close(self) -> None:
        if self._listener:
            self._selector.unregister(self._listener)
            self._listener.close()
        with self._lock:
            self._closed = True
        for late in self._to_adopt:
            late.close()
        for connection in list(self._connections):
            connection.flush()
            self.drop(connection)
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()


def peer_user(connection: socket.socket) -> int | None:
    """The user at the other end; None where the system does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])
