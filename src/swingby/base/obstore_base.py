"""What bases that obstore speaks to have in common: Azure's and Google's object storage.

Listings are gathered, sorted and looked through before the first page is given: services order names by other rules than bytes
(UTF-16 units, folders first), and obstore tells the name `a/` as `a`. A name that obstore cannot tell or ask for is an error.

Threads: safe. Forks: obstore hangs after one, so a child of a process that used it is told.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import obstore

from swingby.base import obstore_owner
from swingby.base.services import RangeError, Service
from swingby.base.translate import raise_obstore
from swingby.core.object import ObjectInfo, Page, Payload, key_text, version_of_etag
from swingby.errors import ObjectChangedError, ObjectNotFoundError, TruncatedReadError, UrlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from obstore.store import ObjectStore
    from typing_extensions import Buffer

PAGE_ENTRIES = 1000
HEAD_THREADS = 16

_ODD_KEY = re.compile(rb"(?:^|/)\.{0,2}(?:/|$)|[\x00-\x1f\x7f]")  # obstore refuses them, or asks for another key

Entry = tuple[bytes, int, bytes]
Entries = list[Entry]


class Container(NamedTuple):
    """A bucket or container.

    Attributes:
        service: whose.
        name: its name.
        id: identity, without credentials.
        forbidden: further bytes that keys cannot hold.
    """

    service: Service
    name: str
    id: str
    forbidden: bytes = b""


class ObstoreBase:
    """One container through obstore.

    Args:
        container: its names.
        make_store: makes the client when it is first needed.
    """

    local = False

    def __init__(self, container: Container, make_store: Callable[[], ObjectStore]) -> None:
        self._container = container
        self._make_store = make_store
        self._made_store: ObjectStore | None = None

    @property
    def id(self) -> str:
        """Identity of the container."""
        return self._container.id

    def list(self, prefix: bytes, after: bytes = b"") -> Iterator[Page]:
        """See `Base.list`. Names that end in a slash, the folders of consoles, are left out if empty, and an error else."""
        entries = self._without_folders(self._entries(prefix))
        found = [entry for entry in entries if entry[0] > after]
        for start in range(0, len(found), PAGE_ENTRIES):
            keys, sizes, versions = zip(*found[start : start + PAGE_ENTRIES], strict=True)
            tokens = np.frombuffer(b"".join(versions), np.uint8).reshape(len(keys), -1)
            yield Page(list(keys), np.array(sizes, np.uint64), tokens)

    def stat(self, key: bytes) -> ObjectInfo:
        """See `Base.stat`."""
        return self._info(self._call(key, lambda name: obstore.head(self._store(), name)), key)

    def read(self, key: bytes, start: int = 0, size: int | None = None, version: bytes | None = None) -> Payload:
        """See `Base.read`. Without a range the whole object is asked for plainly."""
        if size == 0:
            return Payload(b"", self._checked(self.stat(key), key, version))
        part: Any = None
        if size is not None:
            part = (start, start + size)
        elif start:
            part = {"offset": start}
        try:
            data, info = self._call(key, lambda name: self._get(name, key, part))
        except RangeError:
            return Payload(b"", self._checked(self.stat(key), key, version))
        self._checked(info, key, version)
        stop = info.size if size is None else min(info.size, start + size)
        if len(memoryview(data)) != max(0, stop - start):
            raise TruncatedReadError(f"{self._name(key)}: the body ended early", key=key_text(key), base=self.id)
        return Payload(data, info)

    def write(self, key: bytes, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        """See `Base.write`."""
        content = bytes(memoryview(data).cast("B"))
        mode: Any = "create" if if_absent else "overwrite"
        result = self._call(key, lambda name: obstore.put(self._store(), name, content, mode=mode))
        return ObjectInfo(len(content), self._version(result["e_tag"], key))

    def delete(self, key: bytes) -> None:
        """See `Base.delete`."""
        try:
            self._call(key, lambda name: obstore.delete(self._store(), name))
        except ObjectNotFoundError:
            return

    def close(self) -> None:
        """Let go of the client."""
        self._made_store = None

    def _get(self, name: str, key: bytes, part: Any) -> tuple[Buffer, ObjectInfo]:
        result = obstore.get(self._store(), name, options={"range": part} if part else None)
        return result.bytes(), self._info(result.meta, key)

    def _entries(self, prefix: bytes) -> Entries:
        """Everything under a prefix as obstore tells it, sorted."""
        folder = prefix.rstrip(b"/")
        if folder and (self._is_odd(folder) or folder + b"/" != prefix):
            raise self._unspeakable(prefix)
        store = self._store()
        found: Entries = []
        try:
            for chunk in obstore.list(store, key_text(folder) or None, chunk_size=PAGE_ENTRIES):
                for meta in chunk:
                    info = self._info(meta, prefix)
                    found.append((meta["path"].encode(), info.size, info.version))
        except UrlError:
            raise
        except Exception as error:
            raise_obstore(error, prefix, self._container.name, self._container.service)
        found.sort()
        return found

    def _without_folders(self, entries: Entries) -> Entries:
        """Entries that can be asked for. Whatever may be a folder, being empty or having something below it, is looked at."""
        doubtful = _doubtful(entries)
        if not doubtful:
            return entries
        keys = sorted({entries[index][0] for index in doubtful})
        with ThreadPoolExecutor(HEAD_THREADS, "swingby-list") as pool:
            real = dict(zip(keys, pool.map(self._stat_or_none, keys), strict=True))
        left_out = set()
        for index in doubtful:
            key, size, version = entries[index]
            if real[key] == ObjectInfo(size, version):
                continue
            if size:
                raise self._unspeakable(key + b"/")
            left_out.add(index)
        return [entry for index, entry in enumerate(entries) if index not in left_out]

    def _stat_or_none(self, key: bytes) -> ObjectInfo | None:
        try:
            return self.stat(key)
        except ObjectNotFoundError:
            return None

    def _call(self, key: bytes, call: Callable[[str], Any]) -> Any:
        if self._is_odd(key):
            raise self._unspeakable(key)
        try:
            name = key.decode()
        except UnicodeDecodeError:
            raise self._unspeakable(key) from None
        store = self._store()
        assert store is not None
        try:
            return call(name)
        except UrlError:
            raise
        except Exception as error:
            raise_obstore(error, key, self._container.name, self._container.service)

    def _is_odd(self, key: bytes) -> bool:
        return bool(_ODD_KEY.search(key)) or any(byte in key for byte in self._container.forbidden)

    def _unspeakable(self, key: bytes) -> UrlError:
        return UrlError(
            f"{self._name(key)!r} cannot be named through obstore: an empty, '.' or '..' part, a slash at the end, a control "
            "character, a backslash, or no UTF-8",
            key=key_text(key),
            base=self.id,
            remedy="Rename the object, or open a prefix without it",
        )

    def _info(self, meta: Any, key: bytes) -> ObjectInfo:
        return ObjectInfo(meta["size"], self._version(meta["e_tag"], key))

    def _version(self, etag: str | None, key: bytes) -> bytes:
        if not etag:
            raise UrlError(f"{self._name(key)}: answered without an entity tag", key=key_text(key), base=self.id)
        return version_of_etag(etag)

    def _checked(self, info: ObjectInfo, key: bytes, version: bytes | None) -> ObjectInfo:
        if version is not None and info.version != version:
            raise ObjectChangedError(
                f"{self._name(key)} has changed since it was listed",
                key=key_text(key),
                base=self.id,
                remedy="Open the dataset again, with refresh='always'",
            )
        return info

    def _name(self, key: bytes) -> str:
        return f"{self._container.service.scheme}://{self._container.name}/{key_text(key)}"

    def _store(self) -> ObjectStore:
        obstore_owner.claim(self.id)
        if self._made_store is None:
            try:
                self._made_store = self._make_store()
            except Exception as error:
                raise_obstore(error, b"", self._container.name, self._container.service)
        return self._made_store


def _doubtful(entries: Entries) -> list[int]:
    """Places of entries that are empty, or have others below them, or share a key."""
    folders: set[bytes] = set()
    for key, _, _ in entries:
        folder = key.rpartition(b"/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition(b"/")[0]
    found = []
    for index, (key, size, _) in enumerate(entries):
        is_twice = (index > 0 and entries[index - 1][0] == key) or (
            index + 1 < len(entries) and entries[index + 1][0] == key
        )
        if not size or key in folders or is_twice:
            found.append(index)
    return found
