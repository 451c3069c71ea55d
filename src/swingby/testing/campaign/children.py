"""Processes of the campaign: forked, watched, killed, and every one of them reaped."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING, Self

from swingby.testing.campaign.job import promise

if TYPE_CHECKING:
    from collections.abc import Callable

SAID_BYTES_MAX = 20_000  # of what a child wrote
STACK_SECONDS = 0.5  # for a hanging child to write its stacks


class Child:
    """One forked process that runs a function. It ends with code 0 if nothing was raised.

    Attributes:
        number: its process id.
    """

    def __init__(self, work: Callable[[], None], path: str) -> None:
        self._path = path
        self._status: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.number = os.fork()
        if self.number == 0:
            _be_child(work, path)

    @property
    def is_over(self) -> bool:
        """Whether it has ended; reaps it."""
        if self._status is None:
            number, status = os.waitpid(self.number, os.WNOHANG)
            self._status = status if number else None
        return self._status is not None

    def kill(self) -> None:
        """End it at once; it must not have ended badly before."""
        if not self.is_over:
            os.kill(self.number, signal.SIGKILL)
            self._status = os.waitpid(self.number, 0)[1]
        status = self._status or 0
        promise(status == 0 or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL), self.said())

    def wait(self, seconds_max: float) -> None:
        """Wait until it ends well.

        Raises:
            BrokenPromiseError: it raised, crashed or hangs; the text holds what it wrote.
        """
        status = self.ended(seconds_max)
        promise(status == 0, f"a process ended with status {status}\n{self.said()}")

    def ended(self, seconds_max: float) -> int:
        """Wait until it ends, well or not: the status of `waitpid`.

        Raises:
            BrokenPromiseError: it hangs; the text holds what it wrote.
        """
        end = time.monotonic() + seconds_max
        while not self.is_over:
            if time.monotonic() > end:
                os.kill(self.number, signal.SIGUSR2)
                time.sleep(STACK_SECONDS)
                self.destroy()
                promise(False, f"A HANG: a process did not end within {seconds_max:g} s\n{self.said()}")
            time.sleep(0.005)
        assert self._status is not None  # it is over
        return self._status

    def destroy(self) -> None:
        """End it, however it fares."""
        if not self.is_over:
            os.kill(self.number, signal.SIGKILL)
            self._status = os.waitpid(self.number, 0)[1]

    def said(self) -> str:
        """The end of what it wrote."""
        try:
            with open(self._path, errors="replace") as file:
                return file.read()[-SAID_BYTES_MAX:]
        except FileNotFoundError:  # killed before its first word
            return ""


class Children:
    """Starts children and leaves none behind.

    Args:
        folder: for what they write.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._all: list[Child] = []
        os.makedirs(folder, exist_ok=True)

    def start(self, work: Callable[[], None]) -> Child:
        """Fork a child that runs `work`."""
        child = Child(work, os.path.join(self._folder, f"child-{os.getpid()}-{len(self._all)}"))
        self._all.append(child)
        return child

    def run(self, work: Callable[[], None], seconds_max: float) -> None:
        """Run `work` in a child of its own and wait until it ends well."""
        self.start(work).wait(seconds_max)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._all:
            with contextlib.suppress(OSError):
                child.destroy()


def _be_child(work: Callable[[], None], path: str) -> None:
    """The child's life; never returns."""
    code = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        said = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        os.dup2(said, 1)
        os.dup2(said, 2)
        faulthandler.enable(2)
        faulthandler.register(signal.SIGUSR2, 2, all_threads=True)
        work()
        code = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)
