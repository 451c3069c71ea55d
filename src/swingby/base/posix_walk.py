"""Walks a directory tree in byte order of the paths, as fast as the file system answers.

A fast file system is walked by one thread (threads would only pass the interpreter lock around); where a stat takes longer
than 20 µs, directories and stats are requested ahead by a pool.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

import numpy as np

from swingby.core.object import Page, versions_of_mtimes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE_ENTRIES = 4096
SLOW_STAT_SECONDS = 20e-6
SLICE_ENTRIES = 512

_LEADS_NOWHERE = {errno.ENOENT, errno.ELOOP, errno.ENOTDIR}  # a broken link, or a file removed meanwhile

_T = TypeVar("_T")
_Stats = list[tuple[bytes, int, int]]  # path below the root, size, mtime in ns


class _Entry(NamedTuple):
    sort_name: bytes  # a directory's ends in a slash, so that names sort as full paths do
    entry: os.DirEntry[bytes]


def walk(root: bytes, after: bytes, threads_max: int) -> Iterator[Page]:
    """Pages of every regular file below `root` whose path follows `after`, keys being full paths without the first slash.

    Links are followed, links that lead nowhere or in a circle are left out, and so is what is no file.

    Raises:
        OSError: a directory cannot be read.
    """
    with _Reader(after, threads_max) as reader:
        held: _Stats = []
        for stats in reader.tree(root):
            held += stats
            while len(held) >= PAGE_ENTRIES:
                yield _page(held[:PAGE_ENTRIES])
                del held[:PAGE_ENTRIES]
        if held:
            yield _page(held)


def _page(stats: _Stats) -> Page:
    keys, sizes, mtimes = zip(*stats, strict=True)
    return Page(list(keys), np.array(sizes, np.uint64), versions_of_mtimes(list(mtimes)))


class _Reader:
    """Runs scans and stats here or, once the file system proved slow, in a pool."""

    def __init__(self, after: bytes, threads_max: int) -> None:
        self._after = after
        self._threads_max = threads_max
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def tree(self, folder: bytes, above: tuple[bytes, ...] = ()) -> Iterator[_Stats]:
        """The files below a folder that ends in a slash."""
        entries = _scan(folder) if self._pool is None else self._pool.submit(_scan, folder).result()
        yield from self._expand(folder, entries, (*above, folder))

    def _expand(self, folder: bytes, entries: list[_Entry], above: tuple[bytes, ...]) -> Iterator[_Stats]:
        ahead: deque[Callable[[], list[_Entry]]] = deque()
        runs = _runs([one for one in entries if self._follows(folder + one.sort_name)])
        folders = iter([run for run in runs if isinstance(run, _Entry)])
        for run in runs:
            if isinstance(run, list):
                yield from self._stat_all(folder, run)
                continue
            while len(ahead) < (self._threads_max if self._pool else 1) and (coming := next(folders, None)):
                ahead.append(self._later(_scan_below, folder + coming.sort_name, coming.entry, above))
            below = folder + run.sort_name
            yield from self._expand(below, ahead.popleft()(), (*above, below))

    def _follows(self, path: bytes) -> bool:
        return path > self._after or (path[-1:] == b"/" and self._after.startswith(path))

    def _stat_all(self, folder: bytes, entries: list[_Entry]) -> Iterator[_Stats]:
        slices = deque(entries[at : at + SLICE_ENTRIES] for at in range(0, len(entries), SLICE_ENTRIES))
        ahead: deque[Callable[[], _Stats]] = deque()
        while slices or ahead:
            while slices and len(ahead) < (self._threads_max if self._pool else 1):
                ahead.append(self._later(_stat_slice, folder[1:], slices.popleft()))
            started = time.perf_counter()
            found = ahead.popleft()()
            if self._pool is None and time.perf_counter() - started > SLOW_STAT_SECONDS * max(16, len(found)):
                self._pool = ThreadPoolExecutor(self._threads_max, "swingby-list")
            yield found

    def _later(self, function: Callable[..., list[_T]], *arguments: object) -> Callable[[], list[_T]]:
        if self._pool is None:
            return lambda: function(*arguments)
        return self._pool.submit(function, *arguments).result


def _scan(folder: bytes) -> list[_Entry]:
    with os.scandir(folder) as found:
        entries = [_Entry(entry.name + b"/" if entry.is_dir() else entry.name, entry) for entry in found]
    entries.sort()
    return entries


def _scan_below(folder: bytes, entry: os.DirEntry[bytes], above: tuple[bytes, ...]) -> list[_Entry]:
    try:
        if entry.is_symlink():
            here = os.stat(folder)
            if any(os.path.samestat(here, os.stat(other)) for other in above):
                return []
        return _scan(folder)
    except FileNotFoundError:
        return []


def _runs(entries: list[_Entry]) -> list[_Entry | list[_Entry]]:
    """Files in runs between the directories."""
    runs: list[_Entry | list[_Entry]] = []
    files: list[_Entry] = []
    for entry in entries:
        if not entry.sort_name.endswith(b"/"):
            files.append(entry)
            continue
        if files:
            runs.append(files)
            files = []
        runs.append(entry)
    if files:
        runs.append(files)
    return runs


def _stat_slice(folder: bytes, entries: list[_Entry]) -> _Stats:
    found: _Stats = []
    for name, entry in entries:
        try:
            result = entry.stat()
        except OSError as error:
            if error.errno in _LEADS_NOWHERE:
                continue
            raise
        if stat.S_ISREG(result.st_mode):
            found.append((folder + name, result.st_size, result.st_mtime_ns))
    return found
