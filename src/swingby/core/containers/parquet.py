"""The row groups of a Parquet file, from its footer alone.

A sample is the stretch of the file that holds the pages of one row group. A table is made of it and the file's footer by
`data/row_groups.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swingby.core.containers.index import Found
from swingby.core.containers.layouts import FOOTER
from swingby.core.containers.thrift import CompactReader

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from swingby.core.containers.window import Window

MAGIC = b"PAR1"
TAIL_BYTES = 8  # the footer's length, and the magic
FOOTER_BYTES_MAX = 64 << 20
NAME_DIGITS = 6

# Numbers of the fields, from parquet.thrift.
_ROW_GROUPS, _ENCRYPTION = 4, 8
_COLUMNS, _ROWS = 1, 3
_FILE, _ABOUT, _COLUMN_ENCRYPTION = 1, 3, 8
_COMPRESSED_BYTES, _DATA_OFFSET, _DICTIONARY_OFFSET = 7, 9, 11
_COLUMN: dict[int, Any] = {
    _FILE: None,
    _ABOUT: {_COMPRESSED_BYTES: None, _DATA_OFFSET: None, _DICTIONARY_OFFSET: None},
    _COLUMN_ENCRYPTION: {},
}
_WANTED: dict[int, Any] = {_ROW_GROUPS: [{_COLUMNS: [_COLUMN], _ROWS: None}], _ENCRYPTION: {}}


def row_groups(window: Window, left_out: Counter[str]) -> Iterator[Found]:
    """All row groups that have rows, named by their number; and the footer, which is no sample and needed to read one.

    Raises:
        BadContainerError: it is no Parquet file, encrypted, damaged or cut short.
    """
    size = window.size
    if size < len(MAGIC) + TAIL_BYTES:
        raise window.bad(0, "it is too short for a Parquet file")
    tail = window.at(size - TAIL_BYTES, TAIL_BYTES).tobytes()
    if tail[4:] == b"PARE":
        raise window.bad(size - 4, "its footer is encrypted")
    length = int.from_bytes(tail[:4], "little")
    start = size - TAIL_BYTES - length
    if tail[4:] != MAGIC or start < len(MAGIC):
        raise window.bad(size - TAIL_BYTES, "it does not end as a Parquet file: it is none, or cut short")
    if length > FOOTER_BYTES_MAX:
        raise window.bad(start, f"a footer of {length} bytes is longer than {FOOTER_BYTES_MAX >> 20} MiB")
    try:
        footer = CompactReader(window.at(start, length).tobytes()).struct(_WANTED)
    except ValueError as error:
        raise window.bad(start, f"its footer is damaged: {error}") from None
    if _ENCRYPTION in footer:
        raise window.bad(start, "it is encrypted")
    groups = footer.get(_ROW_GROUPS, [])
    if not isinstance(groups, list):
        raise window.bad(start, "its footer is damaged")
    for number, group in enumerate(groups):
        if isinstance(group, dict) and group.get(_ROWS) == 0:
            left_out["empty row group"] += 1
            continue
        first, last = _stretch(window, start, group)
        yield Found(b"%0*d" % (NAME_DIGITS, number), last - first, first, last - first)
    yield Found(FOOTER, size - start, start, size - start)


def _stretch(window: Window, footer: int, group: Any) -> tuple[int, int]:
    columns = group.get(_COLUMNS) if isinstance(group, dict) else None
    if not isinstance(columns, list) or not columns:
        raise window.bad(footer, "a row group has no columns")
    firsts, lasts = [], []
    for column in columns:
        if not isinstance(column, dict) or column.keys() & {_FILE, _COLUMN_ENCRYPTION}:
            raise window.bad(footer, "a column is encrypted, or lies in another file")
        about = column.get(_ABOUT)
        if (
            not isinstance(about, dict)
            or not {_COMPRESSED_BYTES, _DATA_OFFSET} <= about.keys()
            or not all(type(n) is int for n in about.values())
        ):
            raise window.bad(footer, "a column's place is not told")
        first, dictionary = about[_DATA_OFFSET], about.get(_DICTIONARY_OFFSET, 0)
        first = min(first, dictionary) if dictionary > 0 else first
        firsts.append(first)
        lasts.append(first + about[_COMPRESSED_BYTES])
    if min(firsts) < len(MAGIC) or max(lasts) > footer or any(map(int.__lt__, lasts, firsts)):
        raise window.bad(footer, "a row group does not lie in the file")
    return min(firsts), max(lasts)
