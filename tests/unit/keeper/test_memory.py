"""What the keeper holds in its own memory is bounded, also where no level takes what was fetched."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import swingby
from swingby.errors import LevelError
from swingby.keeper import bases
from swingby.keeper.wanted import wanted_of
from swingby.testing.harness import inline
from swingby.testing.memory_base import MemoryBase


@pytest.mark.parametrize("urgent", [False, True])
def test_bytes_that_find_no_room_are_held_only_for_those_who_wait(home, urgent):
    base = MemoryBase({b"data/%d" % number: b"x" * 1000 for number in range(20)})
    with inline(home, base=base) as found, swingby.open("memory://x/data", settings=found.settings) as dataset:
        keeper = found.keeper

        def refuse(*_):
            raise LevelError("full", level="memory")

        keeper.engine.levels.memory.fill = refuse
        source = keeper.sources.get(dataset.manifest)
        held, done = [], threading.Event()

        def complete(request):
            held.append(sum(len(part.homeless) for part in request.parts))
            done.set()

        keeper.supply.begin(source.base, wanted_of(source.manifest, np.arange(20)), complete, urgent=urgent)
        assert done.wait(10)
        assert held == [20 if urgent else 0]


def test_bytes_in_flight_stay_below_a_share_of_a_small_containers_memory(home, monkeypatch):
    monkeypatch.setattr(bases, "usable_memory_bytes", lambda: 400 << 20)
    with (
        inline(home, base=MemoryBase({b"data/a": b"x"})) as found,
        swingby.open("memory://x/data", settings=found.settings) as dataset,
    ):
        source = found.keeper.sources.get(dataset.manifest)
        assert source.base.pool._inflight_bytes_max == 25 << 20
