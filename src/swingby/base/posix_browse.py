"""Looks into directories of this node."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from swingby.base.browse import Entry, no_folder
from swingby.base.posix import translate
from swingby.core.object import ObjectInfo, version_of_mtime
from swingby.errors import ObjectNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swingby.base.contract import Base
    from swingby.core.object import Page

PIECE_ENTRIES = 4096


class PosixBrowser:
    """See `Browser`. Directories are there when they are empty, too; links are followed.

    Args:
        base: lists what lies below.
    """

    def __init__(self, base: Base) -> None:
        self._base = base

    def object(self, key: bytes) -> Entry:
        """See `Browser.object`."""
        try:
            return _entry(key, os.stat(b"/" + key), key)
        except OSError as error:
            translate(error, key)

    def folder(self, prefix: bytes) -> Iterator[list[Entry]]:
        """See `Browser.folder`."""
        found: list[Entry] = []
        try:
            with os.scandir(b"/" + prefix) as names:
                yield []  # it is there, which is all that some want to know
                for name in names:
                    entry = _scanned(prefix + name.name, name)
                    found += [entry] if entry else []
                    if len(found) >= PIECE_ENTRIES:
                        yield found
                        found = []
        except (FileNotFoundError, NotADirectoryError):
            raise no_folder(prefix) from None
        except OSError as error:
            translate(error, prefix)
        yield found

    def below(self, prefix: bytes) -> Iterator[Page]:
        """See `Browser.below`."""
        return self._base.list(prefix)


def _scanned(key: bytes, name: os.DirEntry[bytes]) -> Entry | None:
    """A name in a directory; None for links that lead nowhere, and for what is neither file nor directory."""
    try:
        return Entry(key, None) if name.is_dir() else _entry(key, name.stat(), key)
    except (OSError, ObjectNotFoundError):
        return None


def _entry(key: bytes, result: os.stat_result, name: bytes) -> Entry:
    if not stat.S_ISREG(result.st_mode):
        raise ObjectNotFoundError(f"/{os.fsdecode(name)} is no regular file", key=os.fsdecode(name))
    return Entry(key, ObjectInfo(result.st_size, version_of_mtime(result.st_mtime_ns)), result.st_mtime)
