"""The order of epochs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swingby.core.epoch import Draw, SegmentOrder
from swingby.core.order import Permutation, Share, consumed_positions, step_count, step_positions


@given(st.integers(1, 70_000) | st.sampled_from([65_535, 65_536, 65_537, 100_003, 250_000]), st.integers(0, 3))
def test_an_order_holds_every_index_once(count, seed):
    found = Permutation(count, seed, 0, "digest").take(np.arange(count))
    assert np.array_equal(np.sort(found), np.arange(count))


@pytest.mark.parametrize("count", [1000, 200_000])
def test_any_part_of_an_order_can_be_computed_alone(count):
    order = Permutation(count, 7, 3, "digest")
    whole = order.take(np.arange(count))
    places = np.array([0, count - 1, 17, 17, count // 2])
    assert np.array_equal(Permutation(count, 7, 3, "digest").take(places), whole[places])


@pytest.mark.parametrize("count", [1000, 200_000])
def test_seed_epoch_and_dataset_each_change_the_order(count):
    orders = [
        Permutation(count, *key).take(np.arange(1000)) for key in [(1, 1, "a"), (2, 1, "a"), (1, 2, "a"), (1, 1, "b")]
    ]
    for number, one in enumerate(orders):
        for other in orders[:number]:
            assert (one == other).mean() < 0.05


@pytest.mark.parametrize("count", [5000, 300_000])
def test_an_order_looks_random(count):
    found = Permutation(count, 1, 0, "x").take(np.arange(count))
    steps = np.abs(np.diff(found)) / count
    assert abs(steps.mean() - 1 / 3) < 0.02
    assert abs(np.corrcoef(np.arange(count), found)[0, 1]) < 0.05
    ascents = (np.diff(found) > 0).mean()
    assert abs(ascents - 0.5) < 0.03
    counts = np.bincount(found[: count // 10] * 10 // count, minlength=10)
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 30  # chi-square, 9 degrees of freedom: p = 4e-4


def test_the_numbers_are_those_of_the_specification():
    """Vectors of docs/formats/order.md."""
    small = Permutation(10, 0, 0, "00").take(np.arange(10))
    large = Permutation(1_000_000, 42, 7, "ab" * 32).take(np.arange(5))
    assert small.tolist() == SMALL
    assert large.tolist() == LARGE


SMALL = [8, 0, 4, 5, 6, 9, 3, 7, 1, 2]
LARGE = [676971, 909511, 553001, 376397, 371303]


@given(
    count=st.integers(0, 500),
    batch_size=st.integers(1, 20),
    world_size=st.integers(1, 5),
    drop_last=st.booleans(),
)
def test_ranks_share_an_epoch_without_gap_or_repetition(count, batch_size, world_size, drop_last):
    shares = [Share(batch_size, rank, world_size, drop_last) for rank in range(world_size)]
    steps = step_count(count, shares[0])
    seen = []
    for step in range(steps):
        parts = [step_positions(count, share, step) for share in shares]
        sizes = [stop - start for start, stop in parts]
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= batch_size + (1 if step == steps - 1 and world_size > 1 else 0)
        assert min(sizes) >= 1 or count < world_size  # no rank is left without a sample where the others have one
        for start, stop in parts:
            seen += range(start, stop)
    whole = count // (batch_size * world_size) * batch_size * world_size
    assert seen == list(range(whole if drop_last else count))
    assert consumed_positions(count, shares[0], steps) == len(seen)


def test_a_global_step_does_not_depend_on_the_world_size():
    """Step k of 4 ranks × 8 is steps 2k and 2k + 1 of 2 ranks × 8."""
    four = [step_positions(320, Share(8, rank, 4, drop_last=False), 3) for rank in range(4)]
    two = [step_positions(320, Share(8, rank, 2, drop_last=False), step) for step in (6, 7) for rank in range(2)]
    assert four == two


@given(st.lists(st.integers(1, 9), max_size=60), st.integers(0, 5))
def test_windows_tell_between_which_positions_each_object_comes(lengths, seed):
    order = SegmentOrder(np.cumsum([0, *lengths]), Draw(seed, 0, "d"))
    count = sum(lengths)
    first, last = order.windows()
    found = order.take(np.arange(count))
    assert np.array_equal(np.sort(found), np.arange(count))
    windows = np.array([order.window_of(position) for position in range(count)], int)
    for number in set(windows.tolist()):
        positions = np.flatnonzero(windows == number)
        assert (first[found[positions]] == positions.min()).all()
        assert (last[found[positions]] == positions.max()).all()
