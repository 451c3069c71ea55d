"""Objects found on the memory level: copied right whatever their sizes, and there for as long as a batch is held."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

import swingby
from swingby.path import found as founds
from swingby.testing.harness import inline
from swingby.testing.memory_base import MemoryBase

COUNT = 300


@pytest.mark.parametrize("sizes", [(4096,), (1,), (100,), (64,), (4095, 4096), (0, 0), (0, 10), (20_000,)])
def test_packed_is_the_views_one_after_another(home, sizes):
    rng = random.Random(str(sizes))
    data = [rng.randbytes(sizes[number % len(sizes)]) for number in range(COUNT)]
    base = MemoryBase({b"data/%03d" % number: one for number, one in enumerate(data)})
    with inline(home, base=base) as found, swingby.open("memory://x/data", settings=found.settings) as dataset:
        for start in range(0, COUNT, 50):
            dataset.batch(range(start, start + 50))
        dataset.batch(range(COUNT))
        for _ in range(40):
            indices = [rng.randrange(COUNT) for _ in range(rng.randint(0, 60))]
            expected = b"".join(data[index] for index in indices)
            batch = dataset.batch(indices)
            fresh, offsets = batch.packed()
            room = np.zeros(len(expected) + 5, np.uint8)
            into, same = batch.packed(out=room)
            assert fresh.tobytes() == into.tobytes() == expected
            assert (
                offsets.tolist() == same.tolist() == [0, *np.cumsum([len(data[index]) for index in indices]).tolist()]
            )
            assert into.base is room or not len(into)
            assert not room[len(expected) :].any()
            assert [bytes(view) for view in batch.views] == [data[index] for index in indices]
        assert isinstance(dataset.batch([1, 2]).found, founds.Located)
        with pytest.raises(ValueError, match="out"):
            dataset.batch([0, 1]).packed(out=np.zeros(max(sizes) * 2 + 1, np.uint16))


def test_a_batch_that_is_held_has_its_bytes_after_eviction_and_close(home):
    data = [random.Random(number).randbytes(4096) for number in range(COUNT)]
    base = MemoryBase({b"data/%03d" % number: one for number, one in enumerate(data)})
    with inline(home, base=base) as found:
        with swingby.open("memory://x/data", settings=found.settings) as dataset:
            dataset.batch(range(COUNT))
            for _ in range(10):
                batch = dataset.batch([5, 7, 250])
            level = found.keeper.engine.levels.memory
            for identity in level.identities():
                while level.has(identity) and not level.evict(identity):
                    time.sleep(0.01)  # the janitor holds it for a moment
            dataset.batch([1])
        fresh, _ = batch.packed()
        assert fresh.tobytes() == data[5] + data[7] + data[250]
        assert [bytes(view) for view in batch.views] == [data[5], data[7], data[250]]
