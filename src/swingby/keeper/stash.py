"""Bytes fetched ahead of use that no level admitted, until they are asked for.

Each belongs to the plan it was fetched for and to the mark in it at which it is consumed; it goes when it is taken, when its plan
has passed the mark, or when the plan ends. Threads: safe.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Buffer


SERVED_MAX = 1 << 16
SERVED_SECONDS = 5.0


class Kept(NamedTuple):
    """A chunk's bytes and their checksum."""

    data: Buffer
    word: int
    size: int


Key = tuple[bytes, int]  # segment id, chunk


class Stash:
    """See the module's text.

    Args:
        bytes_max: held at once.

    Attributes:
        used_bytes: held now.
        dropped_bytes: that were fetched and never asked for, or found no room here.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.used_bytes = self.dropped_bytes = 0
        self.on_room: Callable[[], None] = lambda: None  # called when something was taken
        self._lock = threading.Lock()
        self._kept: dict[Key, Kept] = {}
        self._owned: dict[int, deque[tuple[int, Key, Kept]]] = {}
        self._served: OrderedDict[Key, float] = OrderedDict()  # handed over without having been here, and when

    def put(self, owner: int, mark: int, chunks: Iterable[tuple[Key, Kept]]) -> None:
        """Hold chunks for a plan until its mark; what finds no room is dropped."""
        with self._lock:
            owned = self._owned.setdefault(owner, deque())
            for key, kept in chunks:
                if key in self._kept or self.used_bytes + kept.size > self.bytes_max:
                    self.dropped_bytes += kept.size
                    continue
                self._kept[key] = kept
                self.used_bytes += kept.size
                owned.append((mark, key, kept))

    def take(self, segment: bytes, chunks: Iterable[int]) -> dict[int, Kept]:
        """Those of these chunks that are held; they are the caller's now."""
        if not self._kept:
            return {}
        with self._lock:
            found = {chunk: kept for chunk in chunks if (kept := self._kept.pop((segment, chunk), None))}
            self.used_bytes -= sum(kept.size for kept in found.values())
        if found:
            self.on_room()
        return found

    def note_served(self, segment: bytes, chunks: Iterable[int]) -> None:
        """A reader was ahead of its plan, and was handed these."""
        now = time.monotonic()
        with self._lock:
            self._served |= {(segment, chunk): now for chunk in chunks}
            while len(self._served) > SERVED_MAX:
                self._served.popitem(last=False)

    def unserved(self, segment: bytes, chunks: list[int]) -> list[int]:
        """Those of these chunks that are worth fetching ahead: no reader has just been handed them."""
        if not self._served:
            return chunks
        after = time.monotonic() - SERVED_SECONDS
        with self._lock:
            return [chunk for chunk in chunks if self._served.pop((segment, chunk), 0.0) < after]

    def pass_by(self, owner: int, mark: int) -> None:
        """A plan has come to a mark: what was held until then goes."""
        with self._lock:
            owned = self._owned.get(owner)
            while owned and owned[0][0] <= mark:
                self._drop(*owned.popleft()[1:])

    def drop(self, owner: int) -> None:
        """A plan is over: all that was held for it goes."""
        with self._lock:
            for _, key, kept in self._owned.pop(owner, ()):
                self._drop(key, kept)

    def _drop(self, key: Key, kept: Kept) -> None:
        if self._kept.get(key) is kept:
            del self._kept[key]
            self.used_bytes -= kept.size
            self.dropped_bytes += kept.size
