"""A far base: passes TCP on, every request held back for a while once, answers passed at full speed.

    python -m swingby.bench.delay_line PORT HOST:PORT SECONDS

What a client sends is delayed as a whole stream, so pipelining and bandwidth stay what they are; a proxy that sleeps for every
piece would turn latency into a bandwidth limit. `check` measures that: one round trip is longer by the delay, bandwidth is not
smaller.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE_BYTES = 1 << 20
WAITING_BYTES_MAX = 8 << 20  # a direction of a connection; then its source waits
START_SECONDS_MAX = 10.0


class _Direction:
    """One half of a connection: from one socket to the other."""

    def __init__(self, source: socket.socket, target: socket.socket, delay: float) -> None:
        self.source = source
        self.target = target
        self.delay = delay
        self.waiting: deque[tuple[float, memoryview]] = deque()
        self.waiting_bytes = 0
        self.is_over = False


class DelayLine:
    """One listening port.

    Args:
        port: to listen on; 0: any.
        target: host and port to pass on to.
        seconds: that every request is late.
    """

    def __init__(self, port: int, target: tuple[str, int], seconds: float) -> None:
        self._target = target
        self._seconds = seconds
        self._selector = selectors.DefaultSelector()
        self._directions: dict[socket.socket, tuple[_Direction, _Direction]] = {}  # socket: from it, to it
        self._due: list[tuple[float, int, _Direction]] = []
        self._numbers = itertools.count()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._selector.register(self._listener, selectors.EVENT_READ)

    def run(self) -> None:
        """Pass on until the process ends."""
        while True:
            timeout = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            for key, events in self._selector.select(timeout):
                connection = key.fileobj
                if connection is self._listener:
                    self._accept()
                    continue
                assert isinstance(connection, socket.socket)  # nothing else is registered
                if connection in self._directions and events & selectors.EVENT_READ:
                    self._take(self._directions[connection][0])
                if connection in self._directions and events & selectors.EVENT_WRITE:
                    self._give(self._directions[connection][1])
            while self._due and self._due[0][0] <= time.monotonic():
                direction = heapq.heappop(self._due)[2]
                if direction.target in self._directions:
                    self._give(direction)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self._target)
        for one in (client, server):
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        there, back = _Direction(client, server, self._seconds), _Direction(server, client, 0.0)
        self._directions[client], self._directions[server] = (there, back), (back, there)
        for one in (client, server):
            self._selector.register(one, selectors.EVENT_READ)

    def _take(self, direction: _Direction) -> None:
        try:
            piece = direction.source.recv(PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        direction.is_over |= not piece
        due = time.monotonic() + direction.delay
        direction.waiting.append((due, memoryview(piece)))
        direction.waiting_bytes += len(piece)
        if direction.delay:
            heapq.heappush(self._due, (due, next(self._numbers), direction))
        else:
            self._give(direction)
        self._watch(direction.source)

    def _give(self, direction: _Direction) -> None:
        now = time.monotonic()
        try:
            while direction.waiting and direction.waiting[0][0] <= now:
                due, piece = direction.waiting[0]
                if not piece:
                    self._close(direction)
                    return
                sent = direction.target.send(piece)
                direction.waiting_bytes -= sent
                if sent < len(piece):
                    direction.waiting[0] = (due, piece[sent:])
                    break
                direction.waiting.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._close(direction)
            return
        self._watch(direction.source)
        self._watch(direction.target)

    def _watch(self, one: socket.socket) -> None:
        """Read from a socket while there is room behind it, and write to it while something is due."""
        if one not in self._directions:
            return
        outgoing, incoming = self._directions[one]
        events = 0
        if not outgoing.is_over and outgoing.waiting_bytes < WAITING_BYTES_MAX:
            events |= selectors.EVENT_READ
        if incoming.waiting and incoming.waiting[0][0] <= time.monotonic():
            events |= selectors.EVENT_WRITE
        with contextlib.suppress(KeyError):
            self._selector.unregister(one)
        if events:
            self._selector.register(one, events)

    def _close(self, direction: _Direction) -> None:
        for one in (direction.source, direction.target):
            with contextlib.suppress(KeyError):
                self._selector.unregister(one)
            self._directions.pop(one, None)
            one.close()


@contextlib.contextmanager
def running(target: str, seconds: float) -> Iterator[tuple[str, int]]:
    """A delay line in a process of its own: its URL and process id."""
    address = target.partition("://")[2]
    command = [sys.executable, "-m", "swingby.bench.delay_line", "0", address, str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None  # it was asked for
        port = int(process.stdout.readline())
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.kill()
        process.communicate()


def check(seconds: float, megabytes: int = 512) -> dict[str, float]:
    """Measure a line: how much later an answer comes, and what share of an undelayed line's bandwidth is left.

    Returns:
        "added_seconds" and "bandwidth_ratio".
    """
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_answer, args=(server, bytes(1 << 20), megabytes), daemon=True).start()
    found = {}
    for name, delay in (("undelayed", 0.0), ("delayed", seconds)):
        with running(f"tcp://127.0.0.1:{server.getsockname()[1]}", delay) as (url, _):
            port = int(url.rpartition(":")[2])
            found[name] = min(_trip(port, 1)[0] for _ in range(5))
            first, bulk = max((_trip(port, megabytes << 20) for _ in range(3)), key=lambda one: one[1])
            found[f"{name} bandwidth"] = bulk
            del first
    server.close()
    return {
        "added_seconds": found["delayed"] - found["undelayed"],
        "bandwidth_ratio": found["delayed bandwidth"] / found["undelayed bandwidth"],
    }


def _answer(server: socket.socket, block: bytes, megabytes: int) -> None:
    """Send one byte for "1", and many for "b"."""
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            kind = connection.recv(1)
            for _ in range(megabytes if kind == b"b" else 0):
                connection.sendall(block)
            if kind == b"1":
                connection.sendall(b"x")


def _trip(port: int, size: int) -> tuple[float, float]:
    """Seconds to the first byte, and bytes a second after it."""
    buffer = bytearray(1 << 20)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        started = time.perf_counter()
        connection.sendall(b"1" if size == 1 else b"b")
        done = connection.recv_into(buffer)
        first = time.perf_counter()
        while done < size:
            done += connection.recv_into(buffer)
        return first - started, size / max(1e-9, time.perf_counter() - first)


def main() -> None:
    """The process: prints its port, then passes on."""
    host, _, port = sys.argv[2].rpartition(":")
    line = DelayLine(int(sys.argv[1]), (host, int(port)), float(sys.argv[3]))
    print(line.port, flush=True)
    line.run()


if __name__ == "__main__":
    main()
