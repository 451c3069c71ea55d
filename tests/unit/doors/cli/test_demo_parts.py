"""The demo's parts that need no files: spans of time, speed-ups, sentences, charts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swingby.doors.cli.demo import charts
from swingby.doors.cli.demo.far import overlap_seconds, union
from swingby.doors.cli.demo.results import Epoch, Listing, Split, job, speedups, typical
from swingby.doors.cli.demo.story import SLOWER, WRONG, verdicts

spans = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=20).map(
    lambda found: np.array([(start, start + length) for start, length in found], np.float64).reshape(-1, 2)
)


def covered(found):
    return {second for start, end in found.tolist() for second in range(int(start), int(end))}


@given(spans)
def test_a_union_covers_the_same_seconds_apart_and_in_order(found):
    joined = union(found)
    assert covered(joined) == covered(found)
    assert (joined[1:, 0] > joined[:-1, 1]).all()


@given(spans, spans)
def test_the_overlap_is_what_both_cover(first, second):
    assert overlap_seconds(union(first), union(second)) == len(covered(first) & covered(second))


def epoch(way, number, seconds, *, requests=100, wrong=0):
    each = 0.9 * seconds
    split = Split(each if requests else 0.0, 0.0, 0.0 if requests else each, 0.1 * seconds)
    curve = [(0.0, 0), (seconds / 2, 40), (seconds, 100)]
    return Epoch(
        way, number, seconds, 100, 10**6, 100 / seconds, 10**6 / seconds, requests, 10**6, 0, wrong, split, curve
    )


def run_of(plain, cold, warm, *, wrong=0):
    return [
        *(epoch("file by file", number, seconds) for number, seconds in enumerate(plain, 1)),
        epoch("cold", 1, cold, wrong=wrong),
        *(epoch("warm", number, seconds, requests=0) for number, seconds in enumerate(warm, 2)),
    ]


LISTING = Listing(100, 0.1, 0.2)


def test_speedups_are_against_the_fastest_epoch_file_by_file_and_of_the_middle_warm_one():
    found = speedups(run_of([3.0, 1.0, 2.0], 0.5, [0.4, 0.1, 0.2]), LISTING, 3)
    assert found.cold == 1.0 / 0.5
    assert found.warm == 1.0 / 0.2
    assert found.burst is None
    assert found.job == pytest.approx((0.1 + 6.0) / (0.2 + 0.5 + 0.4 + 0.1))


def test_of_two_warm_epochs_the_slower_one_is_shown():
    assert typical(run_of([1.0], 1.0, [0.1, 0.3]), "warm").seconds == 0.3


def test_a_job_has_the_cold_epoch_and_as_many_warm_ones_as_make_the_number():
    assert [one.seconds for one in job(run_of([1.0], 0.5, [0.4, 0.1, 0.2]), 3)] == [0.5, 0.4, 0.1]


def sentences(plain, cold, warm, wrong=0):
    epochs = run_of(plain, cold, warm, wrong=wrong)
    return verdicts(epochs, LISTING, speedups(epochs, LISTING, 3), 3, is_near=False)


def test_gains_are_no_losses_and_losses_are_said_first_word():
    gains = sentences([1.0] * 3, 0.5, [0.1] * 3)
    assert [one for one in gains if one.startswith(SLOWER)] == [
        (
            "Slower: listing what there is, 100 objects, took 200 ms against 100 ms, "
            "because Swingby saves what it finds, for next time."
        )
    ]
    losses = sentences([0.1] * 3, 0.5, [0.2] * 3)
    assert sum(one.startswith(SLOWER) for one in losses) == 4  # warm, cold, job, listing
    assert not any("paid off" in one for one in losses)


@pytest.mark.parametrize(("cold", "epochs"), [(1.5, 2), (2.0, 3), (5.5, 10)])
def test_it_is_said_after_how_many_epochs_a_slow_cold_one_has_paid_off(cold, epochs):
    text = sentences([1.0] * 3, cold, [0.5] * 3)[1]
    assert f"paid off after {epochs} epochs" in text
    assert cold + (epochs - 1) * 0.5 <= epochs * 1.0
    assert cold + (epochs - 2) * 0.5 > (epochs - 1) * 1.0


def test_wrong_bytes_are_the_verdict():
    assert sentences([1.0] * 3, 0.5, [0.1] * 3, wrong=2)[-1].startswith(f"{WRONG} 2 of 700 objects")


def test_epochs_left_out_are_said_and_no_total_is_claimed():
    epochs = run_of([70.0], 0.5, [0.1] * 3)
    ratios = speedups(epochs, LISTING, 3)
    assert ratios.job is None
    assert "only 1 of 3 epochs" in " ".join(verdicts(epochs, LISTING, ratios, 3, is_near=False))


@given(st.floats(1e-5, 1e5))
def test_ticks_are_round_few_and_within(highest):
    found = charts.ticks(highest)
    assert found[0] == 0
    assert found[-1] <= highest * (1 + 1e-9)
    assert 2 <= len(found) <= 8


def test_curves_follow_each_other():
    points = charts.joined(run_of([], 1.0, [0.5])[:2], 0.2)
    assert points[0] == (0.0, 0.0)
    assert points[1] == (0.2, 0.0)
    assert points[-1] == (pytest.approx(1.7), 200)
    assert all(one[0] <= after[0] and one[1] <= after[1] for one, after in itertools.pairwise(points))
