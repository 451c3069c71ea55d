"""Cuts sorted objects into packs, by content and not by position.

A cut follows a small object when hash(key) / 2^64 < size / 32 MiB. So the cuts of a sub-prefix or a filtered listing fall where
those of the whole listing fall, and an inserted or removed object changes the pack it lies in, at most two. Where 256 MiB pass
without a cut one is forced, which may move later cuts up to the next one by content.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xxhash

from swingby.core.segment import CHUNK_BYTES, PACK_BYTES_MAX, PACK_CUT_BYTES, Origin, Segment, aligned, pack_id

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROW_PACK, ROW_OFFSET, ROW_SIZE, ROW_SLOT = range(4)
PACK_DTYPE = np.dtype([("id", "V16"), ("size_bytes", "<u8"), ("slots", "<u4"), ("flags", "<u4")])
FLAG_DELTA = 1

_HASH_UNITS_A_BYTE = np.uint64(2**64 // PACK_CUT_BYTES)


class Entries(NamedTuple):
    """Objects in key order, their keys relative to the manifest's prefix; of samples in containers also where they lie."""

    keys: list[bytes]
    sizes: NDArray[np.uint64]
    versions: NDArray[np.uint8]
    locations: NDArray[np.void] | None = None

    def take(self, chosen: NDArray[np.intp]) -> Entries:
        """Some of them."""
        locations = None if self.locations is None else self.locations[chosen]
        return Entries([self.keys[i] for i in chosen.tolist()], self.sizes[chosen], self.versions[chosen], locations)

    def slice(self, start: int, stop: int) -> Entries:
        """A run of them."""
        part = slice(start, stop)
        locations = None if self.locations is None else self.locations[part]
        return Entries(self.keys[part], self.sizes[part], self.versions[part], locations)


class Assignment(NamedTuple):
    """Where each object lies.

    Attributes:
        rows: uint32[n, 4]: pack, offset in bytes, size in bytes, slot. A large object has pack = len(packs) and its size
            as (offset << 32) | size.
        packs: the pack table, PACK_DTYPE.
    """

    rows: NDArray[np.uint32]
    packs: NDArray[np.void]


def is_small(sizes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which objects go into packs."""
    return sizes <= CHUNK_BYTES


def cut_after(prefix: bytes, entries: Entries) -> NDArray[np.bool_]:
    """After which objects a cut by content falls."""
    digest = xxhash.xxh3_64_intdigest
    hashes = np.fromiter((digest(prefix + key) for key in entries.keys), np.uint64, len(entries.keys))
    small = is_small(entries.sizes)
    return small & (hashes < np.where(small, entries.sizes, 0) * _HASH_UNITS_A_BYTE)


def assign(origin: Origin, prefix: bytes, entries: Entries, flags: int = 0) -> Assignment:
    """New packs for these objects."""
    rows = np.zeros((len(entries.keys), 4), np.uint32)
    small = np.flatnonzero(is_small(entries.sizes))
    chosen = entries.take(small) if len(small) < len(entries.keys) else entries
    space = aligned(chosen.sizes)
    ends = np.cumsum(space)
    starts = _pack_starts(cut_after(prefix, chosen), ends)
    packs = np.zeros(max(0, len(starts) - 1), PACK_DTYPE)
    for number in range(len(packs)):
        first, last = int(starts[number]), int(starts[number + 1])
        inside = slice(first, last)
        before = int(ends[first] - space[first])
        keys = [prefix + key for key in chosen.keys[inside]]
        identity = pack_id(origin, keys, chosen.sizes[inside], chosen.versions[inside])
        packs[number] = (identity, int(ends[last - 1]) - before, last - first, flags)
        here = small[inside]
        rows[here, ROW_PACK] = number
        rows[here, ROW_OFFSET] = ends[inside] - space[inside] - np.uint64(before)
        rows[here, ROW_SLOT] = np.arange(last - first)
    rows[:, ROW_SIZE] = entries.sizes & np.uint64(0xFFFFFFFF)
    mark_large(rows, entries.sizes, len(packs))
    return Assignment(rows, packs)


def mark_large(rows: NDArray[np.uint32], sizes: NDArray[np.uint64], pack_count: int) -> None:
    """Write the rows of the large objects."""
    large = ~is_small(sizes)
    rows[large, ROW_PACK] = pack_count
    rows[large, ROW_OFFSET] = sizes[large] >> np.uint64(32)
    rows[large, ROW_SLOT] = 0


def pack_segment(pack: np.void) -> Segment:
    """The segment of one row of a pack table."""
    return Segment(pack["id"].tobytes(), int(pack["size_bytes"]), int(pack["slots"]), packed=True)


def row_sizes(rows: NDArray[np.uint32], large: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Sizes in bytes of the objects of these rows; `large` says which of them are large."""
    sizes = rows[:, ROW_SIZE].astype(np.int64)
    sizes[large] |= rows[large, ROW_OFFSET].astype(np.int64) << 32
    return sizes


def _pack_starts(cuts: NDArray[np.bool_], ends: NDArray[np.uint64]) -> NDArray[np.intp]:
    """First object of each pack, and the count at the end."""
    count = len(cuts)
    if not count:
        return np.zeros(0, np.intp)
    natural = np.flatnonzero(cuts) + 1
    bounds = [0, *natural.tolist()]
    if bounds[-1] != count:
        bounds.append(count)
    starts = [0]
    for bound in bounds[1:]:
        while True:
            before = int(ends[starts[-1] - 1]) if starts[-1] else 0
            if int(ends[bound - 1]) - before <= PACK_BYTES_MAX:
                break
            starts.append(int(np.searchsorted(ends, np.uint64(before + PACK_BYTES_MAX), "right")))
        starts.append(bound)
    return np.array(starts, np.intp)
