"""Counts what is asked of a base: for status, for choosing how many requests to keep in flight, for benchmarks."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

    from swingby.base.contract import Base
    from swingby.core.object import ObjectInfo, Page, Payload

ALONE_INFLIGHT_MAX = 2  # a read that starts beside so few others tells the latency; in a crowd it would tell the queue
LATENCY_COUNT = 16


class Reading(NamedTuple):
    """What was counted.

    Attributes:
        requests: reads, stats and listing pages, failed ones too.
        bytes: read.
        failures: calls that raised.
        latency_seconds: the lowest of the last reads that were almost alone; 0 before the first.
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
        self._inflight = 0
        self._latencies: deque[float] = deque(maxlen=LATENCY_COUNT)
        self.latency_seconds = 0.0
        self.id = base.id
        self.local = base.local

    def reading(self) -> Reading:
        """The counts now."""
        return Reading(self._requests, self._bytes, self._failures, self.latency_seconds)

    def list(self, prefix: bytes, after: bytes = b"") -> Iterator[Page]:
        """See `Base.list`."""
        for page in self._base.list(prefix, after):
            self._count()
            yield page

    def stat(self, key: bytes) -> ObjectInfo:
        """See `Base.stat`."""
        try:
            info = self._base.stat(key)
        except BaseException:
            self._fail()
            raise
        self._count()
        return info

    def read(self, key: bytes, start: int = 0, size: int | None = None, version: bytes | None = None) -> Payload:
        """See `Base.read`."""
        with self._lock:
            self._inflight += 1
            is_alone = self._inflight <= ALONE_INFLIGHT_MAX
        started = time.perf_counter() if is_alone else 0.0
        try:
            payload = self._base.read(key, start, size, version)
        except BaseException:
            with self._lock:
                self._inflight -= 1
            self._fail()
            raise
        with self._lock:
            self._inflight -= 1
            self._requests += 1
            self._bytes += len(memoryview(payload.data))
        if is_alone:
            self._latencies.append(time.perf_counter() - started)
            self.latency_seconds = min(self._latencies)
        return payload

    def write(self, key: bytes, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        """See `Base.write`."""
        self._count()
        return self._base.write(key, data, if_absent=if_absent)

    def delete(self, key: bytes) -> None:
        """See `Base.delete`."""
        self._count()
        self._base.delete(key)

    def close(self) -> None:
        """See `Base.close`."""
        self._base.close()

    def _count(self) -> None:
        with self._lock:
            self._requests += 1

    def _fail(self) -> None:
        with self._lock:
            self._requests += 1
            self._failures += 1
