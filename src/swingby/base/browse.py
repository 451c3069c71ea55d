"""Looks into a base as into folders: one name, or what lies directly under a prefix.

Keys are flat; a folder is what keys have before a slash, and exists as long as one of them does. `FlatBrowser` sees any base so;
files and buckets have browsers of their own, which know more (times, empty directories) and ask less.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple, Protocol

from swingby.core.object import ObjectInfo, key_text
from swingby.errors import ObjectNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swingby.base.contract import Base
    from swingby.core.object import Page

LAST_CHARACTER = "\U0010ffff".encode()  # no key goes on with more


class Entry(NamedTuple):
    """One name in a folder.

    Attributes:
        key: full key; a folder's without the last slash.
        info: size and version; None of a folder.
        modified: seconds since 1970, where the base says.
        etag: the base's own tag, where it has one.
    """

    key: bytes
    info: ObjectInfo | None
    modified: float | None = None
    etag: str = ""


class Browser(Protocol):
    """Looks into a base. Nothing is remembered: every answer is the base's of now.

    Threads: safe. Failure: errors of `swingby.errors` only; what helps to try again has been tried again.
    """

    def object(self, key: bytes) -> Entry:
        """One object.

        Raises:
            ObjectNotFoundError: there is none of this key; there may be a folder.
        """
        ...

    def folder(self, prefix: bytes) -> Iterator[list[Entry]]:
        """What lies directly in a folder, in pieces as they come; a caller who only wants to know whether it is there takes one.

        Args:
            prefix: empty, or ends in a slash.

        Raises:
            ObjectNotFoundError: no such folder.
        """
        ...

    def below(self, prefix: bytes) -> Iterator[Page]:
        """Every object below a folder, as `Base.list`."""
        ...


class FlatBrowser:
    """See the module's text.

    Args:
        base: listed and asked; tries again by itself.
    """

    def __init__(self, base: Base) -> None:
        self._base = base

    def object(self, key: bytes) -> Entry:
        """See `Browser.object`."""
        return Entry(key, self._base.stat(key))

    def folder(self, prefix: bytes) -> Iterator[list[Entry]]:
        """See `Browser.folder`. A folder inside costs a request when it fills the page that it begins in."""
        after = b""
        is_there = False
        while True:
            for page in self._base.list(prefix, after):
                is_there = True
                entries, beyond = _directly_in(prefix, page)
                yield entries
                if beyond:
                    after = beyond
                    break
            else:
                break
        if not is_there:
            raise no_folder(prefix)

    def below(self, prefix: bytes) -> Iterator[Page]:
        """See `Browser.below`."""
        return self._base.list(prefix)


def no_folder(prefix: bytes) -> ObjectNotFoundError:
    """The error for a folder that is not there."""
    return ObjectNotFoundError(f"nothing lies under {key_text(prefix)!r}", key=key_text(prefix))


def _directly_in(prefix: bytes, page: Page) -> tuple[list[Entry], bytes]:
    """The names of a page in a folder, and where to go on listing if the last of them is a folder that may go on."""
    entries: list[Entry] = []
    keys, at = page.keys, 0
    while at < len(keys):
        name, slash, _ = keys[at][len(prefix) :].partition(b"/")
        if not slash:
            entries.append(Entry(keys[at], ObjectInfo(int(page.sizes[at]), page.versions[at].tobytes())))
            at += 1
            continue
        end = prefix + name + b"/" + LAST_CHARACTER
        if name:
            entries.append(Entry(prefix + name, None))
        at = bisect_right(keys, end, at)
        if at == len(keys):
            return entries, end
    return entries, b""
