"""WebDataset's rule: consecutive members of a tar whose names are the same up to the first dot of the base name are one sample.

A sample's bytes are one stretch of the tar, from its first member's header to the end of its last member's data.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from swingby.core.containers.index import Found
from swingby.core.containers.tar import FILE, members
from swingby.core.containers.window import in_memory
from swingby.errors import FormatError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from swingby.core.containers.tar import Member
    from swingby.core.containers.window import Window

KEY = "__key__"

_NAME = re.compile(rb"((?:.*/|)[^.]+)[.]([^/]*)")
_META = re.compile(rb"__[^/]*__($|/)")


def split(name: bytes) -> tuple[bytes, str] | None:
    """Key and extension, in lower case, of a member; None for one that belongs to no sample."""
    match = None if _META.match(name) else _NAME.fullmatch(name)
    return (match[1], match[2].decode("utf-8", "surrogateescape").lower()) if match else None


def samples(window: Window, left_out: Counter[str]) -> Iterator[Found]:
    """The samples of a tar. A key that comes again later gets "~2" and so on: WebDataset reads it as another sample.

    Raises:
        BadContainerError: it is damaged; an extension comes twice in a sample.
    """
    times: dict[bytes, int] = {}
    for key, start, stop in _runs(window, left_out):
        times[key] = times.get(key, 0) + 1
        name = key if times[key] == 1 else key + b"~%d" % times[key]
        yield Found(name, stop - start, start, stop - start)


def _runs(window: Window, left_out: Counter[str]) -> Iterator[tuple[bytes, int, int]]:
    """Key and stretch of each sample."""
    current: tuple[bytes, int, int] | None = None
    extensions: set[str] = set()
    for member in members(window):
        parts = split(member.name) if member.kind == FILE else None
        if parts is None:
            left_out["member of no sample" if member.kind == FILE else member.kind] += 1
            continue
        key, extension = parts
        stop = member.offset + member.size
        if current and current[0] == key:
            if extension in extensions:
                raise window.bad(member.start, f"the sample {_shown(member)} has two parts {extension!r}")
            current = (key, current[1], stop)
        else:
            if current:
                yield current
            current = (key, member.start, stop)
            extensions = set()
        extensions.add(extension)
    if current:
        yield current


def parts_of(data: memoryview, name: str) -> dict[str, str | memoryview]:
    """The members of a sample: "__key__", and for each extension its bytes, a view of `data`.

    Raises:
        FormatError: it is no sample of this layout.
    """
    found: dict[str, str | memoryview] = {}
    try:
        for member in members(in_memory(data, name), is_whole=False):
            parts = split(member.name) if member.kind == FILE else None
            if parts:
                found[KEY] = parts[0].decode("utf-8", "surrogateescape")
                found[parts[1]] = data[member.offset : member.offset + member.size]
    except ValueError:
        found = {}
    if not found:
        raise FormatError(f"{name} is no sample of several parts", remedy="Open the dataset with layout='webdataset'")
    return found


def _shown(member: Member) -> str:
    return repr(member.name[:100].decode("utf-8", "replace"))
