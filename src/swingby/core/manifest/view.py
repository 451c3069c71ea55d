"""A manifest as its readers see it: global indices over lazily opened shards.

Threads: safe; two threads may open the same shard at once, one of them for nothing.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from typing import TYPE_CHECKING

import numpy as np

from swingby.core.containers.location import Where
from swingby.core.manifest.packs import ROW_OFFSET, ROW_PACK, ROW_SIZE, ROW_SLOT, pack_segment, row_sizes
from swingby.core.manifest.shard import Shard
from swingby.core.segment import Segment, object_segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from swingby.core.manifest.root import Root


class Manifest:
    """Read access to a manifest.

    Pack ordinals number the packs of all shards in order; each shard has one more, at its end, which stands for "a large object".

    Args:
        root: the root.
        digest: its digest in hex.
        open_shard: gives the checked bytes of shard n, mapped.
    """

    def __init__(self, root: Root, digest: str, open_shard: Callable[[int], memoryview]) -> None:
        self.root = root
        self.digest = digest
        self._open_shard = open_shard
        self._shards: list[Shard | None] = [None] * len(root.shards)
        self._bounds = np.cumsum([0, *(shard.count for shard in root.shards)])
        self._pack_bounds = np.cumsum([0, *(shard.packs + 1 for shard in root.shards)])
        self._starts: list[int] = self._bounds.tolist()
        self._pack_starts: list[int] = self._pack_bounds.tolist()
        self._first_keys = [shard.first_key for shard in root.shards]

    def __len__(self) -> int:
        return int(self._bounds[-1])

    @property
    def data_bytes(self) -> int:
        """Sum of the sizes of all objects."""
        return sum(shard.data_bytes for shard in self.root.shards)

    @functools.cached_property
    def has_large(self) -> bool:
        """Whether any object is large."""
        shards = (self.shard(number) for number in range(len(self._shards)))
        return any(bool((shard.rows[:, ROW_PACK] == len(shard.packs)).any()) for shard in shards)

    @property
    def pack_ordinals(self) -> int:
        """One past the highest pack ordinal."""
        return int(self._pack_bounds[-1])

    def shard(self, number: int) -> Shard:
        """Shard `number`, opened at first use."""
        found = self._shards[number]
        if found is None:
            found = self._shards[number] = Shard(self._open_shard(number))
        return found

    def rows(self, indices: NDArray[np.intp]) -> NDArray[np.uint32]:
        """Rows (pack ordinal, offset, size, slot) of these objects: uint32[k, 4].

        Raises:
            IndexError: an index is out of range.
        """
        if len(self._shards) == 1:
            return self.shard(0).rows.take(indices, 0)
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < len(self):
            raise IndexError(f"index out of range for {len(self)} objects")
        places = np.searchsorted(self._bounds, indices, "right") - 1
        rows = np.empty((len(indices), 4), np.uint32)
        for number in np.unique(places).tolist():
            here = places == number
            found = self.shard(number).rows.take(indices[here] - self._bounds[number], 0)
            found[:, ROW_PACK] += np.uint32(self._pack_bounds[number])
            rows[here] = found
        return rows

    def first_index(self, number: int) -> int:
        """Index of the first object of a shard."""
        return self._starts[number]

    def first_pack(self, number: int) -> int:
        """Ordinal of the first pack of a shard."""
        return self._pack_starts[number]

    def is_large(self, pack: int) -> bool:
        """Whether a row with this pack ordinal is a large object's."""
        return self._pack_starts[bisect_right(self._pack_starts, pack)] - 1 == pack

    def large_rows(self, rows: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Which rows are large objects'."""
        return np.isin(rows[:, ROW_PACK], (self._pack_bounds[1:] - 1).astype(np.uint32))

    def pack(self, ordinal: int) -> Segment:
        """The segment of a pack."""
        number = bisect_right(self._pack_starts, ordinal) - 1
        return pack_segment(self.shard(number).packs[ordinal - self._pack_starts[number]])

    def live_count(self, ordinal: int) -> int:
        """Objects of this manifest in a pack."""
        number = bisect_right(self._pack_starts, ordinal) - 1
        return int(self.shard(number).live_counts[ordinal - self._pack_starts[number]])

    def slots_of(self, ordinal: int) -> NDArray[np.intp]:
        """Slots of a pack that hold an object of this manifest; the others are dead or another manifest's."""
        number = bisect_right(self._pack_starts, ordinal) - 1
        rows = self.shard(number).rows
        slots: NDArray[np.intp] = rows[rows[:, ROW_PACK] == ordinal - self._pack_starts[number], ROW_SLOT].astype(
            np.intp
        )
        return slots

    def key(self, index: int) -> bytes:
        """The key of an object, relative to the prefix."""
        number, place = self._place(index)
        return self.shard(number).keys[place]

    def size(self, index: int) -> int:
        """The size of an object in bytes."""
        number, place = self._place(index)
        shard = self.shard(number)
        row = shard.rows[place]
        size = int(row[ROW_SIZE])
        return size | int(row[ROW_OFFSET]) << 32 if int(row[ROW_PACK]) == len(shard.packs) else size

    def version(self, index: int) -> bytes:
        """The version token of an object."""
        number, place = self._place(index)
        token: bytes = self.shard(number).versions[place].tobytes()
        return token

    @property
    def is_contained(self) -> bool:
        """Whether the entries are samples in containers."""
        return self.root.contained is not None

    def where(self, index: int) -> Where:
        """The bytes of an object, or of a sample, in the base."""
        number, place = self._place(index)
        if self.is_contained:
            return self.shard(number).wheres(np.array([place]), self.root.prefix)[0]
        size = self.size(index)
        return Where(self.root.prefix + self.key(index), 0, size, size, self.version(index))

    def wheres(self, indices: NDArray[np.int64]) -> list[Where]:
        """The same for many samples of one pack."""
        number, _ = self._place(int(indices[0]))
        shard, prefix = self.shard(number), self.root.prefix
        return shard.wheres(indices - self._starts[number], prefix)

    def large(self, index: int) -> Segment:
        """The segment of a large object."""
        return object_segment(
            self.root.origin, self.root.prefix + self.key(index), self.size(index), self.version(index)
        )

    def find(self, key: bytes) -> int | None:
        """The index of a key relative to the prefix, or None."""
        number = bisect_right(self._first_keys, key) - 1
        if number < 0:
            return None
        place = self.shard(number).keys.find(key)
        return None if place is None else self._starts[number] + place

    def sizes(self) -> NDArray[np.int64]:
        """Sizes in bytes of all objects: int64[n]."""
        shards = [self.shard(number) for number in range(len(self._shards))]
        parts = [row_sizes(shard.rows, shard.rows[:, ROW_PACK] == len(shard.packs)) for shard in shards]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def packs_of_all(self) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """Pack ordinals of all objects, uint32[n], and which objects are large, bool[n]."""
        packs = [
            self.shard(number).rows[:, ROW_PACK] + np.uint32(self._pack_bounds[number])
            for number in range(len(self._shards))
        ]
        joined = np.concatenate(packs) if packs else np.zeros(0, np.uint32)
        return joined, np.isin(joined, (self._pack_bounds[1:] - 1).astype(np.uint32))

    def pack_changes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices of objects that lie in another pack than the one before, int64[r], and of large objects, int64[l]."""
        changes, large = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for number, start in enumerate(self._starts[:-1]):
            shard = self.shard(number)
            packs = shard.rows[:, ROW_PACK]
            changes += [np.array([start]), start + 1 + np.flatnonzero(packs[1:] != packs[:-1])]
            large.append(start + np.flatnonzero(packs == len(shard.packs)))
        return np.concatenate(changes), np.concatenate(large)

    def keys(self) -> Iterator[bytes]:
        """All keys in order, relative to the prefix."""
        for number in range(len(self._shards)):
            yield from self.shard(number).keys

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} objects")
        number = bisect_right(self._starts, index) - 1
        return number, index - self._starts[number]
