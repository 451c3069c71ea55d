"""Flips bits in the files of a home, and knows what they stand for."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from swingby.core.checksum import fast_digest
from swingby.errors import FormatError
from swingby.levels import map_file

if TYPE_CHECKING:
    import random

HEADER_BYTES = 200
HEADER_SHARE = 0.3  # of the flips, in the first bytes of a file
VERSION_OFFSET = 8  # behind the magic, in every format
MAP_CHECK_OFFSET = 80


class Flip(NamedTuple):
    """A file, and whether a flip in it hit the bytes of a present chunk.

    Attributes:
        kind: "memory.seg", "burst.map", "roots", "shards", "places", …
        path: of the file.
        is_covered: as far as it is known.
    """

    kind: str
    path: str
    is_covered: bool = False


def places_of(folders: dict[str, str]) -> list[Flip]:
    """Every file of a home that can be flipped.

    Args:
        folders: of "memory", "burst" and "manifests".
    """
    found = []
    for level in ("memory", "burst"):
        for name in sorted(os.listdir(folders[level])):
            path = os.path.join(folders[level], name)
            if name.endswith((".seg", ".map")) and os.path.getsize(path):
                found.append(Flip(level + name[-4:], path))
    for kind in ("roots", "shards", "places"):
        folder = os.path.join(folders["manifests"], kind)
        found += [Flip(kind, os.path.join(folder, name)) for name in sorted(os.listdir(folder))] * 3  # they are few
    return found


def flip_in(place: Flip, rng: random.Random) -> Flip:
    """Flip one bit of a file."""
    size = os.path.getsize(place.path)
    offset = rng.randrange(min(size, HEADER_BYTES) if rng.random() < HEADER_SHARE else size)
    descriptor = os.open(place.path, os.O_RDWR)
    try:
        (byte,) = os.pread(descriptor, 1, offset)
        os.pwrite(descriptor, bytes([byte ^ 1 << rng.randrange(8)]), offset)
    finally:
        os.close(descriptor)
    return place._replace(is_covered=place.kind.endswith(".seg") and _is_present(place.path, offset))


def later_format(place: Flip) -> bytes:
    """Make a file one of the next format, whole by its own checksum; its bytes. Empty where that kind has no number."""
    with open(place.path, "r+b") as file:
        data = bytearray(file.read())
        if place.kind.endswith(".seg"):
            return b""
        (version,) = struct.unpack_from("<I", data, VERSION_OFFSET)
        struct.pack_into("<I", data, VERSION_OFFSET, version + 1)
        if place.kind.endswith(".map"):
            struct.pack_into("<Q", data, MAP_CHECK_OFFSET, fast_digest(data[:MAP_CHECK_OFFSET]))
        file.seek(0)
        file.write(data)
    return bytes(data)


def _is_present(path: str, offset: int) -> bool:
    """Whether a byte of a segment belongs to a chunk that its map says is there."""
    with open(path.removesuffix(".seg") + ".map", "rb") as file:
        data = file.read()
    try:
        segment = map_file.decode_header(data).segment
    except FormatError:  # hit itself, then its segment is not used
        return False
    entries = np.frombuffer(data, "<u8", offset=map_file.ENTRIES_OFFSET).reshape(-1, 2)
    for chunk in np.flatnonzero(entries[:, 0]).tolist():
        start, size = map_file.extent_of(segment, entries, chunk)
        if start <= offset < start + size:
            return True
    return False
