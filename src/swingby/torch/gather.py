"""Batches of bytes that nobody transforms, copied by threads of this process straight into the tensor that is given out.

Worker processes would only copy them once more, into shared memory, and send descriptors about. What holds the interpreter's lock
for most of its time is left to the caller while that asks faster than one is made: threads would only get in its way.

Threads: daemons; the caller submits and waits. Failure: an error of a batch is raised where the batch is due.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from swingby.path.waits import WAITED

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOK_SECONDS = 0.5  # a signal is noticed meanwhile


class Gather(Protocol):
    """Makes the batch of a step.

    Attributes:
        locked_seconds: that making the latest took, if it held the interpreter's lock; 0.0 otherwise.
    """

    locked_seconds: float

    def __call__(self, step: Any) -> Any:
        """The batch of a step."""
        ...


class _Due:
    """A batch on its way."""

    __slots__ = ("error", "is_there", "value", "wanted")

    def __init__(self, wanted: Any) -> None:
        self.wanted = wanted
        self.value: Any = None
        self.error: BaseException | None = None
        self.is_there = threading.Event()


def gathered(steps: Iterator[Any], gather: Gather, threads: int, ahead: int, seconds_max: float) -> Iterator[Any]:
    """Batches in order, some ahead of who takes them.

    Args:
        steps: indices of each.
        gather: makes the batch of some indices.
        threads: that gather; 0: the caller's own.
        ahead: batches, at most, that are gathered and not taken.
        seconds_max: to wait for one; 0: any time, which the reads have an end of.

    Raises:
        RuntimeError: a batch took longer than `seconds_max`.
    """
    if not threads:
        yield from map(gather, steps)
        return
    tasks: SimpleQueue[_Due | None] = SimpleQueue()
    waiting: deque[_Due] = deque()
    for _ in range(threads):
        threading.Thread(target=_work, args=(tasks, gather), name="swingby-gather", daemon=True).start()
    elsewhere = float("inf")  # seconds that the caller spent between two batches
    try:
        while True:
            is_own = not seconds_max and gather.locked_seconds > elsewhere
            while len(waiting) < (0 if is_own else ahead) and (wanted := next(steps, None)) is not None:
                waiting.append(_Due(wanted))
                tasks.put(waiting[-1])
            if waiting:
                value = _taken(waiting.popleft(), seconds_max)
            elif is_own and (wanted := next(steps, None)) is not None:
                with WAITED.told_elsewhere():
                    value = gather(wanted)
            else:
                return
            given = time.perf_counter()
            yield value
            del value  # it is the taker's alone
            elsewhere = time.perf_counter() - given
    finally:
        for due in waiting:
            due.wanted = None  # need not be read any more
        for _ in range(threads):
            tasks.put(None)


def _taken(due: _Due, seconds_max: float) -> Any:
    until = time.monotonic() + seconds_max
    while not due.is_there.wait(LOOK_SECONDS):
        if seconds_max and time.monotonic() > until:
            raise RuntimeError(f"DataLoader timed out after {seconds_max} seconds")
    if due.error is not None:
        raise due.error
    return due.value


def _work(tasks: SimpleQueue[_Due | None], gather: Gather) -> None:
    while (due := tasks.get()) is not None:
        try:
            if due.wanted is not None:
                due.value = gather(due.wanted)
        except BaseException as error:  # whoever waits must be told
            due.error = error
        due.is_there.set()
        del due  # the tensor is the taker's
