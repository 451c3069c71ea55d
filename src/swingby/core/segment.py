"""Segments: what a level holds, maps and evicts; and the chunks they are made of.

A segment is one object (kind "object", chunks of 4 MiB) or a pack of whole small objects (one chunk each). Its id is a digest
of (format, scope, base id, keys, sizes, versions), so every node computes the same one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from swingby.core.checksum import name_digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK_BYTES = 4 << 20  # of a large object; also the size above which an object is large
ALIGNMENT_BYTES = 64  # of objects in a pack: a cache line
PACK_CUT_BYTES = 32 << 20  # a cut follows an object with probability size / 32 MiB: median pack 22 MiB
PACK_BYTES_MAX = 256 << 20
SEGMENT_ID_BYTES = 16


class Segment(NamedTuple):
    """What a level must know to hold a segment.

    Attributes:
        id: 16 bytes.
        size_bytes: of the segment file when everything is present.
        chunk_count: number of chunks.
        packed: whether each chunk is one small object, at an offset of its own.
    """

    id: bytes
    size_bytes: int
    chunk_count: int
    packed: bool


class Origin(NamedTuple):
    """What sets one base's objects apart from another's in segment ids."""

    base_id: str
    scope: str


def aligned(sizes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Bytes that objects of these sizes take in a pack."""
    mask = np.uint64(ALIGNMENT_BYTES - 1)
    return (sizes + mask) & ~mask


def object_segment(origin: Origin, key: bytes, size: int, version: bytes) -> Segment:
    """The segment of one object by itself."""
    identity = name_digest(
        b"swingby.object.1", origin.scope.encode(), origin.base_id.encode(), key, size.to_bytes(8, "little"), version
    )
    return Segment(identity, size, max(1, -(-size // CHUNK_BYTES)), packed=False)


def pack_id(origin: Origin, keys: list[bytes], sizes: NDArray[np.uint64], versions: NDArray[np.uint8]) -> bytes:
    """The id of a pack of these objects, given by full key in key order."""
    lengths = np.fromiter(map(len, keys), "<u4", len(keys))
    return name_digest(
        b"swingby.pack.1",
        origin.scope.encode(),
        origin.base_id.encode(),
        lengths.tobytes(),
        b"".join(keys),
        sizes.astype("<u8").tobytes(),
        versions.tobytes(),
    )


def chunk_extent(segment: Segment, number: int) -> tuple[int, int]:
    """Offset and size in bytes of a chunk of an object segment."""
    offset = number * CHUNK_BYTES
    return offset, min(CHUNK_BYTES, segment.size_bytes - offset)


def chunks_between(start: int, stop: int) -> range:
    """The chunks of an object segment that hold the bytes [start, stop)."""
    return range(start // CHUNK_BYTES, -(-stop // CHUNK_BYTES))
