"""What the keeper does when nobody waits: cleans up after its predecessors, copies fetched segments down to the burst level, moves
chunks that a refresh put into other packs, gathers segments into huge pages, and verifies.

Threads: one janitor; `verify` and `move` run in their callers' threads.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from swingby.errors import CorruptDataError, LevelError
from swingby.levels.huge_pages import collapse
from swingby.levels.segment_file import Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from swingby.core.manifest.reassign import Move
    from swingby.core.segment import Segment
    from swingby.keeper.supply import Levels, Part
    from swingby.levels.level import Level
    from swingby.levels.segment_file import SegmentFile

ROUND_SECONDS = 1.0
CLOSE_SECONDS_MAX = 5.0  # a chunk is copied in milliseconds; a disk that hangs does not hold up the end
GATHER_SECONDS_A_ROUND = 0.2
SPILL_USED_RATIO = 0.75  # of the memory level's budget: from here on segments are copied down even while fetches go on
SPILL_FULL_RATIO = 0.95  # from here on bulk fills wait for the copies
SPILL_WAITING_MAX = 100_000  # segments; beyond it the oldest are forgotten and fetched again one day

log = logging.getLogger("swingby")


class Upkeep:
    """See the module's text.

    Args:
        levels: of this node.
        is_busy: whether fetches are under way.
        each_round: called every second.
        clean: called once, to remove what earlier keepers left outside the levels.
    """

    def __init__(
        self,
        levels: Levels,
        is_busy: Callable[[], bool],
        each_round: Callable[[], None],
        clean: Callable[[], None] = lambda: None,
    ) -> None:
        self._levels = levels
        self._is_busy = is_busy
        self._clean = clean
        self._each_round = each_round
        self._waiting: OrderedDict[bytes, Segment] = OrderedDict()  # on the memory level, not yet on the burst level
        self._gathered: set[bytes] = set()  # in huge pages, or tried
        self._copying = 0
        self._wake = threading.Event()
        self._closed = False
        self._janitor: threading.Thread | None = None
        self.spilled_bytes = self.moved_bytes = 0

    def start(self) -> None:
        """Begin the janitor's rounds."""
        self._janitor = threading.Thread(target=self._run, name="swingby-janitor", daemon=True)
        self._janitor.start()

    def close(self) -> None:
        """End them; the one under way ends first, so that nothing is written after this."""
        self._closed = True
        self._wake.set()
        if self._janitor and self._janitor is not threading.current_thread():
            self._janitor.join(CLOSE_SECONDS_MAX)

    def note_filled(self, part: Part) -> None:
        """A base filled this segment on the memory level."""
        if self._levels.burst and self._levels.burst.admits(part.wanted.segment):
            self._waiting[part.wanted.segment.id] = part.wanted.segment
            if len(self._waiting) > SPILL_WAITING_MAX:
                self._waiting.popitem(last=False)

    @property
    def waiting_count(self) -> int:
        """Segments that are not yet on the burst level, the one being copied included."""
        return len(self._waiting) + self._copying

    def make_way(self) -> None:
        """Wait until the memory level can lose segments without losing what was fetched; for those who fill it in bulk."""
        memory = self._levels.memory
        while memory and self._waiting and not self._closed:
            if memory.counts().used_bytes < SPILL_FULL_RATIO * memory.options.budget_bytes:
                return
            self._wake.set()
            time.sleep(0.01)

    def move(self, moves: list[Move]) -> None:
        """Copy chunks to the packs they belong to now, on every level that has them."""
        for move in moves:
            for level in filter(None, self._levels):
                with contextlib.suppress(LevelError):
                    if level.has(move.source.id):
                        self._move_on(level, move)

    def verify(self, progress: Callable[[int, int], None]) -> dict[str, int]:
        """Check every chunk of every level; segments with a bad one are quarantined.

        Args:
            progress: told segments done and all segments.
        """
        total = sum(len(level.identities()) for level in self._levels if level)
        found = {"segments": 0, "chunks": 0, "bytes": 0, "bad_chunks": 0}
        for level in filter(None, self._levels):
            for identity in level.identities():
                file = level.open_known(identity)
                if file:
                    try:
                        self._verify(level, file, found)
                    finally:
                        level.release(file)
                found["segments"] += 1
                progress(found["segments"], total)
        return found

    # -- inside --------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        for clean in (self._clean, *(level.clean_left_over for level in self._levels if level)):
            try:
                clean()
            except Exception:
                log.exception("what an earlier keeper left cannot be removed")
        while not self._closed:
            self._wake.wait(ROUND_SECONDS)
            self._wake.clear()
            for task in (self._each_round, self._spill, self._gather):
                try:
                    task()
                except Exception:
                    log.exception("a part of a janitor's round failed")

    def _spill(self) -> None:
        memory, burst = self._levels
        while memory and burst and self._waiting and not self._closed:
            counts = memory.counts()
            if self._is_busy() and counts.used_bytes < SPILL_USED_RATIO * memory.options.budget_bytes:
                return
            self._copying = 1
            try:
                self._spill_one(memory, burst, *self._waiting.popitem(last=False))
            finally:
                self._copying = 0

    def _spill_one(self, memory: Level, burst: Level, identity: bytes, segment: Segment) -> None:
        source = memory.open_known(identity)
        if source is None:
            return
        try:
            with burst.holding(segment, create=True) as target:
                assert target is not None  # it was to be created
                self._copy(memory, source, burst, target)
        except (LevelError, CorruptDataError) as error:
            log.warning("a segment stays off the burst level: %s", error)
        finally:
            memory.release(source)

    def _gather(self) -> None:
        """Put complete segments into huge pages, a little each round, while nobody fetches."""
        memory = self._levels.memory
        until = time.monotonic() + GATHER_SECONDS_A_ROUND
        for identity in memory.identities() if memory else ():
            if self._closed or self._is_busy() or time.monotonic() > until:
                return
            if memory and identity not in self._gathered and memory.is_complete(identity):
                file = memory.open_known(identity)
                if file:
                    self._gathered.add(identity)
                    collapse(file.descriptor, file.segment.size_bytes)
                    memory.release(file)
        if memory:
            self._gathered &= set(memory.identities())

    def _copy(self, memory: Level, source: SegmentFile, burst: Level, target: SegmentFile) -> None:
        for chunk in source.present().tolist():
            if self._closed:
                return
            if target.word(chunk):
                continue
            data = source.read(chunk, memory.reader)
            burst.fill(target, Run(chunk, source.extent(chunk)[0], data, [source.word(chunk)]))
            self.spilled_bytes += len(data)

    def _move_on(self, level: Level, move: Move) -> None:
        with level.holding(move.source, create=False) as source:
            if source is None:
                return
            level.confirm(source, move.places[:, 0].tolist())
            here = np.flatnonzero(source.entries[move.places[:, 0], 0])
            if not len(here):
                return
            with level.holding(move.target, create=True) as target:
                assert target is not None  # it was to be created
                for slot, _, new_slot, new_offset, size in move.places[here].tolist():
                    if target.word(new_slot):
                        continue
                    try:
                        data = source.read(slot, level.reader)
                    except CorruptDataError:
                        level.quarantine(source)
                        return
                    level.fill(target, Run(new_slot, new_offset, data, [source.word(slot)]))
                    self.moved_bytes += size

    def _verify(self, level: Level, file: SegmentFile, found: dict[str, int]) -> None:
        found["bad_chunks"] += level.confirm(file, file.candidates())
        if not file.is_map_right():
            found["bad_chunks"] += 1
            level.quarantine(file)
            return
        for chunk in file.present().tolist():
            found["chunks"] += 1
            try:
                found["bytes"] += len(file.read(chunk, level.reader))
            except (CorruptDataError, LevelError):
                found["bad_chunks"] += 1
                level.quarantine(file)
                return
