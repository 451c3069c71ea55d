"""A base as near as the levels: the keeper sweeps through a dataset that fits, readers read for themselves what is absent."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

import swingby
from swingby.errors import ObjectChangedError
from swingby.testing.harness import inline

COUNT, SIZE = 4000, 3000


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "files"
    path.mkdir()
    filler = os.urandom(SIZE)
    for number in range(COUNT):
        (path / f"{number:05d}").write_bytes(number.to_bytes(8, "little") + filler[8:])
    long_ago = time.time() - 100
    for file in path.iterdir():
        os.utime(file, (long_ago, long_ago))
    return path


def near(swing):
    """The tests' disk may be slow; what is tested is what follows from a near one."""
    for base in swing.keeper.engine.bases.all():
        base.is_measured = base.is_near = True


def fetched(swing):
    return sum(one["bytes"] for one in swing.facts()["bases"].values())


def await_true(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.01)


def epoch(loader):
    seen = []
    for batch in loader:
        assert [int.from_bytes(view[:8], "little") for view in batch.views] == batch.indices.tolist()
        assert all(len(view) == SIZE for view in batch.views)
        seen += batch.indices.tolist()
    assert sorted(seen) == list(range(COUNT))


def test_an_epoch_brings_all_of_it_however_quick_the_reader_is(home, folder):
    with inline(home) as swing, swingby.open(str(folder), settings=swing.settings) as dataset:
        near(swing)
        loader = swingby.Loader(dataset, batch_size=50, shuffle=True)
        epoch(loader)
        await_true(lambda: swing.facts()["levels"]["memory"]["used_bytes"] >= COUNT * SIZE)
        epoch(loader)
        before = dataset._reader._direct_bytes
        epoch(loader)
        assert dataset._reader._direct_bytes == before, "what is there was read from the base"
        dataset._reader.report(at_once=True)
        await_true(lambda: swing.facts()["delivered"]["samples"] == 3 * COUNT)
        facts = swing.facts()
        assert COUNT * SIZE <= facts["base_bytes"] <= 2.1 * COUNT * SIZE
        assert facts["levels"]["memory"]["misses"] <= COUNT


def test_readers_get_the_snapshot_also_where_they_read_for_themselves(home, folder):
    with inline(home) as swing, swingby.open(str(folder), settings=swing.settings) as dataset:
        near(swing)
        (folder / "01234").write_bytes(b"another")
        loader = swingby.Loader(dataset, batch_size=50, shuffle=True)
        with pytest.raises(ObjectChangedError, match="01234"):
            epoch(loader)
        loader = swingby.Loader(dataset, batch_size=50, shuffle=True, on_bad="substitute")
        assert sum(len(batch) for batch in loader) == COUNT
        assert [bad.key for bad in loader.bad] == ["01234"]


def test_what_does_not_fit_is_not_swept(home, folder):
    settings = {"memory.budget_bytes": COUNT * SIZE // 2}
    with inline(home, settings=settings) as swing, swingby.open(str(folder), settings=swing.settings) as dataset:
        near(swing)
        epoch(swingby.Loader(dataset, batch_size=50, shuffle=True))
        assert not dataset._reader.sweeps
        assert dataset._reader._direct_samples == 0


def test_a_selection_is_swept_and_no_more(home, folder):
    with inline(home) as swing, swingby.open(str(folder), settings=swing.settings, include=["*7"]) as dataset:
        near(swing)
        loader = swingby.Loader(dataset, batch_size=5, shuffle=True, rank=1, world_size=2)
        next(iter(loader))
        await_true(lambda: fetched(swing) >= len(dataset) * SIZE)
        time.sleep(0.2)
        assert fetched(swing) == len(dataset) * SIZE


def test_reads_without_a_plan_still_go_through_the_keeper(home, folder):
    with inline(home) as swing, swingby.open(str(folder), settings=swing.settings) as dataset:
        near(swing)
        dataset.batch(np.arange(100))
        assert dataset._reader._direct_samples == 0
        assert swing.facts()["levels"]["memory"]["used_bytes"] >= 100 * SIZE
