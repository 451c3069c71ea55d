"""Decodes samples ahead of who takes them, in threads or in processes; results in order.

A sample that takes longer than its time is given up: a process is ended and replaced, a thread left behind and replaced. A worker
process that dies is replaced, and what it had not finished is done again.

Threads: daemons, each with its own hand; the caller submits and waits.
"""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from swingby.errors import BadSampleError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from swingby.data.account import Account, Span
    from swingby.data.dataset import Batch
    from swingby.data.work import BadSample, Work

LEFT_BEHIND_MAX = 16  # threads whose decoding hangs; they cannot be ended
LOOK_SECONDS = 0.05

Part = list[tuple[int, int]]  # position in the batch, index in the dataset


class Hand(Protocol):
    """What a thread of the crew decodes with."""

    def decode(self, pending: Pending, part: Part) -> None:
        """Decode some samples of a batch, each handed to `pending`."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class Pending:
    """A batch on its way.

    Args:
        batch: that is read; None where the workers read it.
        count: of samples.
    """

    def __init__(self, batch: Batch | None, count: int) -> None:
        self.batch = batch
        self.bad: list[BadSample] = []
        self.error: BaseException | None = None
        self.running: dict[int, tuple[int, float]] = {}  # by position: index and when it began, in threads
        self.spans: list[Span] = []  # reads of workers for this batch
        self.last_reads: Iterable[Span] = ()  # the latest reads of the worker that ended it
        self._values: list[Any] = [None] * count
        self._left = set(range(count))
        self._changed = threading.Condition()

    def begin(self, position: int, index: int) -> None:
        """A thread begins with a sample."""
        with self._changed:
            self.running[position] = (index, time.monotonic())

    def done(self, position: int, value: Any, bad: list[BadSample]) -> None:
        """A sample is decoded; too late if it was given up."""
        with self._changed:
            self.running.pop(position, None)
            if position in self._left:
                self._left.discard(position)
                self._values[position] = value
                self.bad += bad
            self._changed.notify_all()

    def failed(self, error: BaseException) -> None:
        """The batch cannot be had."""
        with self._changed:
            self.error = self.error or error
            self._changed.notify_all()

    def overdue(self, seconds_max: float) -> Iterator[tuple[int, int]]:
        """Positions and indices whose decoding takes too long; they no longer count as running."""
        with self._changed:
            late = [(at, one[0]) for at, one in self.running.items() if time.monotonic() - one[1] > seconds_max]
            for at, _ in late:
                del self.running[at]
        yield from late

    def wait(self, look: Callable[[], None]) -> list[Any]:
        """The decoded samples in order; `look` is called now and then.

        Raises:
            SwingbyError: a sample is bad and not replaced, or the base failed.
        """
        while True:
            with self._changed:
                if self.error is None and self._left:
                    self._changed.wait(LOOK_SECONDS)
                if self.error is not None:
                    raise self.error
                if not self._left:
                    return self._values
            look()


class Crew:
    """See the module's text.

    Args:
        hand: makes what each thread decodes with.
        workers: how many.
        work: for samples that are given up.
        seconds_max: for a sample; None: any time.
    """

    def __init__(self, hand: Callable[[], Hand], workers: int, work: Work, seconds_max: float | None) -> None:
        self._make_hand = hand
        self._work = work
        self._seconds_max = seconds_max
        self._tasks: SimpleQueue[tuple[Pending, Part] | None] = SimpleQueue()
        self._left_behind = 0
        self._workers = workers
        self._closed = threading.Event()
        self._threads = [self._start() for _ in range(workers)]

    def submit(self, pending: Pending, parts: list[Part]) -> None:
        """Have parts of a batch decoded."""
        for part in parts:
            self._tasks.put((pending, part))

    def wait(self, pending: Pending, account: Account) -> list[Any]:
        """See `Pending.wait`; what it waits for is accounted."""
        began = time.perf_counter()
        values = pending.wait(lambda: self._look(pending))
        account.decoded(began, time.perf_counter(), list(pending.last_reads))
        account.read_elsewhere(pending.spans)
        return values

    def close(self) -> None:
        """End all threads but those whose decoding hangs, and all processes."""
        self._closed.set()
        for _ in self._threads:
            self._tasks.put(None)
        if not self._left_behind:
            for thread in self._threads:
                thread.join(self._seconds_max or 5.0)

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name="swingby-decode", daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        hand = None
        try:
            hand = self._make_hand()
            while (task := self._tasks.get()) is not None and not self._closed.is_set():
                pending, part = task
                if pending.error is None:
                    try:
                        hand.decode(pending, part)
                    except BaseException as error:  # whoever waits must be told
                        pending.failed(error)
        finally:
            if hand:
                hand.close()

    def _look(self, pending: Pending) -> None:
        """Give up what takes too long in a thread."""
        if self._seconds_max is None:
            return
        for position, index in pending.overdue(self._seconds_max):
            self._left_behind += 1
            if self._left_behind > LEFT_BEHIND_MAX:
                pending.failed(BadSampleError(f"decode hangs: {LEFT_BEHIND_MAX} threads are stuck in it"))
                return
            self._threads.append(self._start())
            replace_late(self._work, pending, (position, index), self._seconds_max)


class ThreadHand:
    """Decodes in the crew's own threads.

    Args:
        work: what is done.
    """

    def __init__(self, work: Work) -> None:
        self._work = work

    def decode(self, pending: Pending, part: Part) -> None:
        """See `Hand`."""
        assert pending.batch is not None  # threads decode what is read
        for position, index in part:
            pending.begin(position, index)
            sample = pending.batch.sample(position)
            pending.done(position, *self._work.decode(index, sample))

    def close(self) -> None:
        """See `Hand`."""


def replace_late(work: Work, pending: Pending, where: tuple[int, int], seconds_max: float) -> None:
    """Put another sample in the place of one whose decoding hangs, or fail."""
    position, index = where
    reason = f"decode took longer than {seconds_max:g} s"
    if not work.replaces:
        key = work.dataset.keys[index]
        pending.failed(
            BadSampleError(f"{key}: {reason}", key=key, remedy="Allow more by Decode(…, seconds_max=…), or mend decode")
        )
        return
    try:
        pending.done(position, *work.replace(index, reason))
    except BaseException as error:
        pending.failed(error)
