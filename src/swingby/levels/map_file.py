"""The map beside a segment's bytes: which chunks are present, and what their bytes are. Format: docs/formats/segment.md.

A header under a checksum, then a live/dead mark outside of it, then an entry of 16 bytes for each chunk: its xxh3 (0: absent; a
true 0 is written as 1) and, for packs, offset and size in the segment, so that a segment can be verified without its manifest.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from swingby.core.checksum import fast_digest
from swingby.core.segment import Segment, chunk_extent
from swingby.errors import FormatError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAGIC = b"SWBYMAP\0"
FORMAT = 1
MARK_OFFSET = 128
ENTRIES_OFFSET = 192
ENTRY_BYTES = 16
DEAD = b"DEAD"

_HEADER = struct.Struct(
    "<8sII16sQQQI4x16s"
)  # magic, format, header bytes, id, generation, size, chunks, packed, boot id
_CHECK = struct.Struct("<Q")
_EXTENT_SIZE_BITS = 24  # of a pack's extent: size up to 4 MiB in the lower bits, offset above


class MapHeader(NamedTuple):
    """What a map says of its segment.

    Attributes:
        segment: which one.
        generation: random; tells this pair from others of the same segment.
        boot_id: 16 bytes; of the boot in which the entries were checked.
    """

    segment: Segment
    generation: int
    boot_id: bytes


def map_bytes(chunk_count: int) -> int:
    """Size of a map file."""
    return ENTRIES_OFFSET + chunk_count * ENTRY_BYTES


def encode_header(header: MapHeader) -> bytes:
    """The bytes before the entries, marked as live."""
    identity, size, count, packed = header.segment
    body = _HEADER.pack(
        MAGIC, FORMAT, ENTRIES_OFFSET, identity, header.generation, size, count, int(packed), header.boot_id
    )
    return (body + _CHECK.pack(fast_digest(body))).ljust(ENTRIES_OFFSET, b"\0")


def decode_header(data: bytes) -> MapHeader:
    """The inverse of `encode_header`.

    Raises:
        FormatError: not a map, damaged, or of a version this release does not read.
    """
    if len(data) < ENTRIES_OFFSET:
        raise FormatError("a segment map is cut short")
    magic, version, _, identity, generation, size, count, packed, boot_id = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise FormatError("this is no segment map")
    if version != FORMAT:
        raise UnknownFormatError(f"segment map of format {version}; this release reads {FORMAT}")
    if _CHECK.unpack_from(data, _HEADER.size)[0] != fast_digest(data[: _HEADER.size]):
        raise FormatError("a segment map is damaged")
    return MapHeader(Segment(identity, size, count, bool(packed)), generation, boot_id)


class UnknownFormatError(FormatError):
    """A map of another version: set aside, not removed, since another release may read it."""


def is_dead(data: bytes | memoryview) -> bool:
    """Whether the pair has been evicted."""
    return bytes(data[MARK_OFFSET : MARK_OFFSET + len(DEAD)]) == DEAD


def pack_extent(offset: int, size: int) -> int:
    """The second half of an entry."""
    return offset << _EXTENT_SIZE_BITS | size


def extent_of(segment: Segment, entries: NDArray[np.uint64], chunk: int) -> tuple[int, int]:
    """Offset and size of a present chunk, by the map alone."""
    if not segment.packed:
        return chunk_extent(segment, chunk)
    extent = int(entries[chunk, 1])
    return extent >> _EXTENT_SIZE_BITS, extent & (1 << _EXTENT_SIZE_BITS) - 1
