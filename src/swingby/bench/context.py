"""What rows run in: sizes, repetitions, a private home, cores."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swingby import config, sessions
from swingby.errors import SwingbyError
from swingby.keeper.protocol import Evict, Status, Stop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swingby.sessions import Session

BUSY_TRIES_MAX = 200


@dataclass(frozen=True)
class Context:
    """How to run.

    Attributes:
        is_toy: small sizes and one repetition, to see that nothing has rotted.
        repetitions: of what is repeated; at least 5 for figures that are quoted.
        pairs: of what is measured in alternating pairs; at least 20.
        folder: for data, on a disk.
    """

    is_toy: bool
    repetitions: int
    pairs: int
    folder: str

    def size(self, full: int, toy: int) -> int:
        """A size for this run."""
        return toy if self.is_toy else full


class Keeper:
    """A keeper process of a benchmark's own.

    Attributes:
        settings: for `settings=`.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._home = tempfile.mkdtemp(prefix="swingby-bench-")
        self.settings = config.load({"home": self._home} | settings)

    @property
    def session(self) -> Session:
        """The session with it."""
        return sessions.session(self.settings)

    def facts(self) -> dict[str, Any]:
        """What `status` shows."""
        facts: dict[str, Any] = self.session.client.call(Status(), 30).message.facts
        return facts

    def evict(self) -> None:
        """Empty all levels."""
        for _ in range(BUSY_TRIES_MAX):
            if not self.session.client.call(Evict(), 60).message.facts["kept"]:
                return
            time.sleep(0.02)
        raise RuntimeError("segments stay in use")

    def cpu_seconds(self) -> float:
        """User and system time of its process."""
        return process_cpu_seconds(self.facts()["process"])

    def environment(self) -> dict[str, str]:
        """For processes that read the same S3."""
        s3 = self.settings.s3
        return config.spawn_environment("") | {
            "AWS_ENDPOINT_URL": s3.endpoint or "",
            "AWS_ACCESS_KEY_ID": s3.access_key_id or "",
            "AWS_SECRET_ACCESS_KEY": s3.secret_access_key or "",
            "AWS_REGION": s3.region or "",
        }

    def close(self) -> None:
        """End it and remove what it wrote."""
        from swingby.keeper.place import place_of

        with contextlib.suppress(SwingbyError):
            self.session.client.call(Stop(), 10)
        self.session.client.close()
        place = place_of(self.settings)
        for path in (place.memory, place.runtime, self._home):
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def keeper(settings: dict[str, Any] | None = None) -> Iterator[Keeper]:
    """A keeper for the length of a block."""
    made = Keeper(settings or {})
    try:
        yield made
    finally:
        made.close()


def process_cpu_seconds(process: int) -> float:
    """User and system time of a process and its threads."""
    with open(f"/proc/{process}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def own_cpu_seconds() -> float:
    """User and system time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def pin(process: int, core: int) -> None:
    """Keep a process with its threads on one core; nothing on a machine with one core only."""
    cores = sorted(os.sched_getaffinity(0) | {core})
    if len(cores) > 1 and core < (os.cpu_count() or 1):
        for thread in os.listdir(f"/proc/{process}/task"):
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(thread), {core})


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """This process, and what it starts, on one core for the length of a block."""
    before = os.sched_getaffinity(0)
    pin(os.getpid(), core)
    try:
        yield
    finally:
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(thread), before)
