"""A keeper for the campaign: files as if they lay far away, and a death at a chosen operation.

`run_keeper` takes the place of `assemble.run_keeper`. Its base reads plain files, but is not local and takes its time, so that
every level is used as with a remote base.
"""

from __future__ import annotations

import functools
import os
import random
import signal
import sys
from typing import TYPE_CHECKING, Any

from swingby import config
from swingby.assemble import Hooks, make_keeper
from swingby.base.posix import PosixBase
from swingby.keeper import process
from swingby.testing.faulty_base import Faults, FaultyBase

if TYPE_CHECKING:
    from collections.abc import Callable

    from swingby.base.contract import Base
    from swingby.keeper.protocol import Location

MODULE = "swingby.testing.campaign.far"
FAULTS = Faults(error=0.002, truncate=0.002, latency_seconds=0.001)
CHANGES = ("open", "pwrite", "write", "rename", "unlink", "ftruncate", "posix_fallocate", "fsync", "mkdir")


class FarBase(PosixBase):
    """Files that nobody but the keeper is near to."""

    local = False


def hooks() -> Hooks:
    """What makes file bases far."""
    return Hooks(make_base=_far_base, wrap_base=lambda base: FaultyBase(base, FAULTS))


def run_keeper(settings_json: str) -> None:
    """The body of the keeper's process."""
    settings = config.from_json(settings_json)
    sys.exit(process.main(settings, int(sys.argv[-1]), lambda place: make_keeper(settings, place, hooks())))


def run_doomed(settings_json: str, dies_at: int, seed: int) -> None:
    """The same, killed at its `dies_at`-th change of a file: before it, after it, or amid its bytes."""
    doom = Doom(dies_at, random.Random(seed))
    for name in CHANGES:
        setattr(os, name, doom.wrap(name, getattr(os, name)))
    run_keeper(settings_json)


class Doom:
    """Counts changes of files and kills this process at the chosen one.

    Args:
        dies_at: at which.
        rng: draws what is left of that change.
    """

    def __init__(self, dies_at: int, rng: random.Random) -> None:
        self._left = dies_at
        self._rng = rng

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, counted."""

        @functools.wraps(call)
        def counted(*args: Any, **named: Any) -> Any:
            if name == "open" and not args[1] & os.O_CREAT:
                return call(*args, **named)
            self._left -= 1
            if self._left != 0:
                return call(*args, **named)
            if name in {"pwrite", "write"}:
                data = memoryview(args[1]).cast("B")
                call(args[0], data[: self._rng.randrange(len(data) + 1)], *args[2:], **named)
            elif self._rng.random() < 0.5:
                call(*args, **named)
            os.kill(os.getpid(), signal.SIGKILL)
            return None

        return counted


def _far_base(location: Location) -> Base | None:
    return FarBase("far:", 4) if location.scheme == "file" else None
