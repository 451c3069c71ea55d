"""Makes chunks present: chooses where each segment goes, fetches what is absent, and says where everything is.

The ladder, in this order: memory, where the segment is admitted; burst; the base directly, where the client can read it; else bytes
handed over in a file without a name. A level that fails costs time, never the read.

Threads: `begin` from any; waiters run in the pools' threads.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from swingby.core.segment import CHUNK_BYTES
from swingby.errors import CorruptDataError, LevelError
from swingby.keeper.flights import Flights
from swingby.keeper.jobs import STORED, FetchJob, FilesJob, Outcome, Place, Target
from swingby.keeper.lookups import Lookups
from swingby.keeper.stash import Kept, Stash

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from swingby.core.plan import Fetch
    from swingby.errors import SwingbyError
    from swingby.keeper.bases import OpenBase
    from swingby.keeper.pool import Pool
    from swingby.keeper.wanted import Wanted
    from swingby.levels.level import Level

FILES_TOGETHER = 64  # of a near base, read by one job
FILES_BYTES_MAX = 1 << 20
STASH_BYTES_MIN = 4 << 20
STASH_PART = 32  # of the memory level's budget: one part
LOOSE_BYTES_MAX = 256 << 20  # handed over in one answer; larger objects are asked for by range


Keep = Callable[[bytes, "dict[int, Kept]"], None]


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
        nearer: the slower level's file, where it has one; held.
        below: the slower level, for what the place refuses.
        homeless: bytes that found no place, by chunk, with their word.
        errors: by chunk.
        fetched_bytes: read from the base for it.
    """

    def __init__(self, wanted: Wanted, kind: str, target: Target, nearer: Place | None = None) -> None:
        self.wanted = wanted
        self.kind = kind
        self.place, self.below = target
        self.nearer = nearer
        self.homeless: dict[int, Kept] = {}
        self.errors: dict[int, SwingbyError] = {}

    def plan(self, absent: list[int], base: OpenBase, *, together: bool) -> list[FetchJob]:
        """Jobs for absent chunks; those that a nearer place may have go one by one, files near by some together."""
        target = Target(self.place, self.below)
        if self.nearer is None:
            fetches = self.wanted.fetches(absent, base.range_bytes)
            if together and base.is_near and self.wanted.segment.packed and fetches and not fetches[0].pieces:
                return [FilesJob(group, base.base, target) for group in _groups(fetches)]
            return [FetchJob(fetch, base.base, target) for fetch in fetches]
        file = self.nearer.file
        near = [chunk for chunk in absent if file.may_have(chunk)]
        far = [chunk for chunk in absent if not file.may_have(chunk)]
        single = [fetch for chunk in near for fetch in self.wanted.fetches([chunk], CHUNK_BYTES)]
        jobs = [FetchJob(fetch, base.base, target, self.nearer) for fetch in single]
        return jobs + [FetchJob(fetch, base.base, target) for fetch in self.wanted.fetches(far, base.range_bytes)]

    def record(self, outcome: Outcome, *, takes_bytes: bool) -> None:
        """Keep what became of a job, which may have been for others too."""
        if outcome == STORED:
            return
        ours = set(self.wanted.chunks.tolist())
        self.errors |= {chunk: error for chunk, error in outcome.errors.items() if chunk in ours}
        if takes_bytes:
            self.homeless |= {chunk: kept for chunk, kept in outcome.homeless.items() if chunk in ours}


class Request:
    """Parts that are waited for together.

    Args:
        parts: of it.
        on_done: called once, when nothing is on its way any more, and before the places are let go.

    Attributes:
        base_seconds: from its beginning until the last fetch from a base had landed; 0 where there was none.
        base_bytes: so fetched.
    """

    def __init__(self, parts: list[Part], on_done: Callable[[Request], None]) -> None:
        self.parts = parts
        self._on_done = on_done
        self._lock = threading.Lock()
        self._pending = 1  # the beginning itself
        self._began = time.perf_counter()
        self.base_seconds = 0.0
        self.base_bytes = 0

    def note_base(self, size: int) -> None:
        """A fetch from the base has landed."""
        with self._lock:
            self.base_seconds = time.perf_counter() - self._began
            self.base_bytes += size

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
        stash: what was fetched ahead and no level admitted.
    """

    def __init__(self, levels: Levels, burst_pool: Pool, on_filled: Callable[[Part], None]) -> None:
        self.levels = levels
        self.lookups = Lookups()
        self.stash = Stash(stash_bytes(levels.memory))
        self._flights = Flights()
        self._burst_pool = burst_pool
        self._on_filled = on_filled

    def begin(
        self,
        base: OpenBase,
        wants: Iterable[Wanted],
        on_done: Callable[[Request], None],
        *,
        urgent: bool,
        keep: Keep | None = None,
    ) -> Request:
        """Start making chunks present; `on_done` is called when they are, perhaps before this returns.

        Not urgent means ahead of use: what no level admits is given to `keep` as (segment id, chunks), or left alone.
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
                self._fetch(base, part, absent, (request, None if urgent else keep or _leave))
        request.finish()
        return request

    def look(self, base: OpenBase, wants: Iterable[Wanted], on_done: Callable[[Request], None]) -> None:
        """Say where chunks belong, and what of them is there."""
        Request([self._choose(base, wanted) for wanted in wants], on_done).finish()

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

    def _fetch(self, base: OpenBase, part: Part, chunks: NDArray[np.intp], asked: tuple[Request, Keep | None]) -> None:
        request, keep = asked

        def landed(job: FetchJob, outcome: Outcome) -> None:
            if not job.nearer:
                request.note_base(job.fetch.size)
            part.record(outcome, takes_bytes=keep is None)
            if keep is None and outcome.homeless and part.place:
                self.stash.note_served(part.wanted.segment.id, outcome.homeless)
            request.finish()

        request.expect(len(chunks))
        joined = self._flights.join(part.place, chunks, lambda rest: self._jobs(base, part, rest, keep), landed)
        request.finish(len(chunks) - len(joined.new) - len(joined.joined))
        for pool, is_near in ((self._burst_pool, True), (base.pool, False)):
            jobs = [job for job in joined.new if bool(job.nearer) is is_near]
            if keep is None:
                for job in joined.joined:
                    job.taken.update(chunks.tolist())
                jobs += [job for job in joined.joined if not job.started and bool(job.nearer) is is_near]
            if jobs:
                pool.submit(jobs, urgent=keep is None)
        if joined.new and part.kind == "memory" and not base.is_near:
            self._on_filled(part)

    def _jobs(self, base: OpenBase, part: Part, absent: list[int], keep: Keep | None) -> list[FetchJob]:
        """Jobs for chunks that nobody fetches; a reader takes what is in the stash."""
        identity = part.wanted.segment.id
        if keep:
            jobs = part.plan(self.stash.unserved(identity, absent), base, together=True)
            for job in jobs:
                job.keep = functools.partial(keep, identity)
            return jobs
        kept = self.stash.take(identity, absent)
        part.homeless |= kept
        return part.plan([chunk for chunk in absent if chunk not in kept], base, together=False)

    def _choose(self, base: OpenBase, wanted: Wanted) -> Part:
        memory, burst = self.levels
        segment = wanted.segment
        if memory and memory.admits(segment) and (place := _acquire(memory, wanted, create=True)):
            nearer = _acquire(burst, wanted, create=False) if burst and burst.has(segment.id) else None
            below = burst if burst and burst.admits(segment) and not base.is_near else None
            return Part(wanted, "memory", Target(place, below), nearer)
        if burst and (burst.has(segment.id) or (burst.admits(segment) and not base.is_near)):
            place = _acquire(burst, wanted, create=not base.is_near)
            if place:
                return Part(wanted, "burst", Target(place))
        if base.base.local:
            return Part(wanted, "direct", Target(None))
        return Part(wanted, "loose" if wanted.size_bytes <= LOOSE_BYTES_MAX else "range", Target(None))


def stash_bytes(memory: Level | None) -> int:
    """How much may be held that was fetched ahead and not admitted."""
    if memory is None:
        return 0
    budget = memory.options.budget_bytes
    return min(budget // 4, max(STASH_BYTES_MIN, budget // STASH_PART))


def _groups(fetches: list[Fetch]) -> Iterator[list[Fetch]]:
    group: list[Fetch] = []
    size = 0
    for fetch in fetches:
        if group and (len(group) == FILES_TOGETHER or size + fetch.size > FILES_BYTES_MAX):
            yield group
            group, size = [], 0
        group.append(fetch)
        size += fetch.size
    if group:
        yield group


def _leave(segment: bytes, chunks: dict[int, Kept]) -> None:
    """Nobody keeps what was fetched ahead and not admitted."""
    del segment, chunks


def _acquire(level: Level, wanted: Wanted, *, create: bool) -> Place | None:
    try:
        file = level.acquire(wanted.segment, create=create)
    except LevelError:
        return None
    return Place(level, file) if file else None
