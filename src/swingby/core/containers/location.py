"""Where a sample lies in its container, and how the bytes of that range become the sample's.

Codecs: `RAW`, the range is the sample; `ZIP_STORED` and `ZIP_DEFLATED`, the range begins with a zip member's local header, whose
length only it tells. What a zip holds is checked against the CRC-32 of its directory.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from swingby.core.object import key_text
from swingby.errors import CorruptDataError

if TYPE_CHECKING:
    from typing_extensions import Buffer

RAW, ZIP_STORED, ZIP_DEFLATED = range(3)
LOCATION_DTYPE = np.dtype(
    [
        ("offset", "<u8"),
        ("stored_bytes", "<u8"),
        ("container", "<u4"),
        ("codec", "<u4"),
        ("check", "<u4"),
        ("reserved", "<u4"),
    ]
)
LOCAL_HEADER = struct.Struct("<4s5H3I2H")
LOCAL_MAGIC = b"PK\x03\x04"


class Where(NamedTuple):
    """The bytes of one sample in the base.

    Attributes:
        key: full key of the object that holds them.
        start, stored_bytes: the range of it.
        object_size, version: of that object.
        codec, check: how the range becomes the sample.
    """

    key: bytes
    start: int
    stored_bytes: int
    object_size: int
    version: bytes
    codec: int = RAW
    check: int = 0

    def coded(self, size: int) -> Coded:
        """How its range becomes a sample of this size."""
        return Coded(self.codec, self.check, size)


class Coded(NamedTuple):
    """How a range becomes a sample.

    Attributes:
        codec, check: see the module's text.
        size: of the sample in bytes.
    """

    codec: int
    check: int
    size: int


def sample_in(stored: Buffer, coded: Coded, place: tuple[bytes, int]) -> memoryview:
    """As `plain`, with a name in the error.

    Args:
        stored: the range.
        coded: how it becomes the sample.
        place: key of the container, and where the range begins.

    Raises:
        CorruptDataError: the range does not hold the sample.
    """
    try:
        return plain(coded, stored)
    except CorruptDataError as error:
        key = key_text(place[0])
        raise CorruptDataError(
            f"{key}, byte {place[1]}: {error.message}", key=key, remedy="Check the container"
        ) from None


def plain(coded: Coded, stored: Buffer) -> memoryview:
    """The sample that a range holds; a view of it where nothing has to be unpacked.

    Raises:
        CorruptDataError: it does not hold it.
    """
    view = memoryview(stored).cast("B")
    if coded.codec == RAW:
        return view
    if len(view) < LOCAL_HEADER.size:
        raise CorruptDataError("a member's local header is cut short")
    magic, *_, name_bytes, extra_bytes = LOCAL_HEADER.unpack_from(view)
    if magic != LOCAL_MAGIC:
        raise CorruptDataError("there is no local header where the zip's directory says that a member begins")
    body = view[LOCAL_HEADER.size + name_bytes + extra_bytes :]
    data = body[: coded.size] if coded.codec == ZIP_STORED else _inflated(body, coded.size)
    if len(data) != coded.size or zlib.crc32(data) != coded.check:
        raise CorruptDataError("a zip member does not match the size and CRC-32 of the zip's directory")
    return data


def _inflated(body: memoryview, size: int) -> memoryview:
    """At most one byte more than there should be, however much the stream would give."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = stream.decompress(body, size + 1)
    except zlib.error as error:
        raise CorruptDataError(f"a zip member cannot be inflated: {error}") from None
    return memoryview(data)
