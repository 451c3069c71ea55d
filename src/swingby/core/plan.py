"""What must be read from the base to make chunks present: pure planning, no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swingby.core.segment import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swingby.core.segment import Segment


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
    """

    segment: Segment
    chunk: int
    offset: int
    key: bytes
    start: int
    size: int
    object_size: int
    version: bytes


def object_fetches(
    segment: Segment, key: bytes, version: bytes, chunks: Iterable[int], *, range_bytes: int
) -> list[Fetch]:
    """Requests for chunks of an object segment: neighbours joined, none longer than `range_bytes`.

    Args:
        segment: of kind object.
        key: full key.
        version: token the object must have.
        chunks: numbers of the absent chunks, ascending.
        range_bytes: the longest range, at least one chunk.
    """
    fetches: list[Fetch] = []
    longest = max(1, range_bytes // CHUNK_BYTES)
    run: list[int] = []
    for chunk in [*chunks, -1]:
        if run and (chunk != run[-1] + 1 or len(run) == longest):
            start = run[0] * CHUNK_BYTES
            size = min(segment.size_bytes, (run[-1] + 1) * CHUNK_BYTES) - start
            fetches.append(Fetch(segment, run[0], start, key, start, size, segment.size_bytes, version))
            run = []
        run.append(chunk)
    return fetches


def chunk_sizes(fetch: Fetch) -> list[int]:
    """Sizes of the chunks that a fetch fills, in order."""
    if fetch.segment.packed:
        return [fetch.size]
    whole, rest = divmod(fetch.size, CHUNK_BYTES)
    return [CHUNK_BYTES] * whole + ([rest] if rest or not whole else [])
