"""The members of a tar: v7, ustar, GNU and pax, as Python's tarfile writes and reads them.

Links, directories, devices and sparse files hold no bytes of their own that could be a sample; they are counted and left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swingby.core.manifest.keys import KEY_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swingby.core.containers.window import Window

BLOCK_BYTES = 512
PAX_BYTES_MAX = 1 << 20
DIGITS_MAX = 20

FILE, LINK, FOLDER, DEVICE, SPARSE, UNKNOWN = (
    "file",
    "link",
    "folder",
    "device",
    "sparse file",
    "member of an unknown type",
)
_KINDS = {
    b"0": FILE,
    b"\0": FILE,
    b"7": FILE,
    b"1": LINK,
    b"2": LINK,
    b"3": DEVICE,
    b"4": DEVICE,
    b"5": FOLDER,
    b"6": DEVICE,
    b"S": SPARSE,
}
_WITHOUT_DATA = (LINK, FOLDER, DEVICE)
_EXTENDING = (b"L", b"K", b"x", b"X", b"g")  # headers that say something of the next member, or of all
_ASCII = bytes(range(128))
_BASE_256 = b"\x80"
_ZEROS = bytes(BLOCK_BYTES)
_NO_END = "it ends without the empty blocks that end a tar: it is cut short"
_GZIP, _BZIP2, _XZ, _ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"


class Member(NamedTuple):
    """One member.

    Attributes:
        name: as bytes.
        start: of its first header block, those of a long name included.
        offset, size: of its data.
        kind: FILE, …
    """

    name: bytes
    start: int
    offset: int
    size: int
    kind: str


class _Extended(NamedTuple):
    """What the headers before a member's own say of it."""

    name: bytes | None = None
    size: int | None = None
    is_sparse: bool = False


def members(window: Window, *, is_whole: bool = True) -> Iterator[Member]:
    """All members, in the order of the tar.

    Args:
        window: onto it.
        is_whole: it is a tar to its end; else a run of members cut out of one.

    Raises:
        BadContainerError: it is no tar, damaged or cut short.
    """
    at = start = 0
    extended = _Extended()
    while True:
        if at >= window.size and not is_whole:
            return
        if at + BLOCK_BYTES > window.size:
            raise window.bad(at, _NO_END if at else "it is too short for a tar")
        block = window.at(at, BLOCK_BYTES).tobytes()
        if block == _ZEROS:
            if extended != _Extended():
                raise window.bad(start, "a header is followed by none of a member")
            return
        if at == 0:
            _refuse_compressed(window, block)
        _check(window, at, block)
        kind = block[156:157]
        size = _number(window, at, block[124:136])
        if kind in _EXTENDING:
            extended = _extend(window, extended, (at, kind, size))
            at += BLOCK_BYTES + _padded(size)
            continue
        member = _member(window, block, (start, at, size), extended)
        yield member
        at = member.offset + (0 if member.kind in _WITHOUT_DATA else _padded(member.size))
        start, extended = at, _Extended()


def _member(window: Window, block: bytes, place: tuple[int, int, int], extended: _Extended) -> Member:
    start, at, size = place
    kind = _KINDS.get(block[156:157], UNKNOWN)
    name = extended.name
    if name is None:
        name = block[:100].split(b"\0", 1)[0]
        prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
        name = prefix + b"/" + name if prefix else name
    size = size if extended.size is None else extended.size
    if kind == FILE and extended.is_sparse:
        kind = SPARSE
    elif kind == FILE and name.endswith(b"/") and block[156:157] == b"\0":
        kind = FOLDER
    offset = at + BLOCK_BYTES
    if block[156:157] == b"S":
        offset = _behind_sparse_map(window, at, block)
    if kind not in _WITHOUT_DATA and offset + size > window.size:
        raise window.bad(
            at, f"{_shown(name)} should have {size} bytes, and {max(0, window.size - offset)} are left: it is cut short"
        )
    if kind == FILE and (not name or b"\0" in name):
        raise window.bad(at, "a member has no name, or one with a NUL")
    return Member(name, start, offset, size, kind)


def _extend(window: Window, before: _Extended, header: tuple[int, bytes, int]) -> _Extended:
    """What a header of a long name or of pax records adds."""
    at, kind, size = header
    if size > PAX_BYTES_MAX:
        raise window.bad(at, f"a header of {size} bytes is longer than any should be")
    data = window.at(at + BLOCK_BYTES, size).tobytes()
    if kind == b"L":
        return before._replace(name=data.split(b"\0", 1)[0][: KEY_BYTES_MAX + 1])
    if kind == b"K":
        return before
    records = _records(window, at, data)
    is_sparse = any(name.startswith(b"GNU.sparse.") for name in records)
    if kind == b"g":
        if is_sparse or b"path" in records or b"size" in records:
            raise window.bad(at, "a header for all members sets their path or size, which makes no sense")
        return before
    name = records.get(b"GNU.sparse.name", records.get(b"path", before.name))
    length = before.size
    if b"size" in records:
        if not records[b"size"].isdigit() or len(records[b"size"]) > DIGITS_MAX:
            raise window.bad(at, "a pax record gives a size that is no number")
        length = int(records[b"size"])
    return _Extended(name, length, before.is_sparse or is_sparse)


def _records(window: Window, at: int, data: bytes) -> dict[bytes, bytes]:
    """Pax records, each a length, a space, name=value and a newline."""
    found: dict[bytes, bytes] = {}
    place = 0
    while place < len(data) and data[place]:
        digits, space, _ = data[place : place + 12].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        record = data[place + len(digits) + 1 : place + length]
        name, equals, value = record[:-1].partition(b"=")
        if length < len(digits) + 4 or place + length > len(data) or record[-1:] != b"\n" or not equals or not name:
            raise window.bad(at, "a pax record is damaged")
        found[name] = value
        place += length
    return found


def _behind_sparse_map(window: Window, at: int, block: bytes) -> int:
    """Where the data of an old GNU sparse file begins: its map may go on for blocks."""
    offset = at + BLOCK_BYTES
    is_extended = block[482:483] not in {b"\0", b""}
    while is_extended:
        is_extended = window.at(offset, BLOCK_BYTES)[504] != 0
        offset += BLOCK_BYTES
    return offset


def _check(window: Window, at: int, block: bytes) -> None:
    """Compare the header's checksum, as unsigned bytes or, as some old tars did, as signed ones."""
    told = _number(window, at, block[148:156])
    rest = block[:148] + block[156:]
    unsigned = sum(rest) + 256
    if told not in {unsigned, unsigned - 256 * len(rest.translate(None, _ASCII))}:
        raise window.bad(at, "the checksum of a header is wrong" if at else "it is no tar")


def _number(window: Window, at: int, field: bytes) -> int:
    """A number in octal digits, or in base 256."""
    if field[:1] == _BASE_256:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip()
    try:
        if digits and not digits.isdigit():
            raise ValueError
        return int(digits or b"0", 8)
    except ValueError:
        raise window.bad(at, "a header holds a number that is none" if at else "it is no tar") from None


def _refuse_compressed(window: Window, block: bytes) -> None:
    for magic, name in ((_GZIP, "gzip"), (_BZIP2, "bzip2"), (_XZ, "xz"), (_ZSTD, "zstd")):
        if block.startswith(magic):
            error = window.bad(0, f"it is compressed by {name}, and parts of it cannot be read")
            error.remedy = "Decompress it, or read it whole with layout='objects'"
            raise error


def _padded(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _shown(name: bytes) -> str:
    return repr(name[:100].decode("utf-8", "replace"))
