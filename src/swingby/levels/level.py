"""A level that holds segments: a directory of pairs, a budget, and a policy of eviction.

The directory is the index: names tell segment and generation, and a pair is opened and checked when it is first used, so starting
with many costs little. What cannot be used is dropped, or set aside if another release may read it.

Guarantees: nothing that is held (`users`), pinned or dirty is evicted. Threads: safe; writes of bytes happen outside the lock.
Failure: LevelError means "not on this level"; the caller goes one level on.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from swingby.errors import FormatError, LevelError
from swingby.levels import segment_file
from swingby.levels.directory import Aside, scan
from swingby.levels.foreseen import Foreseen
from swingby.levels.map_file import UnknownFormatError
from swingby.levels.segment_file import PAGE_BYTES, Run, SegmentFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from swingby.core.segment import Segment
    from swingby.levels.block_reader import BlockReader
    from swingby.levels.foreseen import Forecast
    from swingby.levels.room import Room

OPEN_FILES_MAX = 4096  # pairs, two descriptors each
ROOM_STEP_BYTES = 64 << 20  # written before the room is measured again; where less is free, a quarter of that
CONFIRMED_AHEAD_BYTES = 1 << 20  # on a mapped level, beside what is asked for: 0.1 ms there, instead of a job each


class LevelOptions(NamedTuple):
    """What sets one level apart from another.

    Attributes:
        name: "memory" or "burst".
        directory: for its files; made if absent.
        budget_bytes: the most it holds.
        boot_id: 16 bytes; entries of another boot are not believed.
        is_mapped: whether clients map its files and do not check what they read; then entries of an earlier keeper are not
            believed either.
    """

    name: str
    directory: str
    budget_bytes: int
    boot_id: bytes
    is_mapped: bool = False


class LevelCounts(NamedTuple):
    """What a level holds and did since the keeper started."""

    used_bytes: int
    segments: int
    evicted_segments: int
    filled_bytes: int
    bad_chunks: int


class Level:
    """See the module's text.

    Args:
        options: name, directory, budget, boot.
        room: what the place can still take.
        reader: reads the segments' bytes.
    """

    def __init__(self, options: LevelOptions, room: Room, reader: BlockReader) -> None:
        self.options = options
        self.name = options.name
        self.reader = reader
        self._policy = Foreseen(options.budget_bytes)
        self._room = room
        self._lock = threading.RLock()
        self._sizes: dict[bytes, int] = {}  # of pairs whose size is known
        self._open: OrderedDict[bytes, SegmentFile] = OrderedDict()
        self._known: set[str] = set()  # names of pairs that this keeper made or opened, where they are mapped
        self._pins: Counter[bytes] = Counter()
        self._grown: set[bytes] = set()  # filled since their size was measured
        self._writing: Counter[bytes] = Counter()  # being filled now
        self._used_bytes = 0
        self._room_bytes = 0
        self.reserved_bytes = 0  # of the budget, for what is handed over without coming in
        self._evicted = self._filled_bytes = self._bad_chunks = 0
        self.on_evict: Callable[[], None] = lambda: None
        os.makedirs(options.directory, mode=0o700, exist_ok=True)
        self._names, self._left_over = scan(options.directory)  # common parts of the pairs' names, by segment id
        for identity in self._names:
            self._policy.add(identity)
        self._aside = Aside(options.directory)  # counts as used

    # -- using segments ------------------------------------------------------------------------------------------------

    def admits(self, segment: Segment) -> bool:
        """Whether the segment may come in at all: it is no larger than half of the level."""
        return segment.size_bytes <= self.options.budget_bytes // 2

    @contextlib.contextmanager
    def holding(self, segment: Segment, *, create: bool) -> Iterator[SegmentFile | None]:
        """The segment's pair, held open while the block runs; None where there is none and `create` is False.

        Raises:
            LevelError: it cannot be made.
        """
        file = self.acquire(segment, create=create)
        try:
            yield file
        finally:
            if file:
                self.release(file)

    def acquire(self, segment: Segment, *, create: bool) -> SegmentFile | None:
        """As `holding`; the caller calls `release`."""
        with self._lock:
            file = self._open.get(segment.id) or self._reopen(segment)
            if file is None and create:
                file = SegmentFile.create(self.options.directory, segment, self.options.boot_id)
                self._names[segment.id] = os.path.basename(file.path)
                self._sizes[segment.id] = 0
                self._admit_open(file)
            if file is not None:
                self._open.move_to_end(segment.id)
                file.users += 1
            return file

    def release(self, file: SegmentFile) -> None:
        """End a hold."""
        with self._lock:
            file.users -= 1
            if file.users == 0 and self._names.get(file.segment.id) != os.path.basename(file.path):
                file.close()  # retired meanwhile

    def fill(self, file: SegmentFile, *runs: Run) -> None:
        """Store chunks of a held segment, by runs that are neighbours; evicts others to make room.

        Raises:
            LevelError: there is no room, or the file system refuses; nothing became present.
        """
        size = sum(len(memoryview(run.data)) for run in runs)
        pages = -(-size // PAGE_BYTES) * PAGE_BYTES
        with self._lock:
            self._make_room(pages, file.segment.id)
            self._used_bytes += pages
            self._room_bytes -= pages
            self._filled_bytes += size
            self._grown.add(file.segment.id)
            self._writing[file.segment.id] += 1
            self._sizes[file.segment.id] = self._sizes.get(file.segment.id, 0) + pages
        try:
            file.write(*runs)
        except LevelError:
            with self._lock:
                self._room_bytes = 0
                if self._sizes.get(file.segment.id):
                    self._set_size(file.segment.id, max(0, self._sizes[file.segment.id] - pages))
            raise
        finally:
            with self._lock:
                self._writing[file.segment.id] -= 1
                if not self._writing[file.segment.id]:
                    del self._writing[file.segment.id]
        if file.is_found:  # it may have had pages there that no entry told of
            with self._lock:
                if self._open.get(file.segment.id) is file:
                    self._set_size(file.segment.id, file.taken_bytes())

    def confirm(self, file: SegmentFile, chunks: Iterable[int]) -> int:
        """Check chunks of a held segment that an earlier boot or keeper left, before they count; how many are not right."""
        return file.confirm(chunks, self.reader, CONFIRMED_AHEAD_BYTES if self.options.is_mapped else 0)

    def touch(self, identity: bytes) -> None:
        """Tell the policy that a segment was used."""
        with self._lock:
            self._policy.touch(identity)

    def has(self, identity: bytes) -> bool:
        """Whether there is a pair of this segment."""
        return identity in self._names

    def is_complete(self, identity: bytes) -> bool:
        """Whether a segment is open here with every chunk present."""
        file = self._open.get(identity)
        return file is not None and file.is_complete

    def foresee(self, forecast: Callable[[], Forecast | None]) -> None:
        """Evict by what live plans foretell from now on."""
        self._policy.forecast = forecast

    # -- leaving -------------------------------------------------------------------------------------------------------

    def pin(self, identity: bytes) -> None:
        """Keep a segment until as many `unpin`."""
        with self._lock:
            self._pins[identity] += 1

    def unpin(self, identity: bytes, *, leaves_first: bool = False) -> None:
        """Undo one `pin`; what nobody pins any more may be the next to leave."""
        with self._lock:
            self._pins[identity] -= 1
            if self._pins[identity] <= 0:
                del self._pins[identity]
                if leaves_first:
                    self._policy.demote(identity)

    def evict(self, identity: bytes) -> bool:
        """Retire a segment; False where it is held, pinned or not there."""
        with self._lock:
            return self._may_leave(identity) and self._retire(identity)

    def quarantine(self, file: SegmentFile) -> None:
        """Retire a generation with a bad chunk, held or not."""
        with self._lock:
            self._bad_chunks += 1
            if self._open.get(file.segment.id) is file:
                self._retire(file.segment.id)

    def holds_back(self, segment: Segment, size: int) -> bool:
        """Whether so many more bytes of a segment would be refused, because nothing may leave for them."""
        with self._lock:
            if not self._lacks(size):
                return False
            return self._policy.victim(segment.id, self._sizes, self._may_leave) is None

    # -- looking -------------------------------------------------------------------------------------------------------

    def counts(self) -> LevelCounts:
        """What it holds and did."""
        with self._lock:
            self._measure()
            used = self._used_bytes + self._aside.used_bytes
            return LevelCounts(used, len(self._names), self._evicted, self._filled_bytes, self._bad_chunks)

    def identities(self) -> list[bytes]:
        """Ids of all segments here."""
        with self._lock:
            return list(self._names)

    def open_known(self, identity: bytes) -> SegmentFile | None:
        """A held pair by id alone, for verification; the caller calls `release`."""
        with self._lock:
            file = self._open.get(identity) or self._reopen_id(identity)
            if file:
                file.users += 1
            return file

    def clean_left_over(self) -> None:
        """Remove what earlier keepers left half-made, and learn the sizes of the rest. Once, soon after start."""
        for name in self._left_over:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.options.directory, name))
        self._left_over = []
        for identity in self.identities():
            with self._lock:
                if identity in self._names and identity not in self._sizes:
                    path = os.path.join(self.options.directory, self._names[identity] + segment_file.SEGMENT_SUFFIX)
                    with contextlib.suppress(OSError):
                        self._set_size(identity, os.stat(path).st_blocks * 512)

    def close(self) -> None:
        """Close all files; they stay for the next keeper. What somebody holds is closed when it is released."""
        with self._lock:
            for file in self._open.values():
                if not file.users:
                    file.close()
            self._open.clear()
            self._names.clear()

    # -- inside, under the lock ----------------------------------------------------------------------------------------

    def _reopen(self, segment: Segment) -> SegmentFile | None:
        file = self._reopen_id(segment.id)
        if file and file.segment != segment:
            self._retire(segment.id)
            return None
        return file

    def _reopen_id(self, identity: bytes) -> SegmentFile | None:
        name = self._names.get(identity)
        if name is None:
            return None
        path = os.path.join(self.options.directory, name)
        try:
            is_trusted = not self.options.is_mapped or name in self._known
            file = SegmentFile.open(path, self.options.boot_id, is_trusted=is_trusted)
        except UnknownFormatError:
            self._forget(identity)
            self._aside.put(name)
            return None
        except (FormatError, LevelError):
            self._forget(identity)
            segment_file.unlink_pair(path)
            return None
        self._set_size(identity, file.taken_bytes())
        self._admit_open(file)
        return file

    def _admit_open(self, file: SegmentFile) -> None:
        self._open[file.segment.id] = file
        if self.options.is_mapped:
            self._known.add(os.path.basename(file.path))
        self._policy.add(file.segment.id)
        if len(self._open) > OPEN_FILES_MAX:
            for identity, other in list(self._open.items()):
                if other.users == 0 and other is not file:
                    other.close()
                    del self._open[identity]
                    break

    def _make_room(self, size: int, incoming: bytes) -> None:
        while self._lacks(size):
            if not self._aside.drop():
                self._evict_for(incoming)
        if self._room_left(size) < size:
            # Evicting frees nothing that a client still maps; one victim a fill keeps the rest of the level alive.
            if not self._aside.drop():
                self._evict_for(incoming)
            if self._room_left(size) < size:
                raise LevelError(f"there is no room left for level {self.name}", level=self.name)

    def _lacks(self, size: int) -> bool:
        """Whether the budget has no room for so much; what fills are counted as is measured before it is believed."""
        if self._taken() + size <= self.options.budget_bytes:
            return False
        self._measure()
        return self._taken() + size > self.options.budget_bytes

    def _measure(self) -> None:
        """Learn what segments take that were filled; objects of a pack share pages, which fills count for each."""
        for identity in self._grown - self._writing.keys():
            if file := self._open.get(identity):
                self._set_size(identity, file.taken_bytes())
        self._grown &= self._writing.keys()

    def _taken(self) -> int:
        return self._used_bytes + self._aside.used_bytes + self.reserved_bytes

    def _evict_for(self, incoming: bytes) -> None:
        victim = self._policy.victim(incoming, self._sizes, self._may_leave)
        if victim is None and incoming in self._pins:  # somebody said so, which plans do not overrule
            victim = self._policy.by_use(self._may_leave)
        if victim is None:
            raise LevelError(f"level {self.name} is full and nothing may leave", level=self.name)
        self._retire(victim)

    def _room_left(self, size: int) -> int:
        if self._room_bytes < size:
            try:
                free = self._room.free_bytes()
                self._room_bytes = min(free, max(size, min(ROOM_STEP_BYTES, free // 4)))
            except OSError:
                self._room_bytes = 0
        return self._room_bytes

    def _may_leave(self, identity: bytes) -> bool:
        file = self._open.get(identity)
        return identity in self._names and identity not in self._pins and not (file and file.users)

    def _retire(self, identity: bytes) -> bool:
        file = self._open.get(identity) or self._reopen_id(identity)
        if file is None:
            return True  # it was unusable and is gone
        self._forget(identity)
        file.retire()
        if file.users == 0:
            file.close()
        self._evicted += 1
        self.on_evict()
        return True

    def _forget(self, identity: bytes) -> None:
        self._known.discard(self._names.pop(identity, ""))
        self._open.pop(identity, None)
        self._policy.remove(identity)
        self._used_bytes -= self._sizes.pop(identity, 0)

    def _set_size(self, identity: bytes, size: int) -> None:
        self._used_bytes += size - self._sizes.get(identity, 0)
        self._sizes[identity] = size
