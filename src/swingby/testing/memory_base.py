"""A base in this process's memory, with versions."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING

import numpy as np

from swingby.core.object import ObjectInfo, Page, Payload, key_text, version_of_etag
from swingby.errors import BaseNotFoundError, ObjectChangedError, ObjectExistsError, ObjectNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from typing_extensions import Buffer

PAGE_ENTRIES = 1000


class MemoryBase:
    """Objects in a dict.

    Args:
        objects: to begin with.
        base_id: identity.
        local: as of the contract.
    """

    def __init__(
        self, objects: Mapping[bytes, bytes] | None = None, base_id: str = "memory:", *, local: bool = False
    ) -> None:
        self.id = base_id
        self.local = local
        self.reads: list[tuple[bytes, int, int | None]] = []  # every read that was asked for
        self._objects = dict(objects or {})
        self._lock = threading.Lock()

    def list(self, prefix: bytes, after: bytes = b"") -> Iterator[Page]:
        """See `Base.list`."""
        with self._lock:
            keys = sorted(key for key in self._objects if key.startswith(prefix) and key > after)
            found = [(key, self._objects[key]) for key in keys]
        if not found and prefix.startswith(b"missing"):
            raise BaseNotFoundError(f"no {key_text(prefix)}")
        for start in range(0, len(found), PAGE_ENTRIES):
            part = found[start : start + PAGE_ENTRIES]
            tokens = b"".join(_info(data).version for _, data in part)
            sizes = np.array([len(data) for _, data in part], np.uint64)
            yield Page([key for key, _ in part], sizes, np.frombuffer(tokens, np.uint8).reshape(-1, 16))

    def stat(self, key: bytes) -> ObjectInfo:
        """See `Base.stat`."""
        return _info(self._get(key))

    def read(self, key: bytes, start: int = 0, size: int | None = None, version: bytes | None = None) -> Payload:
        """See `Base.read`."""
        self.reads.append((key, start, size))
        data = self._get(key)
        info = _info(data)
        if version is not None and version != info.version:
            raise ObjectChangedError(f"{key_text(key)} has changed", key=key_text(key))
        return Payload(data[start:] if size is None else data[start : start + size], info)

    def write(self, key: bytes, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        """See `Base.write`."""
        with self._lock:
            if if_absent and key in self._objects:
                raise ObjectExistsError(f"{key_text(key)} exists", key=key_text(key))
            self._objects[key] = bytes(data)
            return _info(self._objects[key])

    def delete(self, key: bytes) -> None:
        """See `Base.delete`."""
        with self._lock:
            self._objects.pop(key, None)

    def close(self) -> None:
        """Nothing is held."""

    def _get(self, key: bytes) -> bytes:
        with self._lock:
            if key not in self._objects:
                raise ObjectNotFoundError(f"no {key_text(key)}", key=key_text(key))
            return self._objects[key]


def _info(data: bytes) -> ObjectInfo:
    return ObjectInfo(len(data), version_of_etag(hashlib.md5(data, usedforsecurity=False).hexdigest()))
