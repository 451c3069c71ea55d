"""What a forked child must forget: locks that another thread of the parent may hold, and the parent's connections."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Has something to do in a forked child."""

    def after_fork(self) -> None:
        """Runs in the child, before anything else of it."""
        ...


_known: weakref.WeakSet[Forkable] = weakref.WeakSet()


def register(thing: Forkable) -> None:
    """Call `thing.after_fork()` in every forked child, for as long as the thing lives."""
    _known.add(thing)


def _run() -> None:
    for thing in list(_known):
        thing.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_run)
