"""Starts keepers and is one: spawned, detached, alone by a lock, found by a socket, gone when idle.

Threads: `spawn` from any.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

from swingby.errors import KeeperUnavailableError
from swingby.keeper import place as places
from swingby.keeper.server import Server, peer_user
from swingby.levels.unnamed_file import unnamed_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from swingby.config import Settings
    from swingby.keeper.place import KeeperPlace
    from swingby.keeper.service import Keeper

READY, BUSY = b"R", b"B"
LOG_BYTES_MAX = 1 << 20
REASON_BYTES_MAX = 4096  # of what a keeper said that did not start
OWN_SOCKET = "own."  # then the process id: a socket's name before it takes the place
BACKLOG = 1024

log = logging.getLogger("swingby")


def spawn(place: KeeperPlace, command: list[str], environment: dict[str, str], seconds_max: float) -> None:
    """Start a keeper and wait until it listens, or another one does.

    A shell puts it into the background, so that it is nobody's child; it is never a fork of this process, whose threads and memory
    it must not have.

    Raises:
        KeeperUnavailableError: it did not start; the text tells where its log is.
    """
    errors = unnamed_file("swingby-start")
    reader, writer = os.pipe()
    try:
        os.set_inheritable(writer, True)
        arguments = ["sh", "-c", '"$@" </dev/null &', "sh", *command, str(writer)]
        actions = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0), (os.POSIX_SPAWN_DUP2, errors, 2)]
        shell = os.posix_spawn("/bin/sh", arguments, environment, file_actions=actions, setsid=True)
        os.close(writer)
        writer = -1
        os.waitpid(shell, 0)
        ready, _, _ = select.select([reader], [], [], seconds_max)
        if not ready or os.read(reader, 1) not in {READY, BUSY}:
            raise KeeperUnavailableError(f"the keeper did not start: {_last_line(errors)}", remedy=f"See {place.log}")
    except OSError as error:
        if isinstance(error, KeeperUnavailableError):
            raise
        raise KeeperUnavailableError(f"the keeper cannot be started: {error}") from None
    finally:
        os.close(errors)
        os.close(reader)
        if writer >= 0:
            os.close(writer)


def main(settings: Settings, ready: int, make_keeper: Callable[[KeeperPlace], Keeper]) -> int:
    """Be the keeper of a home until it is idle or told to stop; the exit code.

    Args:
        settings: of this keeper.
        ready: descriptor to tell the starter by.
        make_keeper: assembles it, once the lock is held.
    """
    _close_inherited({0, 1, 2, ready})
    place = places.place_of(settings)
    held = places.lock(place)
    if held is None:
        _tell(ready, BUSY)
        return 0
    _log_to(place)
    _raise_file_limit()
    listener = _listen(place)
    keeper = make_keeper(place)
    server = Server(keeper.handle, settings.keeper.clients_max, listener)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: keeper.stop())
    mine = os.stat(place.socket).st_ino

    def each_round() -> None:
        is_used = server.client_count or len(keeper.pins)
        idle = not is_used and time.monotonic() - server.idle_since > settings.keeper.idle_exit_seconds
        if idle or _inode(place.socket) != mine or _is_deleted(held):
            log.info("leaving: %s", "idle" if idle else "home or socket are no longer mine")
            server.stop()

    keeper.each_round = each_round
    _tell(ready, READY)
    _close_errors()
    try:
        keeper.serve(server)
    finally:
        if _inode(place.socket) == mine:
            os.unlink(place.socket)
    logging.shutdown()
    os._exit(0)  # threads may hang in a base that does not answer


def _close_inherited(kept: set[int]) -> None:
    """Close what our starter had open for its children: its sockets and pipes must end when it does, not when we do."""
    for number in map(int, os.listdir("/dev/fd")):
        with contextlib.suppress(OSError):  # the listing's own
            if number not in kept and os.get_inheritable(number):
                os.close(number)


def connect(place: KeeperPlace) -> socket.socket:
    """A connection to the running keeper.

    Raises:
        OSError: none listens.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(place.socket)
        if peer_user(connection) not in {os.getuid(), None}:
            raise ConnectionRefusedError(f"{place.socket} is served by another user")
    except OSError:
        connection.close()
        raise
    return connection


def _last_line(descriptor: int) -> str:
    text = os.pread(descriptor, REASON_BYTES_MAX, max(0, os.fstat(descriptor).st_size - REASON_BYTES_MAX))
    return (text.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]


def _listen(place: KeeperPlace) -> socket.socket:
    """Bind under a name of our own, then take the place; we hold the lock, so such names of others are left over."""
    places.make_private(place.runtime)
    for name in os.listdir(place.runtime):
        if name.startswith(OWN_SOCKET):
            os.unlink(os.path.join(place.runtime, name))
    own = os.path.join(place.runtime, f"{OWN_SOCKET}{os.getpid()}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(own)
    listener.listen(BACKLOG)
    os.rename(own, place.socket)
    return listener


def _tell(ready: int, what: bytes) -> None:
    with contextlib.suppress(OSError):
        os.write(ready, what)
        os.close(ready)


def _close_errors() -> None:
    """Whoever started us listens no more, and what holds our words is memory."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    os.close(nothing)


def _is_deleted(descriptor: int) -> bool:
    try:
        return os.fstat(descriptor).st_nlink == 0
    except OSError:  # its disk does not answer: readers are better served than left
        return False


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


def _log_to(place: KeeperPlace) -> None:
    try:
        if os.path.exists(place.log) and os.path.getsize(place.log) > LOG_BYTES_MAX:
            os.truncate(place.log, 0)
        handler: logging.Handler = logging.FileHandler(place.log)
    except OSError:
        handler = logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.info("keeper of %s, Python %s", place.state, sys.version.split()[0])


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
