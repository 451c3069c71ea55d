"""What must be read from the base to make chunks present: pure planning, no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swingby.core.containers.location import RAW, Where
from swingby.core.segment import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from swingby.core.containers.location import Coded
    from swingby.core.segment import Segment

# Read along between two samples of a container, such as a tar's headers; less than a request costs anywhere.
GAP_BYTES_MAX = 4096


class Piece(NamedTuple):
    """One sample of those that a request reads together; or one chunk of a large sample that is compressed.

    Attributes:
        chunk, offset: where it belongs in the segment.
        start, stored_bytes: the sample's range in the object.
        coded: how the range becomes the sample.
    """

    chunk: int
    offset: int
    start: int
    stored_bytes: int
    coded: Coded


class Fetch(NamedTuple):
    """One request to a base.

    Attributes:
        segment: where the bytes belong.
        chunk: number of the first chunk that they fill.
        offset: of that chunk in the segment.
        key: full key in the base.
        start, size: the range of the object to read.
        object_size: size of the whole object; when it equals `size`, no range is asked for.
        version: the version the object must have.
        pieces: what the range holds, each a chunk; none: the range is what the chunks hold.
    """

    segment: Segment
    chunk: int
    offset: int
    key: bytes
    start: int
    size: int
    object_size: int
    version: bytes
    pieces: tuple[Piece, ...] = ()


def object_fetches(segment: Segment, where: Where, chunks: Iterable[int], *, range_bytes: int) -> list[Fetch]:
    """Requests for chunks of an object segment: neighbours joined, none longer than `range_bytes`.

    Args:
        segment: of kind object.
        where: its bytes lie. What is compressed is asked for as a whole, whichever chunks are absent; then each is a piece.
        chunks: numbers of the absent chunks, ascending.
        range_bytes: the longest range, at least one chunk.
    """
    if where.codec != RAW:
        range_ = where.start, where.stored_bytes, where.coded(segment.size_bytes)
        return [_fetch(segment, where, where.stored_bytes, tuple(Piece(n, n * CHUNK_BYTES, *range_) for n in chunks))]
    fetches: list[Fetch] = []
    longest = max(1, range_bytes // CHUNK_BYTES)
    run: list[int] = []
    for chunk in [*chunks, -1]:
        if run and (chunk != run[-1] + 1 or len(run) == longest):
            start = run[0] * CHUNK_BYTES
            size = min(segment.size_bytes, (run[-1] + 1) * CHUNK_BYTES) - start
            place = where.key, where.start + start, size, where.object_size, where.version
            fetches.append(Fetch(segment, run[0], start, *place))
            run = []
        run.append(chunk)
    return fetches


def sample_fetches(segment: Segment, samples: Iterable[tuple[Where, Piece]], *, range_bytes: int) -> list[Fetch]:
    """Requests for samples in containers: those that follow each other closely in one range, of `range_bytes` at most."""
    fetches: list[Fetch] = []
    run: list[Piece] = []
    of: Where | None = None
    stop = 0
    for where, piece in sorted(samples, key=lambda one: (one[0].key, one[1].start, one[1].chunk)):
        end = piece.start + piece.stored_bytes
        if (
            run
            and of
            and (where.key != of.key or piece.start - stop > GAP_BYTES_MAX or end - run[0].start > range_bytes)
        ):
            fetches.append(_fetch(segment, of, stop - run[0].start, tuple(run)))
            run = []
        stop = max(stop, end) if run else end
        of = where
        run.append(piece)
    if run and of:
        fetches.append(_fetch(segment, of, stop - run[0].start, tuple(run)))
    return fetches


def without(fetch: Fetch, present: Collection[int], *, range_bytes: int) -> list[Fetch]:
    """What is left of a request for samples once some chunks are present."""
    where = Where(fetch.key, fetch.start, fetch.size, fetch.object_size, fetch.version)
    rest = [(where, piece) for piece in fetch.pieces if piece.chunk not in present]
    return [fetch] if len(rest) == len(fetch.pieces) else sample_fetches(fetch.segment, rest, range_bytes=range_bytes)


def chunk_sizes(fetch: Fetch) -> list[int]:
    """Sizes of the chunks that a fetch without pieces fills, in order."""
    if fetch.segment.packed:
        return [fetch.size]
    whole, rest = divmod(fetch.size, CHUNK_BYTES)
    return [CHUNK_BYTES] * whole + ([rest] if rest or not whole else [])


def chunk_numbers(fetch: Fetch) -> list[int]:
    """Numbers of the chunks that a fetch fills, ascending."""
    if fetch.pieces:
        return sorted(piece.chunk for piece in fetch.pieces)
    return list(range(fetch.chunk, fetch.chunk + len(chunk_sizes(fetch))))


def memory_bytes(fetch: Fetch) -> int:
    """What a fetch holds in memory: what is read, and what is unpacked of it."""
    unpacked = [piece.coded.size for piece in fetch.pieces if piece.coded.codec != RAW]
    return fetch.size + (sum(unpacked) if fetch.segment.packed else max(unpacked, default=0))


def _fetch(segment: Segment, where: Where, size: int, pieces: tuple[Piece, ...]) -> Fetch:
    first = pieces[0]
    place = where.key, first.start, size, where.object_size, where.version
    return Fetch(segment, first.chunk, first.offset, *place, pieces)
