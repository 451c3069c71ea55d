"""The demo's parts that need no files: spans of time, speed-ups, sentences, charts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swingby.doors.cli.demo import charts
from swingby.doors.cli.demo.far import Record, overlap_seconds, union
from swingby.doors.cli.demo.results import Epoch, LevelUse, Listing, Results, Split, job, speedups, typical
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


def test_waiting_is_told_apart_into_the_way_the_base_and_the_rest():
    record = Record()
    record.add(1.0, 3.0, 4.0, 10)  # two seconds on the way, one at the base
    record.add(2.0, 3.5, 5.0, 10)
    waits = np.array([(0.0, 2.0), (3.0, 9.0)])
    assert record.waited(waits, since=0.0) == (1.0 + 0.5, 1.5)
    assert record.waited(waits, since=4.5) == (0.5, 1.5)


def epoch(way, number, seconds, *, requests=100, wrong=0):
    each = 0.9 * seconds
    split = Split(0.0, each if requests else 0.0, 0.0, 0.0 if requests else each, 0.1 * seconds)
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
    found = speedups(run_of([3.0, 1.0, 2.0], 0.5, [0.2, 0.1]), LISTING)
    assert found.cold == 1.0 / 0.5
    assert found.warm == 1.0 / 0.2
    assert found.burst is None
    assert found.job == pytest.approx((0.1 + 6.0) / (0.2 + 0.5 + 0.2 + 0.1))


def test_of_two_warm_epochs_the_slower_one_is_shown():
    assert typical(run_of([1.0], 1.0, [0.1, 0.3]), "warm").seconds == 0.3


def test_a_job_has_the_cold_epoch_and_the_warm_ones():
    epochs = [*run_of([1.0], 0.5, [0.4, 0.1]), epoch("burst", 4, 9.0)]
    assert [one.seconds for one in job(epochs)] == [0.5, 0.4, 0.1]


def results(epochs, levels=()):
    ratios = speedups(epochs, LISTING)
    machine = {"available_bytes": 890_000_000, "headroom_bytes": 1_000_000_000}
    return Results(
        "0", "now", "/x", 100, 10**6, 0.0, 3, 64, LISTING, epochs, ratios, [*levels], is_near=False, machine=machine
    )


def sentences(plain, cold, warm, wrong=0):
    return verdicts(results(run_of(plain, cold, warm, wrong=wrong)))


def test_gains_are_no_losses_and_losses_are_said_first_word():
    gains = sentences([1.0] * 3, 0.5, [0.1] * 2)
    assert [one for one in gains if one.startswith(SLOWER)] == [
        (
            "Slower: listing 100 objects, once for both sides, took 200 ms; 100 ms of that, for saving the listing, "
            "a plain program does not need."
        )
    ]
    losses = sentences([0.1] * 3, 0.5, [0.2] * 2)
    assert sum(one.startswith(SLOWER) for one in losses) == 4  # warm, cold, job, listing
    assert not any("paid off" in one for one in losses)


def test_what_kept_the_levels_from_keeping_all_is_said():
    asked_again = [*run_of([1.0] * 3, 0.5, []), *(epoch("warm", number, 0.5, requests=7) for number in (2, 3))]
    text = " ".join(verdicts(results(asked_again, [LevelUse("memory", 0, 6 * 10**9, "/dev/shm/x")])))
    assert "memory may hold 6 GB; of memory 890 MB were free, 1 GB of which stay so" in text
    assert "No level could keep anything" in " ".join(verdicts(results(asked_again)))
    assert "levels" not in " ".join(sentences([1.0] * 3, 0.5, [0.1] * 2))


@pytest.mark.parametrize(("cold", "epochs"), [(1.5, 2), (2.0, 3), (5.5, 10)])
def test_it_is_said_after_how_many_epochs_a_slow_cold_one_has_paid_off(cold, epochs):
    text = sentences([1.0] * 3, cold, [0.5] * 3)[1]
    assert f"paid off after {epochs} epochs" in text
    assert cold + (epochs - 1) * 0.5 <= epochs * 1.0
    assert cold + (epochs - 2) * 0.5 > (epochs - 1) * 1.0


def test_wrong_bytes_are_the_verdict():
    assert sentences([1.0] * 3, 0.5, [0.1] * 2, wrong=2)[-1].startswith(f"{WRONG} 2 of 600 objects")


def test_epochs_left_out_are_said_and_no_total_is_claimed():
    found = results(run_of([70.0], 0.5, [0.1] * 2))
    assert found.speedups.job is None
    assert "only 1 of 3 epochs" in " ".join(verdicts(found))


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
