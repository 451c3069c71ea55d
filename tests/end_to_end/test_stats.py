"""`loader.stats()`: the time of an epoch goes to what the consumer waited for, and all of it adds up."""

from __future__ import annotations

import logging
import random
import time

import pytest

import swingby
from swingby.data.account import Account, Span
from swingby.keeper.protocol import Evict
from swingby.testing.faulty_base import Faults, FaultyBase
from swingby.testing.harness import inline
from swingby.testing.memory_base import MemoryBase

COUNT, SIZE, BATCH = 64, 10_000, 8
STEPS = COUNT // BATCH
PARTS = ("base", "level", "decode", "transfer", "compute")


@pytest.fixture
def slow():
    rng = random.Random(0)
    return FaultyBase(MemoryBase({b"data/%03d" % n: rng.randbytes(SIZE) for n in range(COUNT)}), Faults())


@pytest.fixture
def dataset(home, slow):
    with (
        inline(home, base=slow, settings={"fetch.inflight_count_max": 4}) as found,
        swingby.open("memory://x/data", settings=found.settings) as one,
    ):
        yield one


def make(function, where):
    return None if where is None else swingby.Decode(function, where=where, workers=2)


def run(loader, seconds=0.0):
    """One epoch with a consumer that takes so long a step; its figures."""
    began = time.perf_counter()
    for _ in loader:
        time.sleep(seconds)
    wall = time.perf_counter() - began
    stats = loader.stats()
    assert stats.seconds == pytest.approx(sum(getattr(stats, f"{part}_seconds") for part in PARTS), rel=1e-6)
    assert stats.seconds == pytest.approx(wall, rel=0.01, abs=0.02)
    assert (stats.steps, stats.samples, stats.bytes) == (STEPS, COUNT, COUNT * SIZE)
    return stats


def has(stats, part, where=None, share=0.8):
    """Most of the time is the part's; the start of worker processes is decoding, and as long as the machine is busy."""
    seconds = stats.seconds - (stats.decode_seconds if where == "processes" and part != "decode" else 0.0)
    found = {one: getattr(stats, f"{one}_seconds") / seconds for one in PARTS}
    assert found[part] >= share, (found, str(stats))


def quick(sample):
    return len(sample.data)


def sleepy(sample):
    time.sleep(0.01)
    return len(sample.data)


@pytest.mark.parametrize("where", [None, "threads", "processes"])
def test_a_slow_base_is_what_is_waited_for(dataset, slow, where):
    slow.faults = Faults(latency_seconds=0.05)
    loader = swingby.Loader(dataset, batch_size=BATCH, decode=make(quick, where), prefetch_bytes_max=0)
    stats = run(loader)
    has(stats, "base", where)
    assert stats.base_bytes == COUNT * SIZE
    assert stats.hit_ratio == 0.0


@pytest.mark.parametrize("where", ["threads", "processes"])
def test_a_slow_decode_is_what_is_waited_for(dataset, where):
    dataset.batch(range(COUNT))
    stats = run(swingby.Loader(dataset, batch_size=BATCH, decode=make(sleepy, where)))
    has(stats, "decode")
    if where == "threads":
        assert stats.base_bytes == 0
        assert stats.hit_ratio == 1.0


@pytest.mark.parametrize("where", [None, "threads", "processes"])
def test_a_slow_consumer_waits_for_itself(dataset, where):
    dataset.batch(range(COUNT))
    has(run(swingby.Loader(dataset, batch_size=BATCH, decode=make(quick, where)), 0.1), "compute", where)


def test_a_base_and_a_consumer_that_are_as_slow_get_half_each(dataset, slow):
    slow.faults = Faults(latency_seconds=0.05)
    loader = swingby.Loader(dataset, batch_size=BATCH, prefetch_bytes_max=0)
    alone = run(loader).base_seconds / STEPS
    dataset.client.call(Evict(), 10)
    stats = run(loader, alone)
    assert stats.base_seconds == pytest.approx(stats.compute_seconds, rel=0.2)


def test_what_was_read_ahead_was_there(dataset, slow):
    slow.faults = Faults(latency_seconds=0.02)
    stats = run(swingby.Loader(dataset, batch_size=BATCH), 0.3)
    has(stats, "compute")
    assert stats.hit_ratio > 0.7


def test_one_line_goes_to_the_log_at_the_end_of_a_whole_epoch(dataset, caplog):
    dataset.batch(range(COUNT))
    loader = swingby.Loader(dataset, batch_size=BATCH)
    with caplog.at_level(logging.INFO, "swingby"):
        next(iter(loader))
        assert not [one for one in caplog.messages if "epoch" in one]
        run(loader)
    (line,) = [one for one in caplog.messages if one.startswith("epoch 1: 8 steps in ")]
    assert line == str(loader.stats())
    assert line.endswith("640 kB, 100 % from memory")
    for part in ("compute", "base", "level", "decode"):
        assert part in line


def test_in_the_middle_of_an_epoch_it_tells_how_far_it_is(dataset):
    loader = swingby.Loader(dataset, batch_size=BATCH)
    assert loader.stats().steps == 0
    for number, _ in enumerate(loader, 1):
        assert loader.stats()[1:4] == (number, number * BATCH, number * BATCH * SIZE)


def test_of_a_wait_only_what_a_helper_read_meanwhile_was_reading():
    account = Account(0)
    spans = [Span(0.0, 10.0, 5.0, 100, 50), Span(12.0, 13.0, 1.0, 10, 10), Span(30.0, 31.0, 1.0, 1, 1)]
    account.decoded(8.0, 20.0, spans)
    account.read_elsewhere(spans[:2])
    stats = account.stats()
    assert stats.base_seconds == pytest.approx(2.0 * 0.5 + 1.0)
    assert stats.decode_seconds == pytest.approx(12.0 - 3.0)
    assert (stats.bytes, stats.base_bytes) == (110, 60)
