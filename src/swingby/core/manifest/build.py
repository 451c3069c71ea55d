"""Makes a manifest from the pages of a listing, in bounded memory, and refreshes one.

A refresh keeps the packs of unchanged objects, puts changed and new ones into delta packs, rewrites a pack more than a quarter of
which is dead, and merges deltas of one size class when there are eight. Shards without a change keep their file.

Threads: one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from swingby.core.manifest.keys import KEY_BYTES_MAX, encode
from swingby.core.manifest.packs import Entries, assign, cut_after
from swingby.core.manifest.reassign import Move, reassign
from swingby.core.manifest.root import Root, ShardInfo, shard_info
from swingby.core.manifest.shard import SHARD_ENTRIES_MAX, encode_shard
from swingby.errors import FormatError

if TYPE_CHECKING:
    from swingby.core.manifest.packs import Assignment
    from swingby.core.manifest.view import Manifest
    from swingby.core.object import Page
    from swingby.core.segment import Origin

Sink = Callable[[ShardInfo, bytes], None]


class Refreshed(NamedTuple):
    """A manifest made from an older one.

    Attributes:
        root: the new root.
        moves: chunks that now belong to another pack and can be copied there.
        shards_written: how many shard files are new.
        changed_bytes: of objects that are new or changed.
    """

    root: Root
    moves: list[Move]
    shards_written: int
    changed_bytes: int


def build(origin: Origin, prefix: bytes, pages: Iterable[Page], sink: Sink, containers: Entries | None = None) -> Root:
    """A manifest of a first listing.

    Args:
        origin: of the base.
        prefix: what is listed; every key begins with it.
        pages: in key order.
        sink: is given each shard as it is complete.
        containers: what the locations of samples refer to; None where the pages are of objects.

    Raises:
        FormatError: the pages are not in order, hold a key twice or one that is too long.
    """
    shards = [
        _write(entries, assign(origin, prefix, entries), sink, containers)
        for entries in _runs(_relative(prefix, pages), lambda entries: _first_run(prefix, entries))
    ]
    return Root(origin.base_id, origin.scope, prefix, shards)


def refresh(old: Manifest, pages: Iterable[Page], sink: Sink, containers: Entries | None = None) -> Refreshed:
    """A manifest of a later listing of the same prefix; see the module's text and `build`."""
    origin, prefix = old.root.origin, old.root.prefix
    bounds = [shard.first_key for shard in old.root.shards[1:]]
    shards: list[ShardInfo] = []
    moves: list[Move] = []
    written = changed = 0
    for number, entries in enumerate(_split(_relative(prefix, pages), bounds)):
        if not entries.keys:
            continue
        if old.root.shards and old.shard(number).same_objects(entries, encode(entries.keys)[1]):
            shards.append(old.root.shards[number])
            continue
        for part in _parts(prefix, entries):
            if old.root.shards:
                result = reassign(origin, prefix, old.shard(number), part)
                moves += result.moves
                changed += result.changed_bytes
                assignment = result.assignment
            else:
                assignment = assign(origin, prefix, part)
                changed += int(part.sizes.sum())
            shards.append(_write(part, assignment, sink, containers))
            written += 1
    return Refreshed(Root(origin.base_id, origin.scope, prefix, shards), moves, written, changed)


def _write(entries: Entries, assignment: Assignment, sink: Sink, containers: Entries | None) -> ShardInfo:
    data = encode_shard(entries, assignment, containers)
    info = shard_info(data, len(entries.keys), len(assignment.packs), int(entries.sizes.sum()), entries.keys[0])
    sink(info, data)
    return info


def _relative(prefix: bytes, pages: Iterable[Page]) -> Iterator[Entries]:
    """The pages as entries, checked for order."""
    cut, last = len(prefix), None
    for page in pages:
        keys = [key[cut:] for key in page.keys]
        if not keys:
            continue
        if (last is not None and keys[0] <= last) or any(map(bytes.__ge__, keys, keys[1:])):
            raise FormatError("the base listed keys out of order or twice")
        if max(map(len, keys)) > KEY_BYTES_MAX:
            raise FormatError(f"a key is longer than {KEY_BYTES_MAX} bytes")
        last = keys[-1]
        yield Entries(keys, page.sizes, page.versions, page.locations)


def _join(parts: list[Entries]) -> Entries:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Entries([], np.zeros(0, np.uint64), np.zeros((0, 16), np.uint8))
    keys = [key for part in parts for key in part.keys]
    located = [part.locations for part in parts if part.locations is not None]
    return Entries(
        keys,
        np.concatenate([part.sizes for part in parts]),
        np.concatenate([part.versions for part in parts]),
        np.concatenate(located) if located else None,
    )


def _runs(pages: Iterator[Entries], first_run: Callable[[Entries], int]) -> Iterator[Entries]:
    """Shard-sized runs of a stream."""
    held: list[Entries] = []
    count = 0
    for page in pages:
        held.append(page)
        count += len(page.keys)
        while count > SHARD_ENTRIES_MAX:
            entries = _join(held)
            stop = first_run(entries)
            yield entries.slice(0, stop)
            held, count = [entries.slice(stop, count)], count - stop
    if count:
        yield _join(held)


def _first_run(prefix: bytes, entries: Entries) -> int:
    """Where the first shard ends: at the last cut by content in its second half, so that no pack is torn."""
    half = SHARD_ENTRIES_MAX // 2
    cuts = np.flatnonzero(cut_after(prefix, entries.slice(half, SHARD_ENTRIES_MAX)))
    return half + int(cuts[-1]) + 1 if len(cuts) else SHARD_ENTRIES_MAX


def _parts(prefix: bytes, entries: Entries) -> Iterator[Entries]:
    return _runs(iter([entries]), lambda rest: _first_run(prefix, rest))


def _split(pages: Iterator[Entries], bounds: list[bytes]) -> Iterator[Entries]:
    """The stream cut where a key reaches the next bound: len(bounds) + 1 pieces, some empty."""
    held: list[Entries] = []
    number = 0
    for page in pages:
        rest = page
        while number < len(bounds) and rest.keys and rest.keys[-1] >= bounds[number]:
            stop = bisect_left(rest.keys, bounds[number])
            yield _join([*held, rest.slice(0, stop)] if stop else held)
            held, rest, number = [], rest.slice(stop, len(rest.keys)), number + 1
        if rest.keys:
            held.append(rest)
    while number < len(bounds):
        yield _join(held)
        held, number = [], number + 1
    yield _join(held)
