"""The bases in use: each with its stack, its pool of threads and what is known of its distance."""

from __future__ import annotations

import statistics
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from swingby.core.checksum import name_digest
from swingby.keeper.pool import Pool
from swingby.levels.room import usable_memory_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swingby.base.contract import Base
    from swingby.base.meter import MeteredBase
    from swingby.config import Fetch
    from swingby.keeper.protocol import Location
    from swingby.levels.block_reader import BlockReader

REQUESTS_A_SECOND = (
    8000  # what one core can fetch of small objects; with the latency it gives how many to keep in flight
)
NEAR_COUNT = 4  # in flight of a base as near as the levels: more threads only wait for each other
UNMEASURED_COUNT = 2  # in flight until the first answers have told the latency
NEAR_FACTOR = 2.0  # a base within so many times of the burst level's latency is not cached there
INFLIGHT_SHARE = 1 / 16  # of the memory this process may use, at most
PROBE_FILES = 8
PROBE_BYTES = 64 << 10


class OpenBase:
    """A base that is open.

    Attributes:
        base: the stack: metered, with retries.
        meter: the lowest wrapper, that counts.
        pool: runs its fetches.
        range_bytes: of large objects, a request.
        is_near: whether reading it is about as quick as reading the burst level; measured at the first use of a file base.
    """

    def __init__(self, base: Base, meter: MeteredBase, limits: Fetch) -> None:
        self.base = base
        self.meter = meter
        self.range_bytes = limits.range_bytes
        self.is_near = base.local
        self.is_measured = not base.local
        self.distance_seconds: float | None = None

        def limit() -> int:
            if self.is_near:
                return NEAR_COUNT
            latency = meter.latency_seconds
            if not latency:
                return UNMEASURED_COUNT
            return max(limits.inflight_count_min, min(limits.inflight_count_max, int(latency * REQUESTS_A_SECOND)))

        inflight_bytes_max = min(limits.inflight_bytes_max, int(usable_memory_bytes() * INFLIGHT_SHARE))
        self.pool = Pool("swingby-fetch", limit, inflight_bytes_max)

    def measure(self, reader: BlockReader, paths: Sequence[str], burst_seconds: float) -> None:
        """Time reads of some of its files past the page cache, against the burst level's time."""
        self.is_measured = True
        self.distance_seconds = read_seconds(reader, paths)
        self.is_near = self.distance_seconds is None or self.distance_seconds <= NEAR_FACTOR * burst_seconds


class Bases:
    """Opens bases once for each set of credentials.

    Args:
        make: from a location to the stack and its meter.
        limits: of fetching.
    """

    def __init__(self, make: Callable[[Location], tuple[Base, MeteredBase]], limits: Fetch) -> None:
        self._make = make
        self._limits = limits
        self._lock = threading.Lock()
        self._open: dict[bytes, OpenBase] = {}

    def get(self, location: Location) -> OpenBase:
        """The base of a location.

        Raises:
            SwingbyError: it cannot be made: unknown scheme, no credentials.
        """
        credentials = msgspec.msgpack.encode((location.s3, location.az, location.gs))
        identity = name_digest(location.scheme.encode(), location.container.encode(), credentials)
        with self._lock:
            found = self._open.get(identity)
            if found is None:
                base, meter = self._make(location)
                found = self._open[identity] = OpenBase(base, meter, self._limits)
            return found

    def all(self) -> list[OpenBase]:
        """Every open base."""
        with self._lock:
            return list(self._open.values())

    def close(self) -> None:
        """Close all."""
        for one in self.all():
            one.pool.close()
            one.base.close()


def read_seconds(reader: BlockReader, paths: Sequence[str]) -> float | None:
    """Median time to read up to 64 KiB of each file; None where none can be read."""
    times = []
    for path in paths[:PROBE_FILES]:
        started = time.perf_counter()
        try:
            reader.read(path, 0, 1)
        except OSError:
            continue
        times.append(time.perf_counter() - started)
    return statistics.median(times) if times else None
