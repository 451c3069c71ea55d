"""One run of one part: steps with a random stream each, a watchdog, and failures that say how to see them again."""

from __future__ import annotations

import contextlib
import random
import signal
import time
import traceback
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

STEP_SECONDS_MAX = 120.0  # a step that takes longer hangs
FAILURES_MAX = 10  # a part that fails so often ends
SHOWN_LINES_MAX = 40  # of a failure


class BrokenPromiseError(AssertionError):
    """A sentence of the contract does not hold."""


class HangError(BaseException):
    """A step did not end in its time; no handler of ordinary errors may take it for one."""


class Failure(NamedTuple):
    """What went wrong, and where to find it again.

    Attributes:
        part, seed, step: what `--seed` and `--step` take.
        what: the last lines of the traceback.
    """

    part: str
    seed: int
    step: int
    what: str


class Job:
    """See the module's text.

    Args:
        part: its name.
        seed: of everything random.
        steps: which steps to do; the round that a step lies in is done from its beginning.
    """

    def __init__(self, part: str, seed: int, steps: range) -> None:
        self.part = part
        self.seed = seed
        self.failures: list[Failure] = []
        self.counts: Counter[str] = Counter()
        self.skipped: list[str] = []
        self.started = time.monotonic()
        self._steps = steps
        self._step = steps.start

    def rounds(self, length: int) -> Iterator[range]:
        """The steps in runs of `length`, each to be done on fresh ground; none after too many failures."""
        first = self._steps.start // length * length
        for start in range(first, self._steps.stop, length):
            if len(self.failures) >= FAILURES_MAX:
                return
            yield range(start, min(start + length, self._steps.stop))

    def begin(self, step: int, seconds_max: float = STEP_SECONDS_MAX) -> random.Random:
        """Start a step: its random stream, and the watchdog set anew."""
        self._step = step
        self.counts["steps"] += 1
        signal.setitimer(signal.ITIMER_REAL, seconds_max)
        return random.Random(f"{self.seed}:{self.part}:{step}")

    def skip(self, reason: str) -> None:
        """Take down what cannot be done on this machine, and why."""
        self.skipped.append(reason)

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Take down what goes wrong in a round, a hang too."""
        before = signal.signal(signal.SIGALRM, _bark)
        try:
            yield
        except (Exception, HangError):
            lines = traceback.format_exc().splitlines()[-SHOWN_LINES_MAX:]
            self.failures.append(Failure(self.part, self.seed, self._step, "\n".join(lines)))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def _bark(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise HangError("the step did not end in its time")


def promise(holds: object, text: str) -> None:
    """Raise unless a promise holds.

    Raises:
        BrokenPromiseError: it does not.
    """
    if not holds:
        raise BrokenPromiseError(text)


def until(holds: object, seconds_max: float, text: str) -> None:
    """Wait until a promise holds: a callable that returns what is wrong, empty when nothing is.

    Raises:
        BrokenPromiseError: something is still wrong at the end of the time.
    """
    assert callable(holds)  # a check, asked again and again
    end = time.monotonic() + seconds_max
    while wrong := holds():
        if time.monotonic() > end:
            raise BrokenPromiseError(f"{text}: {wrong}")
        time.sleep(0.05)
