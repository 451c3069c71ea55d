"""What the keeper tells its operators: hit rates, what a warm-up made present, what a wipe removes."""

from __future__ import annotations

import os
import random
import time

import pytest

import swingby
from swingby import assemble, config
from swingby.keeper.place import place_of
from swingby.keeper.protocol import Report, Warm
from swingby.testing.harness import inline
from swingby.testing.memory_base import MemoryBase

MIB = 1 << 20


@pytest.fixture
def base():
    return MemoryBase({b"data/%03d" % n: random.Random(n).randbytes(100_000) for n in range(300)})


def warm(dataset, *, pin=False):
    exchange = dataset.client.dedicated()
    try:
        exchange.send(Warm(dataset.manifest, dataset.filters, pin), 10)
        while not isinstance(message := exchange.receive(60).message, Report):
            pass
        return message.facts
    finally:
        exchange.close()


def until(condition):
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def levels(found):
    return found.facts()["levels"]


def test_a_cold_epoch_misses_memory_and_a_warm_one_hits_it(home, base):
    with inline(home, base=base) as found:
        for _ in range(3):
            with swingby.open("memory://x/data", settings=found.settings) as dataset:
                dataset.batch(range(300))
        assert levels(found)["memory"]["misses"] == 300
        until(lambda: levels(found)["memory"]["hits"] == 600)
        assert levels(found)["burst"]["misses"] == 300


def test_what_burst_gives_back_is_its_hit(home, base):
    with inline(home, base=base) as found, swingby.open("memory://x/data", settings=found.settings) as dataset:
        dataset.batch(range(300))
        until(lambda: not found.keeper.upkeep.waiting_count)
        memory = found.keeper.engine.levels.memory
        until(lambda: not [identity for identity in memory.identities() if not memory.evict(identity)])
        dataset.batch(range(100))
        assert levels(found)["memory"]["misses"] == 400
        assert (levels(found)["burst"]["hits"], levels(found)["burst"]["misses"]) == (100, 300)


def test_a_warm_up_counts_what_is_present_at_its_end(home, base):
    with inline(home, base=base) as found, swingby.open("memory://x/data", settings=found.settings) as dataset:
        facts = warm(dataset)
        assert facts["objects_present"] == facts["objects_total"] == 300


def test_a_warm_up_does_not_count_what_had_to_leave_again(home):
    base = MemoryBase({b"data/%d" % n: random.Random(n).randbytes(5 * MIB) for n in range(8)})
    small = {"memory.budget_bytes": 24 * MIB, "burst.budget_bytes": 0}
    with (
        inline(home, base=base, settings=small) as found,
        swingby.open("memory://x/data", settings=found.settings) as dataset,
    ):
        facts = warm(dataset)
        assert facts["objects"] == 8
        assert 0 < facts["objects_present"] < 8


def test_pins_end_with_the_connection(home, base):
    with inline(home, base=base) as found, swingby.open("memory://x/data", settings=found.settings) as dataset:
        warm(dataset, pin=True)
        memory = found.keeper.engine.levels.memory
        until(lambda: not memory._pins)


def test_a_wipe_removes_a_burst_directory_outside_the_home(home, base, tmp_path):
    settings = {"burst.directory": str(tmp_path / "nvme")}
    with inline(home, base=base, settings=settings) as found:
        place = place_of(found.settings)
        written = assemble.written_directories(found.settings, place)
        assert all(map(os.path.isdir, set(written) - {place.runtime}))
        found.keeper.engine.wipe()
        assert not any(map(os.path.exists, written))
        assert os.listdir(tmp_path / "nvme") == []


def test_origins_name_the_file_or_place_a_setting_comes_from(monkeypatch, tmp_path):
    (tmp_path / "swingby.toml").write_text("scope = 'x'\n[fetch]\nretry_count_max = 3\n")
    monkeypatch.setenv("SWINGBY_SCOPE", "y")
    found = config.origins({"home": "/z"}, "--set")
    assert found["scope"] == "the environment"
    assert found["fetch.retry_count_max"] == "swingby.toml"
    assert found["home"] == "--set"
