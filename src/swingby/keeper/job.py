"""A process that something lasts as long as, told from a later one of the same number by when it started."""

from __future__ import annotations

import contextlib
import os
import select

from swingby.errors import LevelError

STARTED_FIELD = 19  # of /proc/PID/stat, counted behind the name, which may hold anything


class Job:
    """A running process.

    Args:
        process: its id.
        started: when it started, as `started_at` says.

    Raises:
        LevelError: no such process runs where the keeper does.
    """

    def __init__(self, process: int, started: int) -> None:
        self.process = process
        self._started = started
        self._descriptor: int | None = None
        with contextlib.suppress(OSError, AttributeError):  # it is gone, or the system has no such descriptors
            self._descriptor = os.pidfd_open(process)
        if started_at(process) != started or self.is_over:
            self.close()
            raise LevelError(
                f"the keeper sees no such process {process}",
                remedy="Does the job run in another container? Give --expires instead of a process",
            )

    @property
    def is_over(self) -> bool:
        """Whether it has ended, reaped or not."""
        if self._descriptor is not None:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLIN)
            return bool(poll.poll(0))
        return started_at(self.process) != self._started

    def close(self) -> None:
        """Let go of it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def started_at(process: int) -> int | None:
    """When a process started, in clock ticks since boot; 0 where the system does not tell; None: it does not run."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None if os.path.exists("/proc/self/stat") or not _is_there(process) else 0
    return None if fields[0] in {b"Z", b"X"} else int(fields[STARTED_FIELD])


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
