"""What a client has mapped of a dataset: read-only views of segments, their maps, and which packs are complete.

Threads: readers take `current` once and use it; changes make a new `Tables`, under the owner's lock. Views stay valid whatever
happens to the tables.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from swingby.levels import map_file
from swingby.levels.mapping import map_read_only
from swingby.path.found import line_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from swingby.core.manifest.view import Manifest
    from swingby.keeper.protocol import FileRef

WORDS_AN_ENTRY = map_file.ENTRY_BYTES // 8
CHECKS_BETWEEN = 8  # batches that meet an incomplete pack, between two looks whether it is complete now


class Mapped:
    """A mapped segment.

    Attributes:
        view: its bytes.
        words: its map's entries as uint64: word, extent, word, extent, …
        generation: which pair.
    """

    __slots__ = ("_map", "generation", "view", "words")

    def __init__(self, ref: FileRef, segment: int, segment_map: int) -> None:
        """Map a pair. Descriptors stay the caller's.

        Raises:
            OSError: it cannot be mapped.
        """
        self.view = map_read_only(segment, ref.size_bytes)
        self._map = map_read_only(segment_map, map_file.map_bytes(ref.chunk_count))
        self.words = self._map[map_file.ENTRIES_OFFSET :].cast("Q")
        self.generation = ref.generation

    @property
    def is_dead(self) -> bool:
        """Whether it was evicted; its bytes stay right."""
        return map_file.is_dead(self._map)

    @property
    def is_complete(self) -> bool:
        """Whether every chunk is present."""
        return all(self.words[::WORDS_AN_ENTRY])

    @property
    def size_bytes(self) -> int:
        """Of the segment."""
        return len(self.view)


class Tables(NamedTuple):
    """One state of what is mapped, by slot.

    Attributes:
        views, words: by pack ordinal; None where nothing is mapped.
        lines: by pack ordinal, where its bytes begin, as `found.everywhere` counts.
        complete: bool by pack ordinal: every object that the manifest has there is present.
        large: by index of a large object, those of which every chunk is present.
        is_whole: all packs are complete, and there are no large objects.
    """

    views: list[memoryview | None]
    words: list[memoryview | None]
    lines: NDArray[np.int64]
    complete: NDArray[np.bool_]
    large: dict[int, memoryview]
    is_whole: bool = False


class MappedSet:
    """Everything mapped of one dataset, within a bound.

    Args:
        manifest: of the dataset.
        bytes_max: mapped at once; the oldest goes first.
    """

    def __init__(self, manifest: Manifest, bytes_max: int) -> None:
        count = manifest.pack_ordinals
        self.current = Tables([None] * count, [None] * count, np.zeros(count, np.int64), np.zeros(count, bool), {})
        self._manifest = manifest
        self._pack_count = count - len(manifest.root.shards)
        self._bytes_max = bytes_max
        self._bytes = 0
        self._mapped: OrderedDict[int, Mapped] = OrderedDict()  # by slot: pack ordinal, or -1 - index
        self._checks: dict[int, int] = {}

    def add(self, ref: FileRef, segment: int, segment_map: int) -> Mapped:
        """Map a pair that the keeper sent, unless it is mapped already. What was mapped longest may go for it.

        Raises:
            OSError: it cannot be mapped.
        """
        held = self._mapped.get(ref.slot)
        if held and held.generation == ref.generation:
            return held
        mapped = Mapped(ref, segment, segment_map)
        if held:
            self._drop([ref.slot])
        total = self._bytes + mapped.size_bytes
        oldest = []
        for slot, other in self._mapped.items():
            if total <= self._bytes_max:
                break
            oldest.append(slot)
            total -= other.size_bytes
        self._drop(oldest)
        self._mapped[ref.slot] = mapped
        self._bytes += mapped.size_bytes
        if ref.slot >= 0:
            self.current.views[ref.slot] = mapped.view
            self.current.words[ref.slot] = mapped.words
            self.current.lines[ref.slot] = line_of(np.frombuffer(mapped.view, np.uint8).ctypes.data)
        return mapped

    def get(self, slot: int) -> Mapped | None:
        """What is mapped in a slot."""
        return self._mapped.get(slot)

    def keep_large(self, index: int, mapped: Mapped) -> None:
        """Every chunk of a large object is present."""
        if self._mapped.get(-1 - index) is mapped:
            self.current.large[index] = mapped.view

    def sweep(self) -> None:
        """Let go of what was evicted."""
        self._drop([slot for slot, mapped in self._mapped.items() if mapped.is_dead])

    def look(self, packs: set[int]) -> None:
        """Find out which of these incomplete packs are complete now; not at every call."""
        for ordinal in packs:
            count = self._checks.get(ordinal, 0)
            self._checks[ordinal] = count + 1
            mapped = self._mapped.get(ordinal)
            if count % CHECKS_BETWEEN == 0 and mapped and self._is_complete(ordinal, mapped):
                self.current.complete[ordinal] = True
                del self._checks[ordinal]
                self.current = self.current._replace(is_whole=self._is_whole())

    def clear(self) -> None:
        """Let go of everything."""
        self._drop(list(self._mapped))

    def _is_whole(self) -> bool:
        return self._pack_count == int(self.current.complete.sum()) and not self._manifest.has_large

    def _is_complete(self, ordinal: int, mapped: Mapped) -> bool:
        words = np.frombuffer(mapped.words, np.uint64)[::WORDS_AN_ENTRY]
        present = int(np.count_nonzero(words))
        if present == len(words):
            return True
        if present < self._manifest.live_count(ordinal):
            return False
        return bool(words[self._manifest.slots_of(ordinal)].all())

    def _drop(self, slots: list[int]) -> None:
        if not slots:
            return
        views, words = list(self.current.views), list(self.current.words)
        lines, complete, large = self.current.lines.copy(), self.current.complete.copy(), dict(self.current.large)
        for slot in slots:
            self._bytes -= self._mapped.pop(slot).size_bytes
            if slot >= 0:
                views[slot] = words[slot] = None
                complete[slot] = False
            else:
                large.pop(-1 - slot, None)
        self.current = Tables(views, words, lines, complete, large)
