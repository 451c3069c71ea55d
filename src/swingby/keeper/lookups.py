"""Counts, by level, how often what readers asked for was there: the hit rates of `status`.

Threads: safe.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from swingby.keeper.supply import Part


class Looked(NamedTuple):
    """Objects that readers asked the keeper for.

    Attributes:
        memory_misses: not on the memory level when asked for; what was there is read without asking.
        burst_hits, burst_misses: of those, found and not found on the burst level.
    """

    memory_misses: int
    burst_hits: int
    burst_misses: int


class Lookups:
    """See the module's text. Where there is no burst level, or none for a near base, its counts stay as they are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Looked(0, 0, 0)

    def reading(self) -> Looked:
        """The counts now."""
        return self._counts

    def count(self, part: Part, absent: NDArray[np.intp], *, asks_burst: bool) -> None:
        """One segment's part of a reader's request.

        Args:
            part: of it.
            absent: which of its chunks are not on the level it was placed on.
            asks_burst: whether the burst level is a place for this segment.
        """
        packed = part.wanted.segment.packed
        every = len(part.wanted.chunks) if packed else 1
        missed = len(absent) if packed else min(1, len(absent))
        misses, hits = missed, 0
        if part.kind == "burst":
            misses, hits = every, every - missed
        elif part.nearer:
            hits = sum(map(part.nearer.file.may_have, absent.tolist())) if packed else missed
        with self._lock:
            before = self._counts
            lost = misses - hits if asks_burst else 0
            self._counts = Looked(before[0] + misses, before[1] + hits, before[2] + lost)
