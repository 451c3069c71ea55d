"""A base that stands far away, and a record of what was asked of it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from swingby.base.contract import Base
    from swingby.core.object import ObjectInfo, Page, Payload


class Asked(NamedTuple):
    """What was asked of the base in a span of time.

    Attributes:
        requests: reads.
        bytes: read.
    """

    requests: int
    bytes: int


class Record:
    """Reads of a base: when each set out, arrived and ended, and its bytes. Threads: safe.

    Attributes:
        listing_seconds: that whoever listed waited for the base.
    """

    def __init__(self) -> None:
        self.listing_seconds = 0.0
        self._lock = threading.Lock()
        self._reads: list[tuple[float, float, float, int]] = []

    def add(self, started: float, arrived: float, ended: float, size: int) -> None:
        """One read; times of `time.perf_counter`."""
        with self._lock:
            self._reads.append((started, arrived, ended, size))

    def asked(self, since: float) -> Asked:
        """What was asked from a moment on."""
        with self._lock:
            sizes = [size for started, *_, size in self._reads if started >= since]
        return Asked(len(sizes), sum(sizes))

    def waited(self, waits: NDArray[np.float64], since: float) -> tuple[float, float]:
        """Seconds of some waiting in which a request was on its way, and in which the base worked on one and none was.

        Args:
            waits: float64[n, 2], ascending, apart from each other.
            since: reads that ended before do not matter.
        """
        with self._lock:
            times = np.array([one[:3] for one in self._reads if one[2] >= since], np.float64).reshape(-1, 3)
        travelling = overlap_seconds(waits, union(times[:, :2]))
        return travelling, overlap_seconds(waits, union(times[:, ::2])) - travelling


class FarBase:
    """The same contract, with a wait before every request, and a record of what was asked.

    A base that waits is no longer local: nobody reads it but the keeper, as with storage that is far away.

    Args:
        base: the real one.
        latency_seconds: of every request; 0: only the record.
        record: to write in.
    """

    def __init__(self, base: Base, latency_seconds: float, record: Record) -> None:
        self.id = base.id
        self.local = base.local and not latency_seconds
        self._base = base
        self._latency_seconds = latency_seconds
        self._record = record

    def list(self, prefix: bytes, after: bytes = b"") -> Iterator[Page]:
        """See `Base.list`."""
        started = time.perf_counter()
        self._travel()
        for page in self._base.list(prefix, after):
            self._record.listing_seconds += time.perf_counter() - started
            yield page
            started = time.perf_counter()
        self._record.listing_seconds += time.perf_counter() - started

    def stat(self, key: bytes) -> ObjectInfo:
        """See `Base.stat`."""
        self._travel()
        return self._base.stat(key)

    def read(self, key: bytes, start: int = 0, size: int | None = None, version: bytes | None = None) -> Payload:
        """See `Base.read`."""
        started = time.perf_counter()
        self._travel()
        arrived = time.perf_counter() if self._latency_seconds else started
        payload = self._base.read(key, start, size, version)
        self._record.add(started, arrived, time.perf_counter(), len(memoryview(payload.data)))
        return payload

    def write(self, key: bytes, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        """See `Base.write`."""
        self._travel()
        return self._base.write(key, data, if_absent=if_absent)

    def delete(self, key: bytes) -> None:
        """See `Base.delete`."""
        self._travel()
        self._base.delete(key)

    def close(self) -> None:
        """See `Base.close`."""
        self._base.close()

    def _travel(self) -> None:
        if self._latency_seconds:
            time.sleep(self._latency_seconds)


def union(spans: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spans that overlap, joined: float64[n, 2], ascending."""
    if not len(spans):
        return spans
    spans = spans[np.argsort(spans[:, 0])]
    ends = np.maximum.accumulate(spans[:, 1])
    is_first = np.r_[True, spans[1:, 0] > ends[:-1]]
    is_last = np.r_[is_first[1:], True]
    return np.column_stack((spans[is_first, 0], ends[is_last]))


def overlap_seconds(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """How long both of two unions of spans last at once."""
    total, place = 0.0, 0
    for start, end in first.tolist():
        while place < len(second) and second[place, 1] <= start:
            place += 1
        at = place
        while at < len(second) and second[at, 0] < end:
            total += min(end, second[at, 1]) - max(start, second[at, 0])
            at += 1
    return float(total)
