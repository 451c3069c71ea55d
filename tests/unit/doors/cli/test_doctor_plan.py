"""What doctor says will happen, from what was measured."""

from __future__ import annotations

import pytest

from swingby.config import Fetch
from swingby.doors.cli.doctor.plan import Budgets, is_near, sentences
from swingby.doors.cli.doctor.reach import Reach
from swingby.keeper.bases import NEAR_FACTOR

GB = 10**9
BUDGETS = Budgets(6 * GB, 40 * GB, "a quarter", "half", 0.1)


def near(**changes):
    return Reach(True, 1000, GB, True, 20e-6, 90e-6, 1e9)._replace(**changes)


def far(**changes):
    return Reach(False, 1000, GB, True, 0.02, None, 1e8)._replace(**changes)


@pytest.mark.parametrize(("seconds", "expected"), [(90e-6, True), (NEAR_FACTOR * 110e-6, True), (1e-3, False)])
def test_a_directory_is_judged_near_by_the_keepers_own_rule(seconds, expected):
    assert is_near(near(far_seconds=seconds), 110e-6) is expected


def test_a_near_directory_is_not_copied_to_burst_and_the_figures_are_given():
    text = " ".join(sentences(BUDGETS, near(), 110e-6, Fetch()))
    assert "as near as the burst level (90 µs against 110 µs): it is not copied there" in text


def test_a_far_base_is_copied_and_its_latency_sets_how_much_is_in_flight():
    text = " ".join(sentences(BUDGETS, far(), 110e-6, Fetch()))
    assert "20 ms away" in text
    assert "copied there" in text
    assert "up to 160 requests are kept in flight" in text


def test_what_does_not_fit_is_said():
    assert "fits into memory" in sentences(BUDGETS, far(), 110e-6, Fetch())[-1]
    assert "fits on the burst level" in sentences(BUDGETS, far(bytes=20 * GB), 110e-6, Fetch())[-1]
    assert "larger than what is kept" in sentences(BUDGETS, far(bytes=100 * GB), 110e-6, Fetch())[-1]
    assert "larger than what is kept" in sentences(BUDGETS, near(bytes=20 * GB), 110e-6, Fetch())[-1]


def test_memory_that_is_not_free_is_not_promised():
    text = sentences(BUDGETS._replace(memory_now=GB // 2), near(), 110e-6, Fetch())
    assert "at the moment up to 500 MB" in text[0]
    assert "larger than what is kept" in text[-1]
    assert "at the moment" not in sentences(BUDGETS._replace(memory_now=9 * GB), near(), 110e-6, Fetch())[0]


def test_levels_that_are_off_are_said_to_be_off():
    text = " ".join(sentences(Budgets(0, 0, "", "", 0.1), far(), None, Fetch()))
    assert "Nothing is kept in memory" in text
    assert "Nothing is kept on the burst level" in text
