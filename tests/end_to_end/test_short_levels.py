"""Levels smaller than what is read: what is held, what is handed over, and what it costs the base."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

import swingby
from swingby.errors import BaseUnavailableError
from swingby.testing.faulty_base import Faults, FaultyBase
from swingby.testing.harness import inline
from swingby.testing.memory_base import MemoryBase

COUNT, SIZE = 4096, 64 << 10  # 256 MiB, about ten packs
DATA = COUNT * SIZE
LARGE = 5 << 20


def base_of(prefix=b"d/", count=COUNT, size=SIZE):
    filler = os.urandom(size)
    return {prefix + b"%05d" % number: number.to_bytes(8, "little") + filler[8:] for number in range(count)}


def fetched(swing):
    return sum(one["bytes"] for one in swing.facts()["bases"].values())


def epoch(loader):
    """Read one; every sample once and right."""
    seen = []
    for batch in loader:
        assert [int.from_bytes(view[:8], "little") for view in batch.views] == batch.indices.tolist()
        seen += batch.indices.tolist()
    assert sorted(seen) == list(range(len(loader._dataset)))


def await_true(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.01)


def opened(swing, url="memory://m/d/"):
    return swingby.open(url, settings=swing.settings)


def memory_only(budget):
    return {"memory.budget_bytes": budget, "burst.budget_bytes": 0}


@pytest.mark.parametrize(("order", "share"), [("global", 0.6), ("segments", 0.9)])
def test_half_of_a_dataset_saves_half_of_every_epoch_but_the_first(home, order, share):
    with inline(home, base=MemoryBase(base_of()), settings=memory_only(DATA // 2)) as swing, opened(swing) as dataset:
        loader = swingby.Loader(dataset, batch_size=32, shuffle=True, order=order)
        for number in range(3):
            before = fetched(swing)
            epoch(loader)
            part = (fetched(swing) - before) / DATA
            assert part <= (1.05 if number == 0 else share), f"epoch {number} fetched {part:.2f} of the dataset"
        used = swing.facts()["levels"]["memory"]["used_bytes"]
        stash = swing.keeper.supply.stash
        assert used + stash.bytes_max <= DATA // 2
        await_true(lambda: stash.used_bytes == 0)


def test_in_a_global_order_nothing_held_is_given_away(home):
    with inline(home, base=MemoryBase(base_of()), settings=memory_only(DATA // 2)) as swing, opened(swing) as dataset:
        loader = swingby.Loader(dataset, batch_size=32, shuffle=True)
        for _ in range(3):
            epoch(loader)
        assert swing.facts()["levels"]["memory"]["evicted_segments"] <= 1


def test_large_objects_in_a_global_order(home):
    objects = base_of(count=24, size=LARGE)
    with inline(home, base=MemoryBase(objects), settings=memory_only(12 * LARGE)) as swing, opened(swing) as dataset:
        loader = swingby.Loader(dataset, batch_size=2, shuffle=True)
        epoch(loader)
        before = fetched(swing)
        epoch(loader)
        assert fetched(swing) - before <= 0.85 * 24 * LARGE


def test_a_job_that_ends_gives_its_room_to_the_next(home):
    base = MemoryBase(base_of() | base_of(b"e/"))
    with inline(home, base=base, settings=memory_only(DATA // 2)) as swing:
        with opened(swing) as dataset:
            loader = swingby.Loader(dataset, batch_size=32, shuffle=True)
            epoch(loader)
            del loader
        with opened(swing, "memory://m/e/") as dataset:
            loader = swingby.Loader(dataset, batch_size=32, shuffle=True)
            epoch(loader)
            before = fetched(swing)
            epoch(loader)
            assert fetched(swing) - before <= 0.6 * DATA


def test_two_jobs_on_two_datasets_share_the_level(home):
    base = MemoryBase(base_of() | base_of(b"e/"))
    with (
        inline(home, base=base, settings=memory_only(DATA)) as swing,
        opened(swing) as first,
        opened(swing, "memory://m/e/") as second,
    ):
        one, other = [swingby.Loader(dataset, batch_size=32, shuffle=True) for dataset in (first, second)]
        epoch(one)  # it has the level for itself
        for _ in range(2):
            epoch(other)
        for loader in (one, other):
            before = fetched(swing)
            epoch(loader)
            assert fetched(swing) - before <= 0.72 * DATA


def test_what_memory_refuses_goes_to_the_burst_level_and_comes_from_there(home):
    settings = {"memory.budget_bytes": DATA // 2, "burst.budget_bytes": 2 * DATA}
    with inline(home, base=MemoryBase(base_of()), settings=settings) as swing, opened(swing) as dataset:
        loader = swingby.Loader(dataset, batch_size=32, shuffle=True)
        epoch(loader)
        before = fetched(swing)
        for _ in range(2):
            epoch(loader)
        assert fetched(swing) - before <= 0.02 * DATA


def test_a_stash_too_small_for_a_step_is_let_be(home):
    with inline(home, base=MemoryBase(base_of()), settings=memory_only(DATA // 8)) as swing, opened(swing) as dataset:
        assert swing.keeper.supply.stash.bytes_max < 512 * SIZE
        loader = swingby.Loader(dataset, batch_size=512, shuffle=True)
        for _ in range(2):
            before = fetched(swing)
            epoch(loader)
            assert fetched(swing) - before <= 1.02 * DATA


def test_what_is_pinned_comes_in_whatever_live_plans_hold(home):
    base = MemoryBase(base_of() | base_of(b"e/", 1000))
    with inline(home, base=base, settings=memory_only(DATA // 2)) as swing, opened(swing) as dataset:
        loader = swingby.Loader(dataset, batch_size=32, shuffle=True)
        epoch(loader)
        with swingby.prefetch([opened(swing, "memory://m/e/")]) as handle:
            handle.wait(20)
            before = fetched(swing)
            with opened(swing, "memory://m/e/") as other:
                other.batch(np.arange(1000))
            assert fetched(swing) == before


def test_following_reads_ahead_past_a_full_level(home):
    with inline(home, base=MemoryBase(base_of()), settings=memory_only(DATA // 2)) as swing, opened(swing) as dataset:
        following = dataset.following(64 << 20)
        for seed in range(2):
            order = np.random.default_rng(seed).permutation(COUNT)
            following.upcoming(order)
            before = fetched(swing)
            for start in range(0, COUNT, 32):
                batch = dataset.batch(order[start : start + 32])
                assert [int.from_bytes(view[:8], "little") for view in batch.views] == batch.indices.tolist()
                following.consumed(seed * COUNT + start)
            assert fetched(swing) - before <= (1.05 if seed == 0 else 0.6) * DATA
        following.close()


def test_a_base_that_goes_down_is_no_bad_sample(home):
    """Its error is an OSError, as what a dead worker leaves behind is."""
    faulty = FaultyBase(MemoryBase(base_of(count=200)), Faults())
    with inline(home, base=faulty) as swing, opened(swing) as dataset:
        how = swingby.Decode(len_of, where="processes", workers=1)
        loader = swingby.Loader(dataset, batch_size=5, decode=how, prefetch_bytes_max=0)
        faulty.is_down = True
        with pytest.raises(BaseUnavailableError):
            list(loader)


def len_of(sample):
    return len(sample.data)
