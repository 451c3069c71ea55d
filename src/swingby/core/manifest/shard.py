"""A shard: up to a million objects in one immutable file that is mapped, never parsed. Format: docs/formats/manifest.md."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from swingby.core.manifest.keys import Keys, encode
from swingby.core.manifest.packs import PACK_DTYPE, ROW_PACK, Assignment, Entries, row_sizes
from swingby.errors import FormatError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC = b"SWBYSHRD"
FORMAT = 1
SHARD_ENTRIES_MAX = 1_000_000

_HEADER = struct.Struct(
    "<8sII Q Q 6Q"
)  # magic, format, header bytes, objects, packs, 6 section offsets (the last: end)
_HEADER_BYTES = 128
_ALIGN = 64


def encode_shard(entries: Entries, assignment: Assignment) -> bytes:
    """The bytes of a shard file."""
    offsets, keys = encode(entries.keys)
    sections = [
        np.ascontiguousarray(assignment.rows, "<u4").tobytes(),
        np.ascontiguousarray(entries.versions).tobytes(),
        assignment.packs.tobytes(),
        offsets.astype("<u4").tobytes(),
        keys,
    ]
    places, at = [], _HEADER_BYTES
    for section in sections:
        places.append(at)
        at += -(-len(section) // _ALIGN) * _ALIGN
    head = _HEADER.pack(MAGIC, FORMAT, _HEADER_BYTES, len(entries.keys), len(assignment.packs), *places, at)
    parts = [head.ljust(_HEADER_BYTES, b"\0")]
    parts += [section.ljust(-(-len(section) // _ALIGN) * _ALIGN, b"\0") for section in sections]
    return b"".join(parts)


class Shard:
    """Read access to a shard in memory or in a mapped file, whose digest the caller has checked.

    Attributes:
        rows: uint32[n, 4], see `packs.Assignment`.
        versions: uint8[n, 16].
        packs: the pack table.
        keys: the keys, relative to the manifest's prefix.

    Raises:
        FormatError: not a shard, or of a version this release does not read.
    """

    def __init__(self, data: memoryview) -> None:
        if len(data) < _HEADER_BYTES:
            raise FormatError("a manifest shard is cut short")
        magic, version, _, count, pack_count, *places = _HEADER.unpack_from(data)
        if magic != MAGIC:
            raise FormatError("this is no manifest shard")
        if version != FORMAT:
            raise FormatError(f"manifest shard of format {version}; this release reads {FORMAT}")
        if places != sorted(places) or places[-1] != len(data):
            raise FormatError("a manifest shard has the wrong length")
        rows, versions, packs, offsets, keys, end = places
        try:
            self.rows = np.frombuffer(data, "<u4", count * 4, rows).reshape(count, 4)
            self.versions = np.frombuffer(data, np.uint8, count * 16, versions).reshape(count, 16)
            self.packs = np.frombuffer(data, PACK_DTYPE, pack_count, packs)
            blocks = np.frombuffer(data, "<u4", (keys - offsets) // 4, offsets)[: -(-count // 16) + 1]
        except (ValueError, OverflowError):
            raise FormatError("the sections of a manifest shard do not fit into it") from None
        self.keys = Keys(blocks, data[keys:end], count)

    def __len__(self) -> int:
        return len(self.rows)

    def sizes(self) -> NDArray[np.int64]:
        """Sizes in bytes of all objects: int64[n]."""
        return row_sizes(self.rows, self.rows[:, ROW_PACK] == len(self.packs))

    def entries(self) -> Entries:
        """Everything unpacked."""
        return Entries(list(self.keys), self.sizes().astype(np.uint64), np.array(self.versions))

    def same_objects(self, entries: Entries, encoded_keys: bytes) -> bool:
        """Whether these are the very objects of the shard; `encoded_keys` are `entries.keys` encoded."""
        return (
            len(entries.keys) == len(self)
            and bytes(self.keys.data[: len(encoded_keys)]) == encoded_keys
            and bool(np.array_equal(self.sizes(), entries.sizes))
            and bool(np.array_equal(self.versions, entries.versions))
        )
