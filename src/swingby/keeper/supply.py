"""Makes chunks present: chooses where each segment goes, fetches what is absent, and says where everything is.

The ladder, in this order: memory, where the segment is admitted; burst; the base directly, where the client can read it; else bytes
handed over in a file without a name. A level that fails costs time, never the read.

Threads: `begin` from any; waiters run in the pools' threads.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from swingby.core.segment import CHUNK_BYTES
from swingby.errors import CorruptDataError, LevelError
from swingby.keeper.flights import STORED, FetchJob, Flights, Outcome, Place
from swingby.keeper.lookups import Lookups

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from swingby.errors import SwingbyError
    from swingby.keeper.bases import OpenBase
    from swingby.keeper.pool import Pool
    from swingby.keeper.wanted import Wanted
    from swingby.levels.level import Level

LOOSE_BYTES_MAX = 256 << 20  # handed over in one answer; larger objects are asked for by range


class Levels(NamedTuple):
    """The holders of this node; None where there is none."""

    memory: Level | None
    burst: Level | None


class Part:
    """One segment of a request, on its way.

    Attributes:
        wanted: the chunks.
        kind: "memory", "burst", "direct", "loose" or "range".
        place: the level's file, held.
        homeless: bytes that found no place, by chunk, with their word.
        errors: by chunk.
        fetched_bytes: read from the base for it.
    """

    def __init__(self, wanted: Wanted, kind: str, place: Place | None, nearer: Place | None) -> None:
        self.wanted = wanted
        self.kind = kind
        self.place = place
        self.nearer = nearer
        self.homeless: dict[int, tuple[Buffer, int]] = {}
        self.errors: dict[int, SwingbyError] = {}

    def plan(self, absent: list[int], base: OpenBase) -> list[FetchJob]:
        """Jobs for absent chunks; those that a nearer place may have go one by one."""
        if self.nearer is None:
            fetches = self.wanted.fetches(absent, base.range_bytes)
            return [FetchJob(fetch, base.base, self.place) for fetch in fetches]
        file = self.nearer.file
        near = [chunk for chunk in absent if file.may_have(chunk)]
        far = [chunk for chunk in absent if not file.may_have(chunk)]
        single = [fetch for chunk in near for fetch in self.wanted.fetches([chunk], CHUNK_BYTES)]
        jobs = [FetchJob(fetch, base.base, self.place, self.nearer) for fetch in single]
        return jobs + [FetchJob(fetch, base.base, self.place) for fetch in self.wanted.fetches(far, base.range_bytes)]

    def record(self, outcome: Outcome, *, takes_bytes: bool) -> None:
        """Keep what became of a job, which may have been for others too."""
        if outcome == STORED:
            return
        ours = set(self.wanted.chunks.tolist())
        self.errors |= {chunk: error for chunk, error in outcome.errors.items() if chunk in ours}
        if takes_bytes:
            self.homeless |= {chunk: found for chunk, found in outcome.homeless.items() if chunk in ours}


class Request:
    """Parts that are waited for together.

    Args:
        parts: of it.
        on_done: called once, when nothing is on its way any more, and before the places are let go.
    """

    def __init__(self, parts: list[Part], on_done: Callable[[Request], None]) -> None:
        self.parts = parts
        self._on_done = on_done
        self._lock = threading.Lock()
        self._pending = 1  # the beginning itself

    def expect(self, count: int) -> None:
        """So many more jobs."""
        with self._lock:
            self._pending += count

    def finish(self, count: int = 1) -> None:
        """So many fewer; the last one ends the request."""
        with self._lock:
            self._pending -= count
            if self._pending:
                return
        try:
            self._on_done(self)
        finally:
            for part in self.parts:
                for place in (part.place, part.nearer):
                    if place:
                        place.level.release(place.file)


class Supply:
    """See the module's text.

    Args:
        levels: where segments go.
        burst_pool: runs copies from the burst level.
        on_filled: told of every segment that a base filled on the memory level.

    Attributes:
        lookups: what readers found on the levels.
    """

    def __init__(self, levels: Levels, burst_pool: Pool, on_filled: Callable[[Part], None]) -> None:
        self.levels = levels
        self.lookups = Lookups()
        self._flights = Flights()
        self._burst_pool = burst_pool
        self._on_filled = on_filled

    def begin(
        self, base: OpenBase, wants: Iterable[Wanted], on_done: Callable[[Request], None], *, urgent: bool
    ) -> Request:
        """Start making chunks present; `on_done` is called when they are, perhaps before this returns.

        Not urgent means ahead of use: what no level admits is left alone.
        """
        request = Request([self._choose(base, wanted) for wanted in wants], on_done)
        asks_burst = self.levels.burst is not None and not base.is_near
        for part in request.parts:
            absent = part.wanted.chunks
            if part.place:
                part.place.level.touch(part.wanted.segment.id)
                absent = part.place.file.absent(absent)
            if urgent:
                self.lookups.count(part, absent, asks_burst=asks_burst)
            if len(absent) and (part.place or (part.kind == "loose" and urgent)):
                self._fetch(base, part, request, urgent=urgent)
        request.finish()
        return request

    def absent(self, wanted: Wanted) -> NDArray[np.intp]:
        """Which of these chunks are on no level."""
        chunks = wanted.chunks
        for level in filter(None, self.levels):
            place = _acquire(level, wanted, create=False) if level.has(wanted.segment.id) else None
            if place:
                chunks = place.file.absent(chunks)
                level.release(place.file)
        return chunks

    def check(self, wants: Iterable[Wanted]) -> None:
        """Read what these chunks are on every level; a segment with a bad one is quarantined."""
        for wanted in wants:
            for level in filter(None, self.levels):
                place = _acquire(level, wanted, create=False) if level.has(wanted.segment.id) else None
                if place is None:
                    continue
                try:
                    for chunk in wanted.chunks.tolist():
                        if place.file.word(chunk):
                            place.file.read(chunk, level.reader)
                except (CorruptDataError, LevelError):
                    level.quarantine(place.file)
                finally:
                    level.release(place.file)

    def _fetch(self, base: OpenBase, part: Part, request: Request, *, urgent: bool) -> None:
        chunks = part.wanted.chunks

        def landed(job: FetchJob, outcome: Outcome) -> None:
            del job
            part.record(outcome, takes_bytes=urgent)  # ahead of use nobody takes bytes that found no place
            request.finish()

        request.expect(len(chunks))
        joined = self._flights.join(part.place, chunks, lambda rest: part.plan(rest, base), landed)
        request.finish(len(chunks) - len(joined.new) - len(joined.joined))
        for pool, is_near in ((self._burst_pool, True), (base.pool, False)):
            jobs = [job for job in joined.new if bool(job.nearer) is is_near]
            if urgent:
                jobs += [job for job in joined.joined if not job.started and bool(job.nearer) is is_near]
            if jobs:
                pool.submit(jobs, urgent=urgent)
        if joined.new and part.kind == "memory" and not base.is_near:
            self._on_filled(part)

    def _choose(self, base: OpenBase, wanted: Wanted) -> Part:
        memory, burst = self.levels
        segment = wanted.segment
        if memory and memory.admits(segment) and (place := _acquire(memory, wanted, create=True)):
            nearer = _acquire(burst, wanted, create=False) if burst and burst.has(segment.id) else None
            return Part(wanted, "memory", place, nearer)
        if burst and (burst.has(segment.id) or (burst.admits(segment) and not base.is_near)):
            place = _acquire(burst, wanted, create=not base.is_near)
            if place:
                return Part(wanted, "burst", place, None)
        if base.base.local:
            return Part(wanted, "direct", None, None)
        return Part(wanted, "loose" if wanted.size_bytes <= LOOSE_BYTES_MAX else "range", None, None)


def _acquire(level: Level, wanted: Wanted, *, create: bool) -> Place | None:
    try:
        file = level.acquire(wanted.segment, create=create)
    except LevelError:
        return None
    return Place(level, file) if file else None
