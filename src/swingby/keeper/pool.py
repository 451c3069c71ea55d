"""Threads that run jobs, the urgent ones first, as many at once as the base's distance asks for.

Bounds: `limit()` jobs and `inflight_bytes_max` bytes at once (one job at least). Threads start when needed and leave when idle.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

IDLE_SECONDS_MAX = 10.0


class Job(Protocol):
    """What a pool runs, once.

    Attributes:
        size: bytes it will hold in memory.
        started: set by the pool; a job may be queued twice, to become urgent.
    """

    size: int
    started: bool

    def run(self) -> None:
        """Do it; never raises."""
        ...


class Pool:
    """See the module's text.

    Args:
        name: of the threads.
        limit: how many jobs at once, asked again at every start of one.
        inflight_bytes_max: bytes at once.
    """

    def __init__(self, name: str, limit: Callable[[], int], inflight_bytes_max: int) -> None:
        self._name = name
        self._limit = limit
        self._inflight_bytes_max = inflight_bytes_max
        self._changed = threading.Condition(threading.Lock())
        self._urgent: deque[Job] = deque()
        self._later: deque[Job] = deque()
        self._threads = self._idle = 0
        self._inflight_bytes = 0
        self._closed = False

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return self._threads == self._idle and not self._urgent and not self._later

    def submit(self, jobs: Iterable[Job], *, urgent: bool) -> None:
        """Queue jobs; a queued job that is submitted again as urgent runs earlier."""
        with self._changed:
            queue = self._urgent if urgent else self._later
            before = len(queue)
            queue.extend(jobs)
            count = len(queue) - before
            if self._idle:
                self._changed.notify(min(count, self._idle))
            for _ in range(min(count - self._idle, self._limit() - self._threads)):
                self._start_one()

    def close(self) -> None:
        """Drop what has not begun and let the threads end."""
        with self._changed:
            self._closed = True
            self._urgent.clear()
            self._later.clear()
            self._changed.notify_all()

    def _start_one(self) -> None:
        self._threads += 1
        threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _work(self) -> None:
        done = 0
        while (job := self._next(done)) is not None:
            job.run()
            done = job.size

    def _next(self, done_bytes: int) -> Job | None:
        with self._changed:
            if done_bytes:
                self._inflight_bytes -= done_bytes
                if self._idle and (self._urgent or self._later):
                    self._changed.notify()  # somebody may have waited for these bytes
            while not self._closed:
                queue = self._urgent or self._later
                if queue:
                    job = queue[0]
                    if job.started:
                        queue.popleft()
                        continue
                    if not self._inflight_bytes or self._inflight_bytes + job.size <= self._inflight_bytes_max:
                        queue.popleft()
                        job.started = True
                        self._inflight_bytes += job.size
                        if queue and not self._idle and self._threads < self._limit():
                            self._start_one()  # the limit has grown since these were queued
                        return job
                self._idle += 1
                called = self._changed.wait(IDLE_SECONDS_MAX)
                self._idle -= 1
                if not called and not self._urgent and not self._later:
                    break
            self._threads -= 1
            return None
