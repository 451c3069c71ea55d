"""A shard: up to a million objects in one immutable file that is mapped, never parsed. Format: docs/formats/manifest.md."""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING

import numpy as np

from swingby.core.containers.location import LOCATION_DTYPE, Where
from swingby.core.manifest.keys import Keys, encode
from swingby.core.manifest.packs import PACK_DTYPE, ROW_PACK, Assignment, Entries, row_sizes
from swingby.errors import FormatError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC = b"SWBYSHRD"
FORMAT = 1
FORMAT_OF_SAMPLES = 2  # of samples in containers: four sections more
SHARD_ENTRIES_MAX = 1_000_000

_HEADER = struct.Struct(
    "<8sII Q Q 6Q"
)  # magic, format, header bytes, objects, packs, 6 section offsets (the last: end)
_MORE = struct.Struct("<Q 4Q")  # containers, 4 section offsets (the last: end); before them, what was the end is one
_HEADER_BYTES = 128
_ALIGN = 64
_CONTAINER_DTYPE = np.dtype([("size", "<u8"), ("version", "V16")])


def encode_shard(entries: Entries, assignment: Assignment, containers: Entries | None = None) -> bytes:
    """The bytes of a shard file.

    Args:
        entries: of the shard.
        assignment: of them to packs.
        containers: what their locations refer to, where they have some.
    """
    offsets, keys = encode(entries.keys)
    sections = [
        np.ascontiguousarray(assignment.rows, "<u4").tobytes(),
        np.ascontiguousarray(entries.versions).tobytes(),
        assignment.packs.tobytes(),
        offsets.astype("<u4").tobytes(),
        keys,
    ]
    container_count = 0
    if containers is not None:
        container_count, more = _of_containers(entries, containers)
        sections += more
    places, at = [], _HEADER_BYTES
    for section in sections:
        places.append(at)
        at += -(-len(section) // _ALIGN) * _ALIGN
    version = FORMAT if containers is None else FORMAT_OF_SAMPLES
    places.append(at)
    head = _HEADER.pack(MAGIC, version, _HEADER_BYTES, len(entries.keys), len(assignment.packs), *places[:6])
    if containers is not None:
        head += _MORE.pack(container_count, *places[6:])
    parts = [head.ljust(_HEADER_BYTES, b"\0")]
    parts += [section.ljust(-(-len(section) // _ALIGN) * _ALIGN, b"\0") for section in sections]
    return b"".join(parts)


def _of_containers(entries: Entries, containers: Entries) -> tuple[int, list[bytes]]:
    """How many containers the entries lie in, and the sections that tell where."""
    assert entries.locations is not None  # entries of containers have them
    used, numbers = np.unique(entries.locations["container"], return_inverse=True)
    locations = entries.locations.copy()
    locations["container"] = numbers
    table = np.zeros(len(used), _CONTAINER_DTYPE)
    table["size"] = containers.sizes[used]
    table["version"] = np.ascontiguousarray(containers.versions[used]).view("V16").reshape(-1)
    offsets, keys = encode([containers.keys[number] for number in used.tolist()])
    return len(used), [locations.tobytes(), table.tobytes(), offsets.astype("<u4").tobytes(), keys]


class Shard:
    """Read access to a shard in memory or in a mapped file, whose digest the caller has checked.

    Attributes:
        rows: uint32[n, 4], see `packs.Assignment`.
        versions: uint8[n, 16].
        packs: the pack table.
        keys: the keys, relative to the manifest's prefix.
        locations: LOCATION_DTYPE[n], of samples in containers; None for objects.

    Raises:
        FormatError: not a shard, or of a version this release does not read.
    """

    def __init__(self, data: memoryview) -> None:
        if len(data) < _HEADER_BYTES:
            raise FormatError("a manifest shard is cut short")
        magic, version, _, count, pack_count, *places = _HEADER.unpack_from(data)
        if magic != MAGIC:
            raise FormatError("this is no manifest shard")
        if version not in {FORMAT, FORMAT_OF_SAMPLES}:
            raise FormatError(
                f"manifest shard of format {version}; this release reads {FORMAT} and {FORMAT_OF_SAMPLES}"
            )
        container_count, more = 0, []
        if version == FORMAT_OF_SAMPLES:
            container_count, *more = _MORE.unpack_from(data, _HEADER.size)
            places += more
        if places != sorted(places) or places[-1] != len(data):
            raise FormatError("a manifest shard has the wrong length")
        rows, versions, packs, offsets, keys, end = places[:6]
        self.locations: NDArray[np.void] | None = None
        try:
            self.rows = np.frombuffer(data, "<u4", count * 4, rows).reshape(count, 4)
            self.versions = np.frombuffer(data, np.uint8, count * 16, versions).reshape(count, 16)
            self.packs = np.frombuffer(data, PACK_DTYPE, pack_count, packs)
            blocks = _blocks(data, (offsets, keys), count)
            if more:
                table, container_offsets, container_keys, last = more
                self.locations = np.frombuffer(data, LOCATION_DTYPE, count, end)
                self._containers = np.frombuffer(data, _CONTAINER_DTYPE, container_count, table)
                container_blocks = _blocks(data, (container_offsets, container_keys), container_count)
                self._container_keys = Keys(container_blocks, data[container_keys:last], container_count)
        except (ValueError, OverflowError):
            raise FormatError("the sections of a manifest shard do not fit into it") from None
        self.keys = Keys(blocks, data[keys:end], count)

    def __len__(self) -> int:
        return len(self.rows)

    @functools.cached_property
    def live_counts(self) -> NDArray[np.int64]:
        """Objects of this manifest in each pack, and large ones: int64[packs + 1]; 5 ms for a million, once."""
        return np.bincount(self.rows[:, ROW_PACK], minlength=len(self.packs) + 1)

    def wheres(self, places: NDArray[np.intp], prefix: bytes) -> list[Where]:
        """Where samples lie; of a manifest of this prefix."""
        assert self.locations is not None  # asked of samples only
        rows = self.locations[places].tolist()
        containers = {
            number: (prefix + self._container_keys[number], *self._containers[number].item())
            for number in {row[2] for row in rows}
        }
        found = []
        for offset, stored, container, codec, check, _ in rows:
            key, size, version = containers[container]
            found.append(Where(key, offset, stored, size, version, codec, check))
        return found

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


def _blocks(data: memoryview, section: tuple[int, int], count: int) -> NDArray[np.uint32]:
    """Offsets of the blocks of so many keys."""
    start, stop = section
    return np.frombuffer(data, "<u4", (stop - start) // 4, start)[: -(-count // 16) + 1]
