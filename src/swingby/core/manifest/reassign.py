"""Where the objects of one shard lie after a refresh: old packs where they can stay, delta packs for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from swingby.core.manifest.packs import (
    FLAG_DELTA,
    ROW_OFFSET,
    ROW_PACK,
    ROW_SIZE,
    ROW_SLOT,
    Assignment,
    Entries,
    assign,
    is_small,
    mark_large,
    pack_segment,
)
from swingby.core.segment import aligned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from swingby.core.manifest.shard import Shard
    from swingby.core.segment import Origin, Segment

DEAD_RATIO_MAX = 0.25
DELTA_BYTES_MAX = 4 << 20  # a larger delta pack is a pack like others and is not merged
DELTA_CLASS_MAX = 8  # so many of one size class are merged: every byte is copied once for each factor of 8


class Move(NamedTuple):
    """One chunk that lies in another pack now.

    Attributes:
        source, target: the packs.
        places: int64[n, 5] for each chunk: slot and offset in the source, slot and offset in the target, size.
    """

    source: Segment
    target: Segment
    places: NDArray[np.int64]


class Reassigned(NamedTuple):
    """The result for one shard."""

    assignment: Assignment
    moves: list[Move]
    changed_bytes: int


def reassign(origin: Origin, prefix: bytes, old: Shard, entries: Entries) -> Reassigned:
    """Assign the objects of a later listing, given the shard that held this range of keys."""
    before = _matches(old, entries)
    stays = before >= 0
    small = is_small(entries.sizes)
    changed_bytes = int(entries.sizes[~stays].sum())
    rows = np.zeros((len(entries.keys), 4), np.uint32)
    rows[stays] = old.rows[before[stays]]
    kept = stays & small
    rewritten = _rewritten_packs(old, rows[kept], entries.sizes[kept])
    moved = np.zeros(len(rows), bool)
    moved[kept] = rewritten[rows[kept, ROW_PACK]]
    kept &= ~moved
    fresh = np.flatnonzero(small & ~kept)
    new = assign(origin, prefix, entries.take(fresh), FLAG_DELTA)

    used = np.zeros(len(old.packs), bool)
    used[rows[kept, ROW_PACK]] = True
    renumbered = (np.cumsum(used) - 1).astype(np.uint32)
    was = rows[moved]
    rows[kept, ROW_PACK] = renumbered[rows[kept, ROW_PACK]]
    rows[fresh] = new.rows
    rows[fresh, ROW_PACK] += np.uint32(used.sum())
    packs = np.concatenate([old.packs[used], new.packs])
    rows[:, ROW_SIZE] = entries.sizes & np.uint64(0xFFFFFFFF)
    mark_large(rows, entries.sizes, len(packs))
    return Reassigned(Assignment(rows, packs), _moves(old, packs, was, rows[moved]), changed_bytes)


def _matches(old: Shard, entries: Entries) -> NDArray[np.intp]:
    """For each entry the index of the same object in the old shard, or -1 where it is new or changed."""
    places = {key: number for number, key in enumerate(old.keys)}
    found = np.fromiter((places.get(key, -1) for key in entries.keys), np.intp, len(entries.keys))
    here = np.flatnonzero(found >= 0)
    there = found[here]
    same = (old.sizes()[there] == entries.sizes[here].astype(np.int64)) & np.all(
        old.versions[there] == entries.versions[here], axis=1
    )
    found[here[~same]] = -1
    return found


def _rewritten_packs(old: Shard, rows: NDArray[np.uint32], sizes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which old packs are rewritten: those with too much dead, and small deltas of a class that is full."""
    total = old.packs["size_bytes"].astype(np.float64)
    live = np.bincount(rows[:, ROW_PACK], aligned(sizes).astype(np.float64), len(old.packs))
    rewritten = total - live > DEAD_RATIO_MAX * total
    deltas = (old.packs["flags"] & FLAG_DELTA).astype(bool) & (total < DELTA_BYTES_MAX) & ~rewritten
    classes = np.log2(np.maximum(total, 1)).astype(int) // 3
    for size_class in np.unique(classes[deltas]):
        members = deltas & (classes == size_class)
        if members.sum() >= DELTA_CLASS_MAX:
            rewritten |= members
    return rewritten


def _moves(old: Shard, packs: NDArray[np.void], was: NDArray[np.uint32], now: NDArray[np.uint32]) -> list[Move]:
    """The moved chunks, by source and target."""
    moves = []
    pairs = np.stack([was[:, ROW_PACK], now[:, ROW_PACK]], axis=1)
    for source, target in np.unique(pairs, axis=0).tolist():
        here = (pairs[:, 0] == source) & (pairs[:, 1] == target)
        columns = [was[here, ROW_SLOT], was[here, ROW_OFFSET], now[here, ROW_SLOT], now[here, ROW_OFFSET]]
        places = np.stack([*columns, now[here, ROW_SIZE]], axis=1).astype(np.int64)
        moves.append(Move(pack_segment(old.packs[source]), pack_segment(packs[target]), places))
    return moves
