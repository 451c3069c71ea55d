"""Makes objects and datasets present ahead of use, while the program goes on.

Guarantees: nothing blocks but `wait`; what was asked for is pinned as long as the handle.
Threads: one of its own, which also calls `progress`; the handle may be used from any. Forks: the handle is the parent's.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from swingby.data.progress import Reached
from swingby.errors import (
    AccessDeniedError,
    ClosedError,
    DeadlineError,
    ForkError,
    KeeperUnavailableError,
    NotOpenError,
    ObjectNotFoundError,
    SwingbyError,
    from_facts,
)
from swingby.keeper.protocol import Progress, Report, Selection, Warm

if TYPE_CHECKING:
    from collections.abc import Callable

    from swingby.data.dataset import Dataset
    from swingby.data.progress import Reporter
    from swingby.keeper.client import Exchange, KeeperClient
    from swingby.keeper.protocol import Location

ATTEMPTS_MAX = 3  # where keepers go away meanwhile
SEND_SECONDS_MAX = 10.0
LOOK_SECONDS = 0.1  # between two looks whether it was cancelled
SILENCE_SECONDS_MAX = 3600.0  # of a keeper; what it waits for has deadlines of its own


class Target(NamedTuple):
    """One thing to make present.

    Attributes:
        name: for people.
        client: to the keeper.
        location: where an object of this name would be; None: it is a dataset.
        open: opens the dataset of this name.
    """

    name: str
    client: KeeperClient
    location: Location | None
    open: Callable[[], Dataset]


class Prefetch:
    """What `swingby.prefetch` returns: a context manager whose pins end with it.

    A handle that is dropped lets the rest be fetched; then its pins end.
    """

    def __init__(self, targets: list[Target], report: Reporter, *, pin: bool) -> None:
        self._run = _Run(targets, report, pin=pin)
        weakref.finalize(self, self._run.drop).atexit = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def __repr__(self) -> str:
        return f"<swingby.Prefetch: {self.progress}, {'done' if self.done else 'under way'}>"

    @property
    def progress(self) -> Reached:
        """How far it is: objects and bytes, and the totals of what is known so far."""
        return self._run.reached

    @property
    def done(self) -> bool:
        """Whether it is over, well or not."""
        return self._run.over.is_set()

    def wait(self, timeout: float | None = None) -> Reached:
        """Wait until all is present.

        Args:
            timeout: in seconds; None: as long as it takes. It goes on afterwards.

        Returns:
            What is present. Fewer objects than `objects_total`: the levels had no room for the rest.

        Raises:
            DeadlineError: it takes longer; also a TimeoutError.
            LevelError: more would be pinned than a level allows; give pin=False, or prefetch less.
            ClosedError: it was cancelled.
            SwingbyError: the first object that could not be fetched, or the base's error, or the keeper's.
        """
        if not self._run.is_mine:
            raise ForkError("a prefetch belongs to the process that began it", remedy="Call swingby.prefetch here")
        if not self._run.over.wait(timeout):
            raise DeadlineError(f"not all is present after {timeout:g} s")
        if self._run.error is not None:
            raise self._run.error
        return self._run.reached

    def cancel(self) -> None:
        """End it, and let what is pinned leave when room is needed. What is present stays until then."""
        self._run.cancel()


class _Run:
    """What goes on in the thread; it does not refer to the handle."""

    def __init__(self, targets: list[Target], report: Reporter, *, pin: bool) -> None:
        self.reached = Reached()
        self.over = threading.Event()
        self.error: BaseException | None = None
        self._targets = targets
        self._report = report
        self._pin = pin
        self._before = Reached()
        self._process = os.getpid()
        self._lock = threading.RLock()  # a collection while it is held may drop the handle
        self._is_cancelled = self._is_dropped = False
        self._exchanges: dict[KeeperClient, Exchange] = {}
        threading.Thread(target=self._work, name="swingby-prefetch", daemon=True).start()

    @property
    def is_mine(self) -> bool:
        """Whether the thread is of this process, not of its parent."""
        return os.getpid() == self._process

    def cancel(self) -> None:
        """See `Prefetch.cancel`."""
        self._is_cancelled = True
        self.drop()

    def drop(self) -> None:
        """Nobody holds the handle: its pins end with the work."""
        if not self.is_mine:
            return
        with self._lock:
            self._is_dropped = True
            if self.over.is_set():
                self._close()

    def _work(self) -> None:
        try:
            for target in self._targets:
                self._try(target)
            self._report.close()
        except BaseException as error:  # whoever waits must be told
            self.error = self.error or error
        with self._lock:
            self.over.set()
            if self._is_dropped:
                self._close()

    def _try(self, target: Target) -> None:
        """One that fails does not keep the others from being fetched."""
        try:
            self._warm(target)
        except (ClosedError, KeeperUnavailableError):
            raise
        except SwingbyError as error:
            self.error = self.error or error

    def _close(self) -> None:
        for exchange in self._exchanges.values():
            exchange.close()
        self._exchanges.clear()

    def _warm(self, target: Target) -> None:
        for attempt in range(ATTEMPTS_MAX):
            try:
                self._end(self._one(target))
            except (NotOpenError, ConnectionError) as error:
                is_lost = isinstance(error, NotOpenError) or not isinstance(error, SwingbyError)
                if not is_lost or attempt == ATTEMPTS_MAX - 1:
                    raise
                self._forget(target.client)
            else:
                return

    def _one(self, target: Target) -> dict[str, Any]:
        if target.location:
            message = Warm("", Selection(), self._pin, None, target.name, target.location)
            with contextlib.suppress(ObjectNotFoundError, AccessDeniedError, IsADirectoryError):
                return self._follow(target.client, message)  # else a folder, whose listing tells what is wrong
        dataset = target.open()
        return self._follow(
            target.client,
            Warm(dataset.manifest, dataset.filters, self._pin, None, target.name),
            int(dataset.sizes.sum()),
        )

    def _follow(self, client: KeeperClient, message: Warm, size: int = 0) -> dict[str, Any]:
        """Send it, and tell how far it is until the report."""
        if client not in self._exchanges:
            self._exchanges[client] = client.dedicated()
        exchange = self._exchanges[client]
        exchange.send(message, SEND_SECONDS_MAX)
        until = time.monotonic() + SILENCE_SECONDS_MAX
        while time.monotonic() < until:
            self._check()
            try:
                answer = exchange.receive(LOOK_SECONDS).message
            except DeadlineError:
                continue
            until = time.monotonic() + SILENCE_SECONDS_MAX
            if isinstance(answer, Report):
                return answer.facts | {"bytes_total": size}
            if isinstance(answer, Progress):
                done = Reached(answer.objects, answer.bytes, answer.objects_total, answer.bytes_total or size)
                self._tell(self._before.plus(done))
        raise KeeperUnavailableError("the keeper says nothing any more", remedy="End it with `swingby stop`")

    def _end(self, facts: dict[str, Any]) -> None:
        """Count what is present, and raise the first failure."""
        for failure in facts["failures"]:
            raise from_facts(failure["name"], failure)
        size = facts["bytes"]
        done = Reached(facts["objects_present"], size, facts["objects_total"], facts["bytes_total"] or size)
        self._before = self._before.plus(done)
        self._tell(self._before)

    def _tell(self, reached: Reached) -> None:
        self._check()
        self.reached = reached
        self._report.tell(reached)

    def _check(self) -> None:
        if self._is_cancelled:
            raise ClosedError("the prefetch was cancelled")

    def _forget(self, client: KeeperClient) -> None:
        if exchange := self._exchanges.pop(client, None):
            exchange.close()
