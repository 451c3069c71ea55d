"""Jobs of the keeper: each reads one or several things from a base, stores them, and then tells everybody who waits.

What could not be stored is handed to the waiters as bytes, so that a full level never fails a read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from swingby.core.checksum import word_of
from swingby.core.containers.location import sample_in
from swingby.core.object import key_text
from swingby.core.plan import Fetch, chunk_numbers, chunk_sizes, memory_bytes, without
from swingby.core.segment import ALIGNMENT_BYTES, CHUNK_BYTES
from swingby.errors import CorruptDataError, KeeperError, LevelError, SwingbyError
from swingby.keeper.stash import Kept
from swingby.levels.segment_file import Run

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from swingby.base.contract import Base
    from swingby.levels.level import Level
    from swingby.levels.segment_file import SegmentFile


NEIGHBOURS_MAX = 256  # stored by one call, which takes 1024 pieces; gaps count


class Place(NamedTuple):
    """A held segment on a level."""

    level: Level
    file: SegmentFile


class Outcome(NamedTuple):
    """How a job ended.

    Attributes:
        errors: by chunk.
        homeless: bytes that could not be stored in their place, by chunk.
        below: those of them that a slower level took.
    """

    errors: dict[int, SwingbyError]
    homeless: dict[int, Kept]
    below: set[int]


class Target(NamedTuple):
    """Where fetched chunks go.

    Attributes:
        place: the level's file; None: to the waiters only.
        below: a slower level for what the place refuses.
    """

    place: Place | None
    below: Level | None = None


STORED = Outcome({}, {}, set())

Waiter = Callable[["FetchJob", Outcome], None]


class FetchJob:
    """Fetches one run of chunks.

    Args:
        fetch: what to read.
        base: where from.
        target: where to.
        nearer: a place that may have the chunk already, tried first.

    Attributes:
        taken: chunks that a reader waits for.
        keep: given the other chunks that found no place, before the job leaves the table; None: nobody keeps them.
    """

    __slots__ = (
        "_base",
        "_below",
        "_land",
        "fetch",
        "keep",
        "nearer",
        "size",
        "started",
        "taken",
        "target",
        "waiters",
    )

    def __init__(self, fetch: Fetch, base: Base, target: Target, nearer: Place | None = None) -> None:
        self.fetch = fetch
        self.size = memory_bytes(fetch)
        self.started = False
        self.target, self._below = target
        self.nearer = nearer
        self.taken: set[int] = set()
        self.keep: Callable[[dict[int, Kept]], None] | None = None
        self.waiters: list[Waiter] = []
        self._base = base
        self._land: Waiter | None = None

    def attach(self, land: Waiter) -> None:
        """Belong to a table, which is told when the job is over."""
        self._land = land

    def run(self) -> None:
        """Fetch, store, tell."""
        assert self._land is not None  # it was made by a plan of `Flights.join`
        try:
            outcome = STORED if self._is_there() else self._promote() or self._fetch()
        except BaseException as error:
            ours = error if isinstance(error, SwingbyError) else KeeperError(f"the keeper failed: {error!r}")
            outcome = Outcome(dict.fromkeys(self.chunks(), ours), {}, set())
        if self.keep and outcome.homeless:
            elsewhere = outcome.below | self.taken
            self.keep({chunk: kept for chunk, kept in outcome.homeless.items() if chunk not in elsewhere})
        self._land(self, outcome)

    def _fetch(self) -> Outcome:
        fetch = self.fetch
        if not fetch.pieces:
            data = read(self._base, fetch)
            view, at, words = memoryview(data).cast("B"), 0, []
            for size in chunk_sizes(fetch):
                words.append(word_of(view[at : at + size]))
                at += size
            return self._store(Run(fetch.chunk, fetch.offset, data, words))
        if fetch.segment.packed:
            file = self.target.file if self.target else None
            present = [chunk for chunk in self.chunks() if file and file.word(chunk)]
            outcome = Outcome({}, {}, set())
            for rest in without(fetch, present, range_bytes=fetch.size):
                self._scatter(rest, outcome)
            return outcome
        return self._unpack(fetch)

    def _scatter(self, fetch: Fetch, outcome: Outcome) -> None:
        """Samples that were read together, each to its place; a bad one is no reason for the others to fail."""
        view = memoryview(read(self._base, fetch)).cast("B")
        runs = []
        for piece in fetch.pieces:
            at = piece.start - fetch.start
            try:
                data = sample_in(view[at : at + piece.stored_bytes], piece.coded, (fetch.key, piece.start))
            except CorruptDataError as error:
                outcome.errors[piece.chunk] = error
                continue
            runs.append(Run(piece.chunk, piece.offset, data, (word_of(data),)))
        self._store_all(runs, outcome)

    def _store_all(self, runs: list[Run], outcome: Outcome) -> None:
        for group in neighbours(runs):
            if self._store_together(group):
                continue
            for run in group:
                stored = self._store(run)
                copies = {chunk: kept._replace(data=bytes(kept.data)) for chunk, kept in stored.homeless.items()}
                _add(outcome, stored._replace(homeless=copies))  # a view would hold all that was read

    def _store_together(self, runs: list[Run]) -> bool:
        """Store neighbours by one call; where that does not go, it may one by one."""
        if self.target is None or len(runs) == 1:
            return False
        try:
            self.target.level.fill(self.target.file, *runs)
        except LevelError:
            return False
        return True

    def _unpack(self, fetch: Fetch) -> Outcome:
        """A large sample that is compressed as a whole; of its chunks those that are absent."""
        data = sample_in(read(self._base, fetch), fetch.pieces[0].coded, (fetch.key, fetch.start))
        outcome = Outcome({}, {}, set())
        for piece in fetch.pieces:
            if not (self.target and self.target.file.word(piece.chunk)):
                part = data[piece.offset : piece.offset + CHUNK_BYTES]
                _add(outcome, self._store(Run(piece.chunk, piece.offset, part, (word_of(part),))))
        return outcome

    def _store(self, run: Run) -> Outcome:
        if self.target is not None:
            try:
                self.target.level.fill(self.target.file, run)
            except LevelError:
                pass
            else:
                return STORED
        homeless: dict[int, Kept] = {}
        if len(run.words) == 1:
            homeless[run.chunk] = Kept(run.data, run.words[0], len(memoryview(run.data)))
        else:
            view, at = memoryview(run.data).cast("B"), 0
            for chunk, size, word in zip(self.chunks(), chunk_sizes(self.fetch), run.words, strict=True):
                homeless[chunk] = Kept(view[at : at + size], word, size)
                at += size
        return Outcome({}, homeless, set(homeless) if self._store_below(run, list(homeless)) else set())

    def _store_below(self, run: Run, chunks: list[int]) -> bool:
        if self._below is None:
            return False
        try:
            with self._below.holding(self.fetch.segment, create=True) as file:
                assert file is not None  # it was to be created
                if not all(map(file.word, chunks)):
                    self._below.fill(file, run)
        except LevelError:
            return False
        return True

    def chunks(self) -> list[int]:
        """Numbers of the chunks it fills, ascending."""
        return chunk_numbers(self.fetch)

    def _is_there(self) -> bool:
        """Whether an earlier boot or keeper left the chunks."""
        if self.target is None:
            return False
        file = self.target.file
        if file.has_candidates:
            self.target.level.confirm(file, self.chunks())
        return all(map(file.word, self.chunks()))  # now, or by another job that went on to these

    def _promote(self) -> Outcome | None:
        """Copy the chunk from a slower level, if that has it; a bad one is quarantined and fetched from the base."""
        nearer, chunk = self.nearer, self.fetch.chunk
        if nearer is None:
            return None
        nearer.level.confirm(nearer.file, [chunk])
        word = nearer.file.word(chunk)
        if not word:
            return None
        try:
            data = nearer.file.read(chunk, nearer.level.reader)
        except CorruptDataError:
            nearer.level.quarantine(nearer.file)
            return None
        except LevelError:
            return None
        outcome = self._store(Run(chunk, self.fetch.offset, data, [word]))
        if not outcome.homeless:
            return outcome
        copy = Kept(bytes(data), word, len(data))  # the reader's buffer is used again
        return Outcome({}, {chunk: copy}, {chunk})


def neighbours(runs: list[Run]) -> list[list[Run]]:
    """Runs of one chunk of a pack, grouped where each begins where the one before is aligned to end."""
    groups: list[list[Run]] = []
    stop = last = -1
    for run in sorted(runs, key=lambda run: run.chunk):
        follows = run.chunk == last + 1 and 0 <= run.offset - stop < ALIGNMENT_BYTES
        if groups and follows and len(groups[-1]) < NEIGHBOURS_MAX:
            groups[-1].append(run)
        else:
            groups.append([run])
        last, stop = run.chunk, run.offset + len(memoryview(run.data))
    return groups


class FilesJob(FetchJob):
    """Fetches several whole objects of a pack, one after another: where reading one takes less than a job of its own.

    Args:
        fetches: by ascending chunks.
        base, target: see `FetchJob`.
    """

    __slots__ = ("_fetches",)

    def __init__(self, fetches: list[Fetch], base: Base, target: Target) -> None:
        super().__init__(fetches[0], base, target)
        self._fetches = fetches
        self.size = sum(fetch.size for fetch in fetches)

    def chunks(self) -> list[int]:
        """See `FetchJob.chunks`."""
        return [fetch.chunk for fetch in self._fetches]

    def _fetch(self) -> Outcome:
        outcome = Outcome({}, {}, set())
        file = self.target.file if self.target else None
        runs = []
        for fetch in self._fetches:
            if file and file.word(fetch.chunk):
                continue
            try:
                data = read(self._base, fetch)
            except SwingbyError as error:
                outcome.errors[fetch.chunk] = error
            else:
                runs.append(Run(fetch.chunk, fetch.offset, data, (word_of(data),)))
        self._store_all(runs, outcome)
        return outcome


def _add(whole: Outcome, part: Outcome) -> None:
    whole.homeless.update(part.homeless)
    whole.below.update(part.below)


def read(base: Base, fetch: Fetch) -> Buffer:
    """The bytes of a request.

    Raises:
        CorruptDataError: the base gives another size than it listed.
        SwingbyError: the base's.
    """
    if fetch.size == 0:
        return b""
    if fetch.size == fetch.object_size:
        payload = base.read(fetch.key, version=fetch.version)
    else:
        payload = base.read(fetch.key, fetch.start, fetch.size, fetch.version)
    if payload.info.size != fetch.object_size or len(memoryview(payload.data)) != fetch.size:
        raise CorruptDataError(
            f"{fetch.key.decode('utf-8', 'replace')}: the base sent {len(memoryview(payload.data))} bytes of version "
            f"{fetch.version.hex()}, which has {fetch.size}",
            key=key_text(fetch.key),
            base=base.id,
            remedy="Check the base: it gives two sizes for one version",
        )
    return payload.data
