"""A keeper whose base errs more often than that of `far`, and is down for as long as a file says so."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from swingby import config
from swingby.assemble import Hooks, make_keeper
from swingby.keeper import process
from swingby.testing.campaign.far import FarBase
from swingby.testing.faulty_base import Faults, FaultyBase

if TYPE_CHECKING:
    from swingby.base.contract import Base
    from swingby.keeper.protocol import Location

MODULE = "swingby.testing.campaign.rough"
FAULTS = Faults(error=0.02, truncate=0.02, stall=0.01, stall_seconds=0.1, latency_seconds=0.0005)
DOWN = ".down"  # behind the home's name: the file that says so


class RoughBase(FaultyBase):
    """See the module's text.

    Args:
        base: that works.
        home: whose keeper reads it.
    """

    def __init__(self, base: Base, home: str) -> None:
        self._down = home + DOWN
        super().__init__(base, FAULTS)

    @property
    def is_down(self) -> bool:
        """Whether it does not answer."""
        return os.path.exists(self._down)

    @is_down.setter
    def is_down(self, value: bool) -> None:
        del value  # the file says it


def hooks(home: str) -> Hooks:
    """What makes file bases far and rough."""
    return Hooks(make_base=_far_base, wrap_base=lambda base: RoughBase(base, home))


def run_keeper(settings_json: str) -> None:
    """The body of the keeper's process."""
    settings = config.from_json(settings_json)
    sys.exit(
        process.main(settings, int(sys.argv[-1]), lambda place: make_keeper(settings, place, hooks(settings.home)))
    )


def _far_base(location: Location) -> Base | None:
    return FarBase("far:", 4) if location.scheme == "file" else None
