"""Reads a base from this process, without keeper and levels: slower, and right."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from swingby.core import forks
from swingby.core.containers.location import sample_in
from swingby.core.object import key_text
from swingby.errors import CorruptDataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from swingby.base.contract import Base
    from swingby.core.containers.location import Where
    from swingby.core.object import Payload
    from swingby.keeper.protocol import Location

log = logging.getLogger("swingby")

_of_parents: list[Base] = []  # held, because closing what belongs to a parent's threads is not a child's to do


class Fallback:
    """The base of one location, made when first needed.

    Args:
        make: makes the base with its wrappers.
        location: what to read.
    """

    def __init__(self, make: Callable[[Location], Base], location: Location) -> None:
        self._make = make
        self._location = location
        self._base: Base | None = None
        forks.register(self)

    def base(self, reason: BaseException | None = None) -> Base:
        """The base.

        Args:
            reason: why the keeper could not do it; logged once.

        Raises:
            SwingbyError: it cannot be made.
        """
        if self._base is None:
            if reason:
                log.warning("reading %s without a keeper: %s", self._location.name, reason)
            self._base = self._make(self._location)
        return self._base

    def read(
        self,
        key: bytes,
        start: int = 0,
        size: int | None = None,
        version: bytes | None = None,
        *,
        reason: BaseException | None = None,
    ) -> Payload:
        """As `Base.read`.

        Raises:
            CorruptDataError: the body is not as long as the base says the object is.
        """
        payload = self.base(reason).read(key, start, size, version)
        left = max(0, payload.info.size - start)
        found, expected = len(memoryview(payload.data)), left if size is None else min(size, left)
        if found != expected:
            name = key_text(key)
            raise CorruptDataError(
                f"{name}: the base sent {found} bytes of {expected}", key=name, remedy="Check the base"
            )
        return payload

    def read_sample(self, where: Where, size: int, reason: BaseException | None) -> memoryview:
        """An object, or a sample in a container, of so many bytes; read-only.

        Raises:
            CorruptDataError: the range does not hold the sample, or is not as long as it was.
            SwingbyError: the base's.
        """
        is_whole = where.stored_bytes == where.object_size
        start, stored = (0, None) if is_whole else (where.start, where.stored_bytes)
        if stored == 0:
            return memoryview(b"")
        payload = self.read(where.key, start, stored, where.version, reason=reason)
        return sample_in(payload.data, where.coded(size), (where.key, where.start)).toreadonly()

    def after_fork(self) -> None:
        """See `forks`: its connections are the parent's, and its locks may be held there."""
        if self._base is not None:
            _of_parents.append(self._base)
            self._base = None
