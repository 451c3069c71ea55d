"""The records of a TFRecord file: length (u64), its checksum, payload, the payload's checksum.

The checksum of every length is compared; those of payloads are not: the version of the file says that they are what was written.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from swingby.core.containers.crc32c import crc32c, masked
from swingby.core.containers.index import Found

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swingby.core.containers.window import Window

NAME_DIGITS = 10

_HEADER = struct.Struct("<QI")
_FOOTER_BYTES = 4


def records(window: Window) -> Iterator[Found]:
    """All records, named by their number.

    Raises:
        BadContainerError: it is none, compressed, damaged or cut short.
    """
    at = number = 0
    while at < window.size:
        header = window.at(at, _HEADER.size)
        size, check = _HEADER.unpack(header)
        if masked(crc32c(bytes(header[:8]))) != check:
            raise window.bad(at, _why_no_length(at, header))
        start = at + _HEADER.size
        if start + size + _FOOTER_BYTES > window.size:
            raise window.bad(at, f"a record of {size} bytes does not fit: it is cut short")
        yield Found(b"%0*d" % (NAME_DIGITS, number), size, start, size)
        at = start + size + _FOOTER_BYTES
        number += 1


def _why_no_length(at: int, header: memoryview) -> str:
    if at == 0 and bytes(header[:2]) == b"\x1f\x8b":
        return "it is compressed by gzip, and parts of it cannot be read; write it without compression"
    return "the checksum of a record's length is wrong" if at else "it is no TFRecord file"
