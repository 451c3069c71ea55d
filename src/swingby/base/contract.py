"""The contract of a base."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

    from swingby.core.object import ObjectInfo, Page, Payload


class Base(Protocol):
    """Versioned objects under keys.

    Guarantees: a read returns bytes of one version, never a mix, and says which; a write is whole or absent; a listing is in byte
    order of the keys. Threads: every method may be called from any number of threads. Failure: only errors of
    `swingby.errors`; `retryable` is set where the same call may succeed later. No method retries by itself.

    Attributes:
        id: the same for the same storage on every node; local storage is local to its node.
        local: whether any process of the node reads it as well as the keeper does: files.
    """

    @property
    def id(self) -> str:
        """Identity of the storage, without credentials."""
        ...

    @property
    def local(self) -> bool:
        """Whether any process of the node reads it as well as the keeper does."""
        ...

    def list(self, prefix: bytes, after: bytes = b"") -> Iterator[Page]:
        """Every object whose key begins with `prefix`, which is empty or ends in a slash, and follows `after`.

        Raises:
            BaseNotFoundError: no such bucket or directory.
            AccessDeniedError: listing is not allowed.
        """
        ...

    def stat(self, key: bytes) -> ObjectInfo:
        """Size and version now.

        Raises:
            ObjectNotFoundError: no such object.
        """
        ...

    def read(self, key: bytes, start: int = 0, size: int | None = None, version: bytes | None = None) -> Payload:
        """Bytes [start, start + size) of an object, to its end where size is None; fewer where the object ends before.

        Raises:
            ObjectNotFoundError: no such object.
            ObjectChangedError: it has another version than `version`.
            TruncatedReadError: the body ended early.
        """
        ...

    def write(self, key: bytes, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        """Store an object whole; when this returns it is durable.

        Raises:
            ObjectExistsError: `if_absent`, and there is one.
        """
        ...

    def delete(self, key: bytes) -> None:
        """Remove an object; absent is success."""
        ...

    def close(self) -> None:
        """Let go of connections. The base is not used afterwards."""
        ...
