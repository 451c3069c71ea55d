"""What a request wants, by segment: pure descriptions that know how to fetch what is absent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from swingby.core.manifest.packs import ROW_OFFSET, ROW_PACK, ROW_SIZE, ROW_SLOT
from swingby.core.plan import Fetch, Piece, object_fetches, sample_fetches
from swingby.core.segment import CHUNK_BYTES, Segment, chunk_extent, chunks_between

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from swingby.core.containers.location import Where
    from swingby.core.manifest.view import Manifest


class Wanted(Protocol):
    """Chunks of one segment.

    Attributes:
        segment: which.
        slot: what the client calls it: a pack's ordinal, or -1 - index of a large object.
        chunks: numbers, ascending.
    """

    segment: Segment
    slot: int
    chunks: NDArray[np.intp]

    @property
    def size_bytes(self) -> int:
        """Of these chunks."""
        ...

    def fetches(self, absent: Sequence[int], range_bytes: int) -> list[Fetch]:
        """Requests for the absent ones of the chunks."""
        ...

    def position_of(self, chunk: int) -> int:
        """Which object of the request a chunk belongs to."""
        ...

    def extent(self, chunk: int) -> tuple[int, int]:
        """Offset and size of a chunk in the segment."""
        ...


class PackWanted:
    """Objects of one pack.

    Args:
        manifest: that assigns them.
        ordinal: of the pack.
        rows: of the objects, uint32[k, 4], by ascending slots, none twice.
        indices: of the objects in the manifest.
        positions: of the objects in the request.
    """

    def __init__(
        self,
        manifest: Manifest,
        ordinal: int,
        rows: NDArray[np.uint32],
        indices: NDArray[np.int64],
        positions: NDArray[np.intp],
    ) -> None:
        self.segment = manifest.pack(ordinal)
        self.slot = ordinal
        self.chunks = rows[:, ROW_SLOT].astype(np.intp)
        self._manifest = manifest
        self._rows = rows
        self._indices = indices
        self._positions = positions

    @property
    def size_bytes(self) -> int:
        """See `Wanted`."""
        return int(self._rows[:, ROW_SIZE].sum())

    def fetches(self, absent: Sequence[int], range_bytes: int) -> list[Fetch]:
        """See `Wanted.fetches`: one request an object, whole; samples in containers that are neighbours there together."""
        if not len(absent):
            return []
        manifest, segment, prefix = self._manifest, self.segment, self._manifest.root.prefix
        places = np.searchsorted(self.chunks, absent)
        offsets = self._rows[places, ROW_OFFSET].tolist()
        sizes = self._rows[places, ROW_SIZE].tolist()
        each = zip(absent, offsets, sizes, self._indices[places].tolist(), strict=True)
        if not manifest.is_contained:
            return [
                Fetch(segment, chunk, offset, prefix + manifest.key(index), 0, size, size, manifest.version(index))
                for chunk, offset, size, index in each
            ]
        samples = (
            (where, Piece(chunk, offset, where.start, where.stored_bytes, where.coded(size)))
            for where, (chunk, offset, size, _) in zip(manifest.wheres(self._indices[places]), each, strict=True)
        )
        return sample_fetches(segment, samples, range_bytes=range_bytes)

    def position_of(self, chunk: int) -> int:
        """See `Wanted.position_of`."""
        return int(self._positions[np.searchsorted(self.chunks, chunk)])

    def extent(self, chunk: int) -> tuple[int, int]:
        """See `Wanted.extent`."""
        row = self._rows[np.searchsorted(self.chunks, chunk)]
        return int(row[ROW_OFFSET]), int(row[ROW_SIZE])


class ObjectWanted:
    """A part of one object that has a segment of its own.

    Args:
        segment: the object's.
        where: its bytes lie in the base.
        part: bytes [start, stop).
        slot, position: what the client calls it, and where it stands in the request.
    """

    def __init__(self, segment: Segment, where: Where, part: tuple[int, int], called: tuple[int, int]) -> None:
        self.segment = segment
        self.slot, self._position = called
        numbers = chunks_between(*part) if part[1] > part[0] else range(0 if segment.size_bytes else 1)
        self.chunks = np.arange(numbers.start, numbers.stop)
        self._where = where

    def part(self, start: int, stop: int) -> ObjectWanted:
        """Bytes [start, stop) of the same object."""
        return ObjectWanted(self.segment, self._where, (start, stop), (self.slot, self._position))

    @property
    def size_bytes(self) -> int:
        """See `Wanted`."""
        return min(self.segment.size_bytes, len(self.chunks) * CHUNK_BYTES)

    def fetches(self, absent: Sequence[int], range_bytes: int) -> list[Fetch]:
        """See `Wanted.fetches`: neighbours in one request."""
        return object_fetches(self.segment, self._where, absent, range_bytes=range_bytes)

    def position_of(self, chunk: int) -> int:
        """See `Wanted.position_of`."""
        del chunk
        return self._position

    def extent(self, chunk: int) -> tuple[int, int]:
        """See `Wanted.extent`."""
        return chunk_extent(self.segment, chunk)


def wanted_of(manifest: Manifest, indices: NDArray[np.int64]) -> list[Wanted]:
    """What these objects of a manifest are, by segment in the order of their first appearance.

    Raises:
        IndexError: an index is out of range.
    """
    rows = manifest.rows(indices)
    if not len(rows):
        return []
    order = np.lexsort(
        (rows[:, ROW_SLOT], rows[:, ROW_PACK])
    )  # stable: of an object asked for twice, the first stays first
    rows, indices = rows[order], indices[order]
    is_new = np.append(True, indices[1:] != indices[:-1])
    if not is_new.all():
        is_new |= manifest.large_rows(rows)
        rows, indices, order = rows[is_new], indices[is_new], order[is_new]
    bounds = np.flatnonzero(np.append(True, rows[1:, ROW_PACK] != rows[:-1, ROW_PACK]))
    by_appearance = np.argsort(np.minimum.reduceat(order, bounds)).tolist()
    starts, stops, packs = bounds.tolist(), [*bounds[1:].tolist(), len(rows)], rows[bounds, ROW_PACK].tolist()
    found: list[Wanted] = []
    for number in by_appearance:
        part = slice(starts[number], stops[number])
        if manifest.is_large(packs[number]):
            found += [_large(manifest, *one) for one in zip(indices[part].tolist(), order[part].tolist(), strict=True)]
        else:
            found.append(PackWanted(manifest, packs[number], rows[part], indices[part], order[part]))
    return found


def _large(manifest: Manifest, index: int, position: int) -> Wanted:
    segment = manifest.large(index)
    return ObjectWanted(segment, manifest.where(index), (0, segment.size_bytes), (-1 - index, position))
