"""Single flight: every chunk is fetched once, however many wait for it.

A job fetches one run of chunks into its target and then tells everybody who waits. What could not be stored is handed to the
waiters as bytes, so that a full level never fails a read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from swingby.core.checksum import word_of
from swingby.core.plan import Fetch, chunk_sizes
from swingby.core.segment import CHUNK_BYTES
from swingby.errors import CorruptDataError, KeeperError, LevelError, SwingbyError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from swingby.base.contract import Base
    from swingby.levels.level import Level
    from swingby.levels.segment_file import SegmentFile


class Place(NamedTuple):
    """A held segment on a level."""

    level: Level
    file: SegmentFile


class Outcome(NamedTuple):
    """How a job ended.

    Attributes:
        error: None on success.
        data: the bytes, where they could not be stored.
        words: their checksums.
    """

    error: SwingbyError | None
    data: Buffer | None
    words: Sequence[int]


Waiter = Callable[["FetchJob", Outcome], None]
Planner = Callable[[list[int]], list["FetchJob"]]


class Joined(NamedTuple):
    """Jobs that are waited for: new ones, to be run, and those that were under way or queued."""

    new: list[FetchJob]
    joined: list[FetchJob]


class FetchJob:
    """Fetches one run of chunks.

    Args:
        fetch: what to read.
        base: where from.
        target: where to; None: hand the bytes to the waiters.
        nearer: a place that may have the chunk already, tried first.
    """

    __slots__ = ("_base", "_flights", "fetch", "nearer", "size", "started", "target", "waiters")

    def __init__(self, fetch: Fetch, base: Base, target: Place | None, nearer: Place | None = None) -> None:
        self.fetch = fetch
        self.size = fetch.size
        self.started = False
        self.target = target
        self.nearer = nearer
        self.waiters: list[Waiter] = []
        self._base = base
        self._flights: Flights | None = None

    def attach(self, flights: Flights) -> None:
        """Belong to a table."""
        self._flights = flights

    def run(self) -> None:
        """Fetch, store, tell."""
        try:
            outcome = self._fetch()
        except SwingbyError as error:
            outcome = Outcome(error, None, ())
        except BaseException as error:  # noqa: BLE001  waiters must be told, whatever happened
            outcome = Outcome(KeeperError(f"the keeper failed: {error!r}"), None, ())
        waiters = self._flights.land(self) if self._flights else self.waiters
        for waiter in waiters:
            waiter(self, outcome)

    def _fetch(self) -> Outcome:
        fetch = self.fetch
        if self.target and self._is_present(self.target):
            return Outcome(None, None, ())
        if self.nearer and self._promote(self.nearer):
            return Outcome(None, None, ())
        data = self._read()
        if len(memoryview(data)) <= CHUNK_BYTES:
            words = [word_of(data)]
        else:
            view, at, words = memoryview(data).cast("B"), 0, []
            for size in chunk_sizes(fetch):
                words.append(word_of(view[at : at + size]))
                at += size
        if self.target is None:
            return Outcome(None, data, words)
        try:
            self.target.level.fill(self.target.file, fetch.chunk, fetch.offset, data, words)
        except LevelError:
            return Outcome(None, data, words)
        return Outcome(None, None, words)

    def _is_present(self, target: Place) -> bool:
        """Whether another job was quicker, or an earlier boot left the chunks."""
        chunks = self.chunks()
        target.file.confirm(chunks, target.level.reader)
        return all(map(target.file.word, chunks))

    def chunks(self) -> range:
        """Numbers of the chunks it fills."""
        first = self.fetch.chunk
        return range(first, first + (1 if self.fetch.segment.packed else len(chunk_sizes(self.fetch))))

    def _promote(self, nearer: Place) -> bool:
        """Copy the chunk from a slower level; a bad one is quarantined and fetched from the base."""
        target, chunk = self.target, self.fetch.chunk
        if target is None:
            return False
        nearer.file.confirm(range(chunk, chunk + 1), nearer.level.reader)
        if not nearer.file.word(chunk):
            return False
        try:
            data = nearer.file.read(chunk, nearer.level.reader)
            target.level.fill(target.file, chunk, self.fetch.offset, data, [nearer.file.word(chunk)])
        except CorruptDataError:
            nearer.level.quarantine(nearer.file)
            return False
        except LevelError:
            return False
        return True

    def _read(self) -> Buffer:
        fetch = self.fetch
        if fetch.size == 0:
            return b""
        if fetch.size == fetch.object_size:
            payload = self._base.read(fetch.key, version=fetch.version)
        else:
            payload = self._base.read(fetch.key, fetch.start, fetch.size, fetch.version)
        if payload.info.size != fetch.object_size or len(memoryview(payload.data)) != fetch.size:
            raise CorruptDataError(
                f"{fetch.key.decode('utf-8', 'replace')}: the base sent {len(memoryview(payload.data))} bytes of version "
                f"{fetch.version.hex()}, which has {fetch.size}",
                key=fetch.key.decode("utf-8", "surrogateescape"),
                base=self._base.id,
                remedy="Check the base: it gives two sizes for one version",
            )
        return payload.data


class Flights:
    """The table of what is being fetched."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[tuple[str, int], FetchJob] = {}

    def join(self, place: Place | None, chunks: list[int], plan: Planner, waiter: Waiter) -> Joined:
        """Wait for chunks: with jobs under way where there are, with new ones for the rest.

        Args:
            place: where the chunks belong; None: nowhere, then nothing is shared.
            chunks: numbers, ascending.
            plan: makes jobs for the chunks that nobody fetches yet.
            waiter: told once for every job.
        """
        with self._lock:
            flying: dict[int, FetchJob] = {}
            if place and self._jobs:
                path = place.file.path
                flying = {chunk: job for chunk in chunks if (job := self._jobs.get((path, chunk)))}
            joined = list({id(job): job for job in flying.values()}.values())
            for job in joined:
                job.waiters.append(waiter)
            new = plan([chunk for chunk in chunks if chunk not in flying] if flying else chunks)
            for job in new:
                job.waiters.append(waiter)
                job.attach(self)
                self._jobs.update(dict.fromkeys(_keys(job), job))
            return Joined(new, joined)

    def land(self, job: FetchJob) -> list[Waiter]:
        """The job is over; who waited."""
        with self._lock:
            for key in _keys(job):
                self._jobs.pop(key, None)
            waiters, job.waiters = job.waiters, []
            return waiters


def _keys(job: FetchJob) -> list[tuple[str, int]]:
    if job.target is None:
        return []
    return [(job.target.file.path, chunk) for chunk in job.chunks()]
