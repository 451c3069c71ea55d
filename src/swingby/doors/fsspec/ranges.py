"""Reads many ranges of many objects: each object's version is pinned by its first answer, each chunk is asked for once."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias

from swingby.core.segment import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from swingby.path.object_reader import ObjectReader

Range: TypeAlias = "tuple[str, int | None, int | None]"  # path, start, end; negative ones count from the end

READS_MAX = 16  # at once
END = 1 << 62


def read(wanted: list[Range], open_reader: Callable[[str], ObjectReader]) -> list[Any]:
    """The bytes of each range, or the error in their place.

    Args:
        wanted: in any order, also overlapping.
        open_reader: a reader of whatever version an object has.
    """
    found: list[Any] = [b""] * len(wanted)
    by_path: defaultdict[str, list[int]] = defaultdict(list)
    for number, one in sorted(enumerate(wanted), key=lambda one: one[1][1] or 0):
        by_path[one[0]].append(number)
    readers: dict[str, ObjectReader] = {}

    def take(path: str, numbers: list[int]) -> None:
        try:
            reader = readers.get(path) or readers.setdefault(path, open_reader(path))
            for number in numbers:
                found[number] = _read(reader, *wanted[number][1:])
        except Exception as error:  # whoever asked gets it, for each range that wanted it
            for number in numbers:
                found[number] = error

    _each(take, [(path, numbers[:1]) for path, numbers in by_path.items()])
    rest = []
    for path, numbers in by_path.items():
        if isinstance(found[numbers[0]], Exception):
            for number in numbers:
                found[number] = found[numbers[0]]
            continue
        by_chunk: defaultdict[int, list[int]] = defaultdict(list)
        for number in numbers[1:]:
            by_chunk[(wanted[number][1] or 0) // CHUNK_BYTES].append(number)
        rest += [(path, group) for group in by_chunk.values()]
    _each(take, rest)
    return found


def _read(reader: ObjectReader, start: int | None, end: int | None) -> bytes:
    first, last = start or 0, END if end is None else end
    if reader.info is None and (first < 0 or last <= first):
        reader.read(0, 1)  # tells the size, or that there is none
    if reader.info is not None:
        size = reader.info.size
        first = max(0, first + size) if first < 0 else first
        last = last + size if last < 0 else min(last, size)
    return reader.read(first, last) if first < last else b""


def _each(call: Callable[[str, list[int]], None], tasks: Iterable[tuple[str, list[int]]]) -> None:
    listed = list(tasks)
    if len(listed) <= 1:
        for task in listed:
            call(*task)
        return
    with ThreadPoolExecutor(min(READS_MAX, len(listed)), "swingby-ranges") as pool:
        for done in [pool.submit(call, *task) for task in listed]:
            done.result()
