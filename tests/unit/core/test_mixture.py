"""The order of mixtures: shares, quotas, and what stands where."""

from __future__ import annotations

import itertools
import math
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swingby.core.epoch import Draw
from swingby.core.mixture import BLOCK_POSITIONS, LongPasses, MixtureOrder, ShortPasses
from swingby.core.order import Permutation, Share, consumed_positions, permutations
from swingby.core.quotas import POSITIONS_MAX, Quotas, shares_of
from swingby.data.epoch import Steps

WEIGHTS = st.lists(
    st.integers(0, 5) | st.floats(0, 1) | st.sampled_from([1e-9, 1e-3, 1e9]), min_size=1, max_size=12
).filter(any)


def an_order(sizes, *, weights=None, samples=None, seed=3, epoch=0):
    """An order over datasets of these sizes, each with a digest of its own, and the length of its epochs."""
    quotas = Quotas(shares_of(weights or sizes, 1))
    count = samples or quotas.until_all(sizes)
    passes = [
        LongPasses(size, lambda number, size=size, which=which: Permutation(size, seed, number, str(which)))
        for which, size in enumerate(sizes)
    ]
    firsts = np.cumsum([0, *sizes[:-1]])
    return MixtureOrder(quotas, count, Draw(seed, epoch, "mixture"), passes, firsts), count


def split(indices, sizes):
    """What stands in each dataset, in order."""
    bounds = np.cumsum([0, *sizes])
    return [indices[(indices >= first) & (indices < stop)] - first for first, stop in itertools.pairwise(bounds)]


# -- shares ------------------------------------------------------------------------------------------------------------


def test_shares_are_exact_and_without_a_common_divisor():
    assert shares_of([20, 30], 1) == [2, 3]
    assert shares_of([0.5, 0.25, 0], 1) == [2, 1, 0]
    assert shares_of([1e-9, 1], 1)[0] > 0
    assert shares_of([5, 5, 5], 1) == [1, 1, 1]


def test_a_temperature_evens_shares_out_as_powers():
    for temperature in (0.5, 2.0, 5.0, 100.0):
        shares = shares_of([1000, 10, 1], temperature)
        for share, weight in zip(shares, [1000, 10, 1], strict=True):
            wanted = (weight / 1000) ** (1 / temperature)
            assert share / shares[0] == pytest.approx(wanted, rel=1e-12)
    assert shares_of([1000, 10, 0], math.inf) == [1, 1, 0]


@pytest.mark.parametrize("weights", [[], [0, 0], [1, -1], [1, math.nan], [math.inf, 1]])
def test_weights_that_make_no_sense_are_refused(weights):
    with pytest.raises(ValueError, match="weight"):
        shares_of(weights, 1)


@pytest.mark.parametrize("temperature", [0, -1, math.nan])
def test_temperatures_that_make_no_sense_are_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        shares_of([1, 2], temperature)


def test_a_share_too_small_to_count_is_refused():
    with pytest.raises(ValueError, match="1e-18"):
        shares_of([1, 1e-9], 0.1)


# -- quotas ------------------------------------------------------------------------------------------------------------


@settings(deadline=None)  # shares of 1e-300 are long integers
@given(WEIGHTS, st.integers(0, 300), st.integers(0, 1 << 60))
def test_counts_add_up_never_fall_and_never_drift(weights, near, far):
    shares = shares_of(weights, 1)
    quotas = Quotas(shares)
    for start in (near, far):
        counts = quotas.before(start)
        for position in range(start, start + 20):
            assert sum(counts) == position
            for count, share in zip(counts, shares, strict=True):
                exact = Fraction(position * share, sum(shares))
                assert abs(count - exact) < 2
                assert share or not count
            after = quotas.before(position + 1)
            assert sorted(b - a for a, b in zip(counts, after, strict=True)) == [0] * (len(shares) - 1) + [1]
            counts = after


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=3), st.integers(0, 1 << 60))
def test_up_to_three_datasets_are_within_one_of_exact(weights, position):
    shares = shares_of(weights, 1)
    for count, share in zip(Quotas(shares).before(position), shares, strict=True):
        assert abs(count - Fraction(position * share, sum(shares))) <= 1


@settings(deadline=None)
@given(st.lists(st.integers(1, 10**7), min_size=1, max_size=100), st.integers(0, 1000))
def test_shares_by_size_give_every_sample_once_an_epoch_for_ever(sizes, epoch):
    quotas = Quotas(shares_of(sizes, 1))
    assert quotas.until_all(sizes) == quotas.until_first(sizes) == sum(sizes)
    assert quotas.before(epoch * sum(sizes)) == [epoch * size for size in sizes]


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)), min_size=1, max_size=6).filter(
        lambda x: any(w for _, w in x)
    )
)
def test_an_epoch_ends_when_all_were_seen_or_before_the_first_is_repeated(given):
    sizes, weights = map(list, zip(*given, strict=True))
    quotas = Quotas(shares_of(weights, 1))

    def complete(position):
        return all(
            count >= size or not weight
            for count, size, weight in zip(quotas.before(position), sizes, weights, strict=True)
        )

    def repeats(position):
        return any(count > size for count, size in zip(quotas.before(position), sizes, strict=True))

    assert quotas.until_all(sizes) == next(position for position in range(10**6) if complete(position))
    assert quotas.until_first(sizes) == next(position for position in range(10**6) if repeats(position)) - 1


def test_an_epoch_without_end_is_refused():
    quotas = Quotas(shares_of([1e-30, 1], 1))
    with pytest.raises(ValueError, match="how many samples"):
        quotas.until_all([10, 10])
    assert quotas.until_first([10, 10]) == 10
    assert Quotas([1, POSITIONS_MAX // 8]).until_all([4, 4]) < POSITIONS_MAX


# -- what stands where -------------------------------------------------------------------------------------------------


def test_a_walk_gives_each_dataset_its_quota_in_the_order_of_its_passes():
    """Every position, one epoch after another, against the plainest walk there is."""
    sizes, weights, samples = [700, 90, 1, 5000], [0.5, 0.3, 0.05, 0.15], BLOCK_POSITIONS + 1000
    quotas = Quotas(shares_of(weights, 1))
    seen = [[] for _ in sizes]
    for epoch in range(3):
        order, _ = an_order(sizes, weights=weights, samples=samples, epoch=epoch)
        parts = split(order.take(np.arange(samples)), sizes)
        for which, part in enumerate(parts):
            seen[which] += part.tolist()
        assert [len(one) for one in seen] == quotas.before((epoch + 1) * samples)
    for which, size in enumerate(sizes):
        passes = -(-len(seen[which]) // size)
        wanted = [Permutation(size, 3, number, str(which)).take(np.arange(size)) for number in range(passes)]
        assert seen[which] == np.concatenate(wanted)[: len(seen[which])].tolist()


def test_every_block_holds_the_quotas():
    sizes, weights = [10**6] * 3, [6, 3, 1]
    order, _ = an_order(sizes, weights=weights, samples=10**7)
    shares = np.array(weights) / 10
    for block in (0, 1, 500, 1219):
        start = block * BLOCK_POSITIONS
        found = np.bincount(order.where(np.arange(start, start + BLOCK_POSITIONS)).datasets, minlength=3)
        assert np.abs(found - BLOCK_POSITIONS * shares).max() <= 2


@settings(deadline=None, max_examples=50)  # a whole epoch each
@given(st.data())
def test_any_positions_can_be_computed_alone(data):
    sizes = data.draw(st.lists(st.sampled_from([1, 2, 3, 50, 4000]), min_size=1, max_size=4))
    weights = data.draw(st.lists(st.integers(1, 9), min_size=len(sizes), max_size=len(sizes)))
    samples = data.draw(st.integers(1, 3 * BLOCK_POSITIONS))
    order, _ = an_order(sizes, weights=weights, samples=samples, epoch=data.draw(st.integers(0, 10**6)))
    whole = order.take(np.arange(samples))
    places = np.array(data.draw(st.lists(st.integers(0, samples - 1), max_size=20)), np.int64)
    again, _ = an_order(sizes, weights=weights, samples=samples, epoch=order._draw.epoch)
    assert np.array_equal(again.take(places), whole[places])


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_a_resume_under_any_world_gives_what_is_left_once(data):
    """Epochs read in stretches, each by another world, are the sequence itself."""
    sizes = data.draw(st.lists(st.integers(1, 300), min_size=1, max_size=4))
    weights = data.draw(st.lists(st.integers(1, 9), min_size=len(sizes), max_size=len(sizes)))
    samples = data.draw(st.integers(1, 500))
    order, _ = an_order(sizes, weights=weights, samples=samples, epoch=data.draw(st.integers(0, 3)))
    seen, consumed = [], 0
    while consumed < samples:
        world, batch = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 40))
        shares = [Share(batch, rank, world, drop_last=False, first=consumed) for rank in range(world)]
        ranks = [Steps(samples, share, order) for share in shares]
        steps = data.draw(st.integers(1, ranks[0].count))
        for step in range(steps):
            seen += [index for rank in ranks for index in rank.indices(step).tolist()]
        consumed = consumed_positions(samples, shares[0], steps)
    assert seen == order.take(np.arange(samples)).tolist()


def test_sizes_as_weights_give_a_shuffle_of_everything():
    sizes = [1000, 300, 77, 20_000]
    for epoch in (0, 7):
        order, count = an_order(sizes, epoch=epoch)
        found = order.take(np.arange(count))
        assert np.array_equal(np.sort(found), np.arange(sum(sizes)))
        which = np.searchsorted(np.cumsum(sizes), found, "right")
        assert abs(np.corrcoef(np.arange(count), which)[0, 1]) < 0.05
    assert not np.array_equal(found, an_order(sizes, epoch=0)[0].take(np.arange(count)))


def test_seed_and_epoch_each_change_the_pattern():
    patterns = [
        an_order([9000, 9000], seed=seed, epoch=epoch)[0].where(np.arange(9000)).datasets
        for seed, epoch in ((1, 1), (2, 1), (1, 2))
    ]
    for number, one in enumerate(patterns):
        for other in patterns[:number]:
            assert (one == other).mean() < 0.6


@given(st.integers(1, 300), st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=50))
@example(1, [5, 3])
@example(1000, list(range(-5000, 10_000, 7)))
def test_short_passes_are_the_same_as_long_ones(count, numbers):
    draw = Draw(9, 4, "d")
    long = LongPasses(count, lambda number: Permutation(count, 9, 4 + number, "d"))
    assert ShortPasses(count, draw).take(np.array(numbers)).tolist() == long.take(np.array(numbers)).tolist()
    listed = LongPasses(count, lambda number: None)
    assert ShortPasses(count, None).take(np.array(numbers)).tolist() == listed.take(np.array(numbers)).tolist()


def test_short_passes_bound_what_they_hold(monkeypatch):
    numbers = np.arange(0, 50_000, 3)
    wanted = ShortPasses(100, Draw(0, 0, "d")).take(numbers)
    monkeypatch.setattr("swingby.core.mixture.TABLE_NUMBERS_MAX", 700)
    assert np.array_equal(ShortPasses(100, Draw(0, 0, "d")).take(numbers), wanted)


def test_an_epoch_too_far_away_is_refused():
    with pytest.raises(ValueError, match="epoch"):
        an_order([10, 10], samples=1 << 50, epoch=1 << 20)


def test_permutations_of_several_epochs_are_those_of_each():
    found = permutations(50, 7, [3, 0, 12], "x")
    for epoch, row in zip([3, 0, 12], found, strict=True):
        assert row.tolist() == Permutation(50, 7, epoch, "x").take(np.arange(50)).tolist()


def test_the_numbers_are_those_of_the_specification():
    """Vectors of docs/formats/order.md."""
    assert Quotas([7, 2, 1]).before(1004) == [703, 201, 100]
    assert Quotas([1, 1, 1, 1, 1]).before(8) == [2, 1, 2, 1, 2]
    assert Quotas([9, 0, 4, 4, 3]).before(1000) == [450, 0, 200, 200, 150]
    draw = Draw(42, 1, "00")
    passes = [ShortPasses(size, Draw(42, 0, digest)) for size, digest in ((70, "aa"), (20, "bb"), (10, "cc"))]
    order = MixtureOrder(Quotas([7, 2, 1]), 100, draw, passes, np.array([0, 70, 90]))
    assert order.take(np.arange(12)).tolist() == VECTOR


VECTOR = [48, 79, 52, 69, 58, 10, 12, 4, 99, 68, 62, 37]


def test_a_position_at_ten_million_is_found_at_once():
    """Bounds are loose: the machine may be busy. `swingby bench run resume` measures."""
    order, count = an_order([7_000_000, 2_000_000, 1_000_000], epoch=12)
    began = time.perf_counter()
    order.take(np.arange(count // 2, count // 2 + 256))
    assert time.perf_counter() - began < 0.1
    began = time.perf_counter()
    order.take(np.arange(count // 2, count // 2 + (1 << 16)))
    assert (time.perf_counter() - began) / (1 << 16) < 2e-6
