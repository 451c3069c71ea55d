"""The keeper that runs, if one does: asked without starting one."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import time
from typing import TYPE_CHECKING, Any, Self

from swingby.errors import DeadlineError, KeeperError, KeeperUnavailableError, ProtocolError
from swingby.keeper.client import Exchange
from swingby.keeper.place import place_of
from swingby.keeper.process import connect
from swingby.keeper.protocol import Progress, Report, Status, Stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from swingby.config import Settings
    from swingby.keeper.place import KeeperPlace
    from swingby.keeper.protocol import Message

ANSWER_SECONDS_MAX = 10.0
SIGN_OF_LIFE_SECONDS_MAX = 3600.0  # of a long request; what it waits for has deadlines of its own
END_SECONDS_MAX = 10.0
POLL_SECONDS = 0.02


class Running:
    """A keeper that listens.

    Args:
        place: of its home.
        process: its id; 0 where the system does not tell.
    """

    def __init__(self, place: KeeperPlace, process: int) -> None:
        self.process = process
        self._place = place

    @classmethod
    def find(cls, settings: Settings) -> Running | None:
        """The keeper of the home in these settings; None where none runs."""
        place = place_of(settings)
        try:
            connection = connect(place)
        except OSError:
            return None
        with contextlib.closing(connection):
            return cls(place, _peer(connection))

    def ask(self, message: Message) -> dict[str, Any]:
        """The facts of its Report.

        Raises:
            KeeperError: it is of another version, does not answer, or went away.
        """
        try:
            with contextlib.closing(Exchange(connect(self._place))) as exchange:
                return follow(exchange, message, seconds=ANSWER_SECONDS_MAX)
        except DeadlineError:
            raise KeeperUnavailableError(
                f"the keeper (process {self.process}) does not answer", remedy="End it with `swingby stop`"
            ) from None
        except ConnectionError as error:
            if isinstance(error, KeeperUnavailableError):
                raise
            raise KeeperUnavailableError("the keeper went away meanwhile", remedy="Run the command again") from None

    def facts(self) -> dict[str, Any]:
        """What `status` shows."""
        return self.ask(Status())

    def stop(self) -> None:
        """End it: by asking; one that does not understand or answer, by a signal.

        Raises:
            KeeperError: it still runs.
        """
        with _Watch(self._place, self.process) as watch:
            try:
                with contextlib.closing(Exchange(connect(self._place))) as exchange:
                    exchange.send(Stop(), ANSWER_SECONDS_MAX)
                    exchange.receive(ANSWER_SECONDS_MAX)
            except (ProtocolError, DeadlineError):
                self._signal(signal.SIGTERM)
            except ConnectionError:
                pass  # it was leaving
            if watch.sees_end():
                return
            self._signal(signal.SIGKILL)  # nothing is lost: the next one starts as after a crash
            if not watch.sees_end():
                raise KeeperError(
                    f"the keeper (process {self.process}) does not end", remedy=f"End process {self.process}"
                )

    def end_by(self, message: Message) -> bool:
        """Ask for what ends it, and wait a while; whether it ended. Errors as `ask`."""
        with _Watch(self._place, self.process) as watch:
            self.ask(message)
            return watch.sees_end()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.process > 1:
                os.kill(self.process, number)


class _Watch:
    """Sees a keeper end: by a descriptor of its process, or where there is none by its socket."""

    def __init__(self, place: KeeperPlace, number: int) -> None:
        self._place = place
        self._descriptor = -1
        with contextlib.suppress(OSError, AttributeError):
            self._descriptor = os.pidfd_open(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def sees_end(self) -> bool:
        """Wait a while for it."""
        if self._descriptor >= 0:
            return bool(select.select([self._descriptor], [], [], END_SECONDS_MAX)[0])
        until = time.monotonic() + END_SECONDS_MAX
        while time.monotonic() < until:
            try:
                connect(self._place).close()
            except OSError:
                return True
            time.sleep(POLL_SECONDS)
        return False


def follow(
    exchange: Exchange,
    message: Message,
    on_progress: Callable[[Progress], None] = lambda _: None,
    *,
    seconds: float = SIGN_OF_LIFE_SECONDS_MAX,
) -> dict[str, Any]:
    """Send a request and take its progress until the report.

    Args:
        exchange: a connection.
        message: that is answered by Progress frames and a Report.
        on_progress: called with each.
        seconds: the longest silence.

    Raises:
        KeeperUnavailableError: the keeper went away meanwhile.
        SwingbyError: the keeper's.
    """
    try:
        exchange.send(message, ANSWER_SECONDS_MAX)
        while True:
            answer = exchange.receive(seconds).message
            if isinstance(answer, Report):
                return answer.facts
            if isinstance(answer, Progress):
                on_progress(answer)
    except (ConnectionResetError, BrokenPipeError):
        raise KeeperUnavailableError("the keeper went away meanwhile", remedy="Run the command again") from None


def _peer(connection: socket.socket) -> int:
    if not hasattr(socket, "SO_PEERCRED"):
        return 0
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])
