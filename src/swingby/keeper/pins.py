"""Pins: which segments may not leave their level, how long, and on whose behalf.

A pin lasts as long as the connection that asked for it, or is leased: until a process ends, until a time, whichever is first. What
a lease held is the first to leave when it is over.

Guarantees: of no level more than `PINNED_SHARE_MAX` is pinned. A keeper that ends forgets its pins.
Threads: safe.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from swingby.errors import LevelError
from swingby.keeper.job import Job

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swingby.core.segment import Segment
    from swingby.keeper.protocol import Lease
    from swingby.keeper.supply import Levels
    from swingby.levels.level import Level

PINNED_SHARE_MAX = 0.75  # of a level's budget; the rest is for what else is read
PINS_MAX = 65_536
LEASES_MAX = 1024  # a descriptor each
SHOWN_MAX = 100
NAME_CHARACTERS_MAX = 1024


class Pin:
    """Segments that stay.

    Args:
        name: of what is pinned, for people.
        level: that holds them.
        sizes: of the segments in bytes, by id.
        lease: for how long; None: as long as the connection that asked.
    """

    def __init__(self, name: str, level: Level, sizes: dict[bytes, int], lease: Lease | None) -> None:
        self.name = name[:NAME_CHARACTERS_MAX]
        self.level = level
        self.sizes = sizes
        self.job = Job(lease.process, lease.started) if lease and lease.process else None
        self.is_leased = False
        self.until: float | None = None
        self._lease = lease

    @property
    def is_over(self) -> bool:
        """Whether its time or its process has ended."""
        late = self.until is not None and time.monotonic() >= self.until
        return late or (self.job is not None and self.job.is_over)

    def begin_lease(self) -> None:
        """All is present: the connection may end, and the time begins."""
        if self._lease:
            self.is_leased = True
            self.until = time.monotonic() + self._lease.seconds if self._lease.seconds else None

    def facts(self) -> dict[str, Any]:
        """What `status` shows of it."""
        return {
            "name": self.name,
            "level": self.level.name,
            "bytes": sum(self.sizes.values()),
            "segments": len(self.sizes),
            "process": self.job.process if self.job else None,
            "seconds_left": None if self.until is None else max(0.0, self.until - time.monotonic()),
            "leased": self.is_leased,
        }


class Pins:
    """See the module's text.

    Args:
        levels: whose segments are pinned.
    """

    def __init__(self, levels: Levels) -> None:
        self._levels = levels
        self._lock = threading.Lock()
        self._pins: dict[Pin, None] = {}  # in order
        self._counts: dict[str, Counter[bytes]] = {level.name: Counter() for level in filter(None, levels)}
        self._bytes: Counter[str] = Counter()  # pinned, by level

    def __len__(self) -> int:
        return len(self._pins)

    def add(self, name: str, segments: Iterable[Segment], lease: Lease | None, *, is_near: bool) -> Pin:
        """Pin segments, present or not, on the memory level, or on the burst level where that one has no room for them.

        Args:
            name: for people.
            segments: which.
            lease: see `Pin`.
            is_near: whether the base is as near as the burst level, which then never has them.

        Raises:
            LevelError: more than the share would be pinned; or there is no such process.
        """
        sizes = {segment.id: segment.size_bytes for segment in segments}
        with self._lock:
            leases = sum(pin.job is not None for pin in self._pins) if lease else 0
            if len(self._pins) >= PINS_MAX or leases >= LEASES_MAX:
                raise LevelError(f"there are {len(self._pins)} pins already", remedy="End some with `swingby evict`")
            memory, burst = self._levels
            for level in (memory, None if is_near else burst):
                if level and self._has_room(level, sizes):
                    pin = Pin(name, level, sizes, lease)
                    self._bytes[level.name] += self._more(level, sizes)
                    self._counts[level.name].update(sizes.keys())
                    self._pins[pin] = None
                    for identity in sizes:
                        level.pin(identity)
                    return pin
            raise self._refusal(name, sum(sizes.values()))

    def end(self, pin: Pin) -> None:
        """Let its segments leave; once."""
        with self._lock:
            if pin not in self._pins:
                return
            del self._pins[pin]
            counts = self._counts[pin.level.name]
            for identity, size in pin.sizes.items():
                counts[identity] -= 1
                if not counts[identity]:
                    del counts[identity]
                    self._bytes[pin.level.name] -= size
        for identity in pin.sizes:
            pin.level.unpin(identity, leaves_first=pin.is_leased)
        if pin.job:
            pin.job.close()

    def expire(self) -> None:
        """End those whose time or process is over; called now and then."""
        with self._lock:
            found = [pin for pin in self._pins if pin.is_over]
        for pin in found:
            self.end(pin)

    def end_leased(self, identities: set[bytes] | None) -> int:
        """End the leased ones that hold any of these segments, or all; how many."""
        with self._lock:
            found = [pin for pin in self._pins if pin.is_leased and _meets(pin, identities)]
        for pin in found:
            self.end(pin)
        return len(found)

    def facts(self) -> list[dict[str, Any]]:
        """What `status` shows, the first of them."""
        with self._lock:
            return [pin.facts() for pin in itertools.islice(self._pins, SHOWN_MAX)]

    def bytes_on(self, level: Level) -> int:
        """Bytes pinned on a level: of whole segments."""
        return self._bytes[level.name]

    def _has_room(self, level: Level, sizes: dict[bytes, int]) -> bool:
        most = PINNED_SHARE_MAX * level.options.budget_bytes
        is_admitted = max(sizes.values(), default=0) <= level.options.budget_bytes // 2
        return is_admitted and self._bytes[level.name] + self._more(level, sizes) <= most

    def _more(self, level: Level, sizes: dict[bytes, int]) -> int:
        """Bytes of these that are not yet pinned on a level."""
        counts = self._counts[level.name]
        return sum(size for identity, size in sizes.items() if identity not in counts)

    def _refusal(self, name: str, size: int) -> LevelError:
        there = [
            f"of {_megabytes(level.options.budget_bytes)} of the {level.name} level at most {PINNED_SHARE_MAX:.0%} may be, "
            f"and {_megabytes(self._bytes[level.name])} are"
            for level in filter(None, self._levels)
        ]
        why = "; ".join(there) or "there is no level"
        return LevelError(
            f"{name[:NAME_CHARACTERS_MAX]} cannot be pinned: its segments have {_megabytes(size)}; {why}",
            remedy="Pin a part (--include, or a folder of it), raise memory.budget_bytes or burst.budget_bytes, or warm "
            "without a pin",
        )


def _meets(pin: Pin, identities: set[bytes] | None) -> bool:
    return identities is None or not identities.isdisjoint(pin.sizes)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
