"""Counts what is asked of a base: for status, for choosing how many requests to keep in flight, for benchmarks."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

    from swingby.base.contract import Base
    from swingby.core.object import ObjectInfo, Page, Payload

LATENCY_WINDOW_COUNT = 256


class Reading(NamedTuple):
    """What was counted.

    Attributes:
        requests: reads, stats and listing pages, failed ones too.
        bytes: read.
        failures: calls that raised.
        latency_seconds: the lowest of the last reads: what one request takes when nothing is in its way; 0 before the first.
    """

    requests: int
    bytes: int
    failures: int
    latency_seconds: float


class MeteredBase:
    """The same contract, counted."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._lock = threading.Lock()
        self._requests = self._bytes = self._failures = 0
        self._lowest = self._lowest_before = float("inf")
        self._in_window = 0
        self.id = base.id
        self.forkable = base.forkable

    def reading(self) -> Reading:
        """The counts now."""
        lowest = min(self._lowest, self._lowest_before)
        return Reading(self._requests, self._bytes, self._failures, 0.0 if lowest == float("inf") else lowest)

    def list(self, prefix: bytes, after: bytes = b"") -> Iterator[Page]:
        """See `Base.list`."""
        for page in self._base.list(prefix, after):
            self._count(0, None)
            yield page

    def stat(self, key: bytes) -> ObjectInfo:
        """See `Base.stat`."""
        try:
            info = self._base.stat(key)
        except BaseException:
            self._fail()
            raise
        self._count(0, None)
        return info

    def read(self, key: bytes, start: int = 0, size: int | None = None, version: bytes | None = None) -> Payload:
        """See `Base.read`."""
        started = time.perf_counter()
        try:
            payload = self._base.read(key, start, size, version)
        except BaseException:
            self._fail()
            raise
        self._count(len(memoryview(payload.data)), time.perf_counter() - started)
        return payload

    def write(self, key: bytes, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        """See `Base.write`."""
        self._count(0, None)
        return self._base.write(key, data, if_absent=if_absent)

    def delete(self, key: bytes) -> None:
        """See `Base.delete`."""
        self._count(0, None)
        self._base.delete(key)

    def close(self) -> None:
        """See `Base.close`."""
        self._base.close()

    def _count(self, size: int, seconds: float | None) -> None:
        with self._lock:
            self._requests += 1
            self._bytes += size
            if seconds is None:
                return
            self._lowest = min(self._lowest, seconds)
            self._in_window += 1
            if self._in_window == LATENCY_WINDOW_COUNT:
                self._lowest_before, self._lowest, self._in_window = self._lowest, float("inf"), 0

    def _fail(self) -> None:
        with self._lock:
            self._requests += 1
            self._failures += 1
