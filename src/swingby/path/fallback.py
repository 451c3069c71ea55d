"""Reads a base from this process, without keeper and levels: slower, and right.

A file base works anywhere. A remote one starts threads, which a fork does not copy: a child of a process that used one is told so
instead of hanging.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from swingby.errors import ForkError

if TYPE_CHECKING:
    from swingby.base.contract import Base
    from swingby.keeper.protocol import Location

log = logging.getLogger("swingby")

_remote_process: int | None = None


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

    def base(self, reason: BaseException | None = None) -> Base:
        """The base.

        Args:
            reason: why the keeper could not do it; logged once.

        Raises:
            ForkError: it is remote, and this is a child of a process that used a remote base.
            SwingbyError: it cannot be made.
        """
        global _remote_process  # noqa: PLW0603  what a fork copies is the whole process's
        if self._base is None:
            if reason:
                log.warning("reading %s://%s without a keeper: %s", self._location.scheme, self._location.container, reason)
            self._base = self._make(self._location)
        if not self._base.forkable:
            if _remote_process not in {None, os.getpid()}:
                raise ForkError(
                    "this process is a fork of one that used a remote base, whose threads it does not have",
                    base=self._base.id,
                    remedy="Let the keeper run (keeper.mode=auto), or start workers with spawn instead of fork",
                )
            _remote_process = os.getpid()
        return self._base

