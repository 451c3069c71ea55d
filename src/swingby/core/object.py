"""What a base holds: objects, each a key, a size and a version."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from swingby.core.checksum import name_digest

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Buffer

VERSION_BYTES = 16


class ObjectInfo(NamedTuple):
    """An object's size in bytes and the 16-byte token of its version."""

    size: int
    version: bytes


class Payload(NamedTuple):
    """Bytes read from a base, with the whole object's size and version at the time of reading."""

    data: Buffer
    info: ObjectInfo


class Page(NamedTuple):
    """A piece of a listing, in byte order of the keys.

    Attributes:
        keys: full keys in the base, as bytes.
        sizes: uint64[n].
        versions: uint8[n, 16].
        locations: of samples in containers, LOCATION_DTYPE[n]; None for objects.
    """

    keys: list[bytes]
    sizes: NDArray[np.uint64]
    versions: NDArray[np.uint8]
    locations: NDArray[np.void] | None = None


def version_of_etag(etag: str) -> bytes:
    """The token of an entity tag: its 32 hex digits as bytes, else a digest of it.

    Quotes and the weak mark do not count: servers add and drop them.
    """
    text = etag.removeprefix("W/").strip('"')
    if len(text) == 2 * VERSION_BYTES:
        with contextlib.suppress(ValueError):
            return bytes.fromhex(text)
    return name_digest(text.encode())


def version_of_mtime(mtime_ns: int) -> bytes:
    """The token of a file's modification time in nanoseconds."""
    return mtime_ns.to_bytes(8, "little", signed=True) + bytes(8)


def versions_of_mtimes(mtimes_ns: list[int]) -> NDArray[np.uint8]:
    """The same for many files: uint8[n, 16]."""
    tokens = np.zeros((len(mtimes_ns), 2), "<i8")
    tokens[:, 0] = mtimes_ns
    return tokens.view(np.uint8)


def key_bytes(key: str) -> bytes:
    """A key as the base orders and stores it. File names that are not UTF-8 come back unchanged."""
    return key.encode("utf-8", "surrogateescape")


def key_text(key: bytes) -> str:
    """The inverse of `key_bytes`."""
    return key.decode("utf-8", "surrogateescape")
