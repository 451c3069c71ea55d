"""Tries a base again where its error says that this may help."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from swingby.errors import SwingbyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    from swingby.base.contract import Base
    from swingby.core.object import ObjectInfo, Page, Payload

_T = TypeVar("_T")


class RetryLimits(NamedTuple):
    """When to give up.

    Attributes:
        count_max: tries after the first.
        delay_seconds_max: of one pause; pauses double from 50 ms and are drawn at random below that (full jitter, AWS
            Architecture Blog 2015).
        seconds_max: no new try begins later than this after the first.
    """

    count_max: int
    delay_seconds_max: float
    seconds_max: float


class RetryingBase:
    """The same contract, trying retryable failures again.

    Args:
        base: what may fail.
        limits: when to give up.
        sleep, clock, random_unit: passed in for tests.
    """

    def __init__(
        self,
        base: Base,
        limits: RetryLimits,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        random_unit: Callable[[], float] = random.random,
    ) -> None:
        self._base = base
        self._limits = limits
        self._sleep = sleep
        self._clock = clock
        self._random_unit = random_unit
        self.id = base.id
        self.local = base.local

    def list(self, prefix: bytes, after: bytes = b"") -> Iterator[Page]:
        """See `Base.list`. Goes on behind the last key that was listed."""
        last = after
        failures = _Failures(self)
        while True:
            try:
                for page in self._base.list(prefix, last):
                    last = page.keys[-1]
                    failures = _Failures(self)
                    yield page
            except SwingbyError as error:
                failures.add(error)
            else:
                return

    def stat(self, key: bytes) -> ObjectInfo:
        """See `Base.stat`."""
        return self.retried(lambda: self._base.stat(key))

    def read(self, key: bytes, start: int = 0, size: int | None = None, version: bytes | None = None) -> Payload:
        """See `Base.read`."""
        try:
            return self._base.read(key, start, size, version)
        except SwingbyError as error:
            failures = _Failures(self)
            failures.add(error)
            return self.retried(lambda: self._base.read(key, start, size, version), failures)

    def write(self, key: bytes, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        """See `Base.write`. A create-only write is not tried again: the first try may have succeeded."""
        if if_absent:
            return self._base.write(key, data, if_absent=True)
        return self.retried(lambda: self._base.write(key, data))

    def delete(self, key: bytes) -> None:
        """See `Base.delete`."""
        self.retried(lambda: self._base.delete(key))

    def close(self) -> None:
        """See `Base.close`."""
        self._base.close()

    def retried(self, call: Callable[[], _T], failures: _Failures | None = None) -> _T:
        """What a call returns, tried again as all others here.

        Args:
            call: raises errors of `swingby.errors`.
            failures: that there were already.
        """
        failures = failures or _Failures(self)
        while True:
            try:
                return call()
            except SwingbyError as error:
                failures.add(error)

    def pause(self, failure_count: int, started: float) -> bool:
        """Wait before the next try; False when there should be none."""
        delay = min(self._limits.delay_seconds_max, 0.05 * 2**failure_count) * self._random_unit()
        late = self._clock() + delay - started > self._limits.seconds_max
        if failure_count >= self._limits.count_max or late:
            return False
        self._sleep(delay)
        return True

    def now(self) -> float:
        """The clock's time in seconds."""
        return self._clock()


class _Failures:
    """Counts the failures of one call; raises the one that ends it."""

    def __init__(self, base: RetryingBase) -> None:
        self._base = base
        self._started = base.now()
        self._count = 0

    def add(self, error: SwingbyError) -> None:
        if not error.retryable or not self._base.pause(self._count, self._started):
            raise error
        self._count += 1
