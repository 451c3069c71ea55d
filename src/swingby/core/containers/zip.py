"""The members of a zip, from its central directory alone. Zip64; members that are stored or deflated.

Directories and links are left out. Refused are encryption, other methods, members that overlap, sizes that no compression can
give, and a large member that is deflated: it would have to be inflated whole for any part of it.
"""

from __future__ import annotations

import stat
import struct
from typing import TYPE_CHECKING, NamedTuple

from swingby.core.containers.index import Found
from swingby.core.containers.location import LOCAL_HEADER, LOCAL_MAGIC, RAW, ZIP_DEFLATED, ZIP_STORED
from swingby.core.segment import CHUNK_BYTES

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from swingby.core.containers.window import Window
    from swingby.errors import BadContainerError

DEFLATED_BYTES_MAX = 256 << 20  # inflated in memory, a member
DEFLATE_RATIO_MAX = 1032  # what deflate can do at most (zlib's technical details)
EXTRA_BYTES_MAX = 0xFFFF  # of a local header, whose length the directory does not tell

_END = struct.Struct("<4s4H2IH")
_END_64_LOCATOR = struct.Struct("<4sIQI")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_MAX_32 = 0xFFFFFFFF
_UTF8, _ENCRYPTED = 0x800, 0x1
_UNIX = 3
_METHODS = {0: ZIP_STORED, 8: ZIP_DEFLATED}


class _Directory(NamedTuple):
    """Where the central directory lies."""

    start: int
    stop: int
    entries: int
    shift: int  # bytes before the zip itself, as of a self-extracting one


class _Entry(NamedTuple):
    name: bytes
    at: int  # in the directory
    header: int
    name_bytes: int
    compressed: int
    size: int
    codec: int
    check: int


def members(window: Window, left_out: Counter[str]) -> Iterator[Found]:
    """All files.

    Raises:
        BadContainerError: it is no zip, damaged, cut short, or holds what is refused.
    """
    directory = _directory(window)
    entries = sorted(_entries(window, directory, left_out), key=lambda entry: entry.header)
    stops = [*(entry.header for entry in entries), directory.start][1:]
    for entry, stop in zip(entries, stops, strict=True):
        least = LOCAL_HEADER.size + entry.name_bytes + entry.compressed
        if entry.header + least > stop:
            raise window.bad(entry.at, f"{_shown(entry.name)} overlaps what follows it")
    for entry, stop in zip(entries, stops, strict=True):
        yield _found(window, entry, stop)


def _found(window: Window, entry: _Entry, stop: int) -> Found:
    most = LOCAL_HEADER.size + entry.name_bytes + EXTRA_BYTES_MAX + entry.compressed
    stored = min(stop - entry.header, most)
    if (
        entry.codec == ZIP_STORED and entry.size > CHUNK_BYTES
    ):  # read by ranges, so that its bytes must be known exactly
        header = window.at(entry.header, LOCAL_HEADER.size)
        magic, *_, name_bytes, extra_bytes = LOCAL_HEADER.unpack(header)
        start = entry.header + LOCAL_HEADER.size + name_bytes + extra_bytes
        if magic != LOCAL_MAGIC or start + entry.size > entry.header + stored:
            raise window.bad(entry.header, f"the local header of {_shown(entry.name)} is damaged")
        return Found(entry.name, entry.size, start, entry.size, RAW)
    return Found(entry.name, entry.size, entry.header, stored, entry.codec, entry.check)


def _directory(window: Window) -> _Directory:
    at = _end(window)
    _, _, _, _, count, size, offset, _ = _END.unpack(window.at(at, _END.size))
    end = at
    if at >= _END_64_LOCATOR.size:
        magic, _, place, _ = _END_64_LOCATOR.unpack(window.at(at - _END_64_LOCATOR.size, _END_64_LOCATOR.size))
        if magic == b"PK\x06\x07":
            end = at - _END_64_LOCATOR.size - _END_64.size
            if end < 0 or place > end:
                raise window.bad(at, "its end record is damaged")
            found = _END_64.unpack(window.at(end, _END_64.size))
            if found[0] != b"PK\x06\x06":
                raise window.bad(end, "its end record is damaged")
            count, size, offset = found[7], found[8], found[9]
    start = end - size
    if start < 0 or offset > start or count * _ENTRY.size > size:
        raise window.bad(at, "its directory does not lie where its end record says: it is cut short or damaged")
    return _Directory(start, end, count, start - offset)


def _end(window: Window) -> int:
    """Where the end record begins; a comment may follow it."""
    size = min(window.size, _END.size + 0xFFFF)
    for length in (min(size, 1024), size):  # few have a comment
        first = window.size - length
        tail = window.at(first, length).tobytes()
        at = tail.rfind(b"PK\x05\x06")
        while at >= 0:
            if at + _END.size <= length and first + at + _END.size + _END.unpack_from(tail, at)[7] == window.size:
                return first + at
            at = tail.rfind(b"PK\x05\x06", 0, at)
    raise window.bad(window.size, "it has no end record: it is no zip, or cut short")


def _entries(window: Window, directory: _Directory, left_out: Counter[str]) -> Iterator[_Entry]:
    at = directory.start
    for _ in range(directory.entries):
        if at + _ENTRY.size > directory.stop:
            raise window.bad(at, "its directory is cut short")
        fields = _ENTRY.unpack(window.at(at, _ENTRY.size))
        name_bytes, extra_bytes, comment_bytes = fields[10:13]
        length = _ENTRY.size + name_bytes + extra_bytes + comment_bytes
        if fields[0] != b"PK\x01\x02" or at + length > directory.stop:
            raise window.bad(at, "an entry of its directory is damaged")
        raw = window.at(at + _ENTRY.size, name_bytes + extra_bytes).tobytes()
        name, extra = raw[:name_bytes], raw[name_bytes:]
        kind = stat.S_IFMT(fields[15] >> 16) if fields[1] >> 8 == _UNIX else 0
        if name.endswith(b"/"):
            left_out["folder"] += 1
        elif kind == stat.S_IFLNK:
            left_out["link"] += 1
        else:
            yield _entry(window, directory, (at, fields, name), extra)
        at += length


def _entry(window: Window, directory: _Directory, read: tuple[int, tuple[int, ...], bytes], extra: bytes) -> _Entry:
    at, fields, raw_name = read
    flags, method, check, compressed, size, header = (*fields[3:5], *fields[7:10], fields[16])
    name = raw_name if flags & _UTF8 else raw_name.decode("cp437").encode()
    size, compressed, header = _wide(extra, [size, compressed, header], window, at)
    if flags & _ENCRYPTED:
        raise window.bad(at, f"{_shown(name)} is encrypted")
    codec = _METHODS.get(method)
    if codec is None:
        raise window.bad(at, f"{_shown(name)} is compressed by method {method}; stored and deflated members are read")
    if (codec == ZIP_STORED and size != compressed) or size > compressed * DEFLATE_RATIO_MAX + 64:
        raise window.bad(at, f"{_shown(name)} cannot be {size} bytes, stored in {compressed}")
    if codec == ZIP_DEFLATED and size > DEFLATED_BYTES_MAX:
        raise _too_large(window, at, name, size)
    return _Entry(name, at, header + directory.shift, len(raw_name), compressed, size, codec, check)


def _too_large(window: Window, at: int, name: bytes, size: int) -> BadContainerError:
    return window.bad(
        at,
        f"{_shown(name)} is deflated and holds {size} bytes; above {DEFLATED_BYTES_MAX >> 20} MiB store it, or unpack",
    )


def _wide(extra: bytes, narrow: list[int], window: Window, at: int) -> list[int]:
    """Sizes and offset, those that do not fit 32 bits from the zip64 field."""
    if _MAX_32 not in narrow:
        return narrow
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, place)
        field = extra[place + 4 : place + 4 + length]
        if kind == 1:
            values = list(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
            if len(values) >= narrow.count(_MAX_32):
                return [values.pop(0) if one == _MAX_32 else one for one in narrow]
        place += 4 + length
    raise window.bad(at, "an entry of its directory lacks its zip64 sizes")


def _shown(name: bytes) -> str:
    return repr(name[:100].decode("utf-8", "replace"))
