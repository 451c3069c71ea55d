"""Eviction by what live plans foretell."""

from __future__ import annotations

import numpy as np

from swingby.levels import foreseen
from swingby.levels.foreseen import Foreseen

BUDGET = 1600
SIZE = 100


class Told:
    """A forecast that is told: identity -> (seconds, dataset)."""

    def __init__(self, needs):
        self.known = needs

    def needs(self, identities):
        found = [self.known.get(one, (np.inf, -1)) for one in identities]
        return np.array([one[0] for one in found], float), np.array([one[1] for one in found], np.int64)


def policy_over(needs, sizes):
    policy, told = Foreseen(BUDGET), Told(needs)
    policy.forecast = lambda: told
    for one in sizes:
        policy.add(one)
    return policy


def leaving(policy, incoming, sizes, may_leave=lambda _: True):
    """Who leaves, one after another, until nobody may."""
    gone, left = [], dict(sizes)
    while (victim := policy.victim(incoming, left, may_leave)) is not None:
        gone.append(victim)
        policy.remove(victim)
        del left[victim]
    return gone


def names(*letters):
    return {letter.encode(): SIZE for letter in letters}


def test_without_plans_it_is_a_sieve():
    policy = Foreseen(BUDGET)
    for one in (b"a", b"b", b"c"):
        policy.add(one)
    policy.touch(b"a")
    assert leaving(policy, b"x", names(*"abc")) == [b"b", b"c", b"a"]


def test_what_no_plan_needs_goes_first_then_the_furthest_and_never_what_is_needed_before_what_comes():
    needs = {b"a": (5.0, 0), b"b": (90.0, 0), b"c": (40.0, 0), b"x": (10.0, 0)}
    policy = policy_over(needs, names(*"abcde"))
    policy.touch(b"d")
    assert leaving(policy, b"x", names(*"abcde")) == [b"e", b"d", b"b", b"c"]


def test_what_is_held_stays_and_the_next_furthest_goes():
    policy = policy_over({b"a": (50.0, 0), b"b": (90.0, 0), b"x": (1.0, 0)}, names(*"ab"))
    assert leaving(policy, b"x", names(*"ab"), lambda one: one != b"b") == [b"a"]


def test_where_all_is_needed_at_any_moment_nothing_leaves():
    policy = policy_over(dict.fromkeys((b"a", b"b", b"x"), (0.0, 0)), names(*"ab"))
    assert leaving(policy, b"x", names(*"ab")) == []


def test_a_dataset_over_its_share_gives_to_one_under_it_and_keeps_its_share():
    first = [f"a{number}".encode() for number in range(16)]
    needs = dict.fromkeys(first, (0.0, 0)) | {b"x": (0.0, 1)}
    policy = policy_over(needs, dict.fromkeys(first, SIZE))
    assert len(leaving(policy, b"x", dict.fromkeys(first, SIZE))) == 8


def test_two_datasets_at_their_shares_leave_each_other_alone():
    first, second = [[f"{name}{number}".encode() for number in range(8)] for name in "ab"]
    needs = dict.fromkeys(first, (0.0, 0)) | dict.fromkeys(second, (0.0, 1)) | {b"x": (0.0, 1), b"y": (0.0, 0)}
    sizes = dict.fromkeys(first + second, SIZE)
    for incoming in (b"x", b"y"):
        assert leaving(policy_over(needs, sizes), incoming, sizes) == []


def test_reads_without_a_plan_take_a_small_share_from_those_with_one():
    planned = [f"a{number}".encode() for number in range(16)]
    needs = dict.fromkeys(planned, (0.0, 0))
    sizes = dict.fromkeys(planned, SIZE)
    assert len(leaving(policy_over(needs, sizes), b"x", sizes)) == 2  # 1/16 of the level, and what was begun
    assert leaving(policy_over(needs, sizes), b"x", sizes, lambda _: False) == []


def test_a_ranking_is_used_for_a_while_and_then_made_anew(monkeypatch):
    policy = policy_over({b"a": (50.0, 0), b"b": (90.0, 0), b"x": (1.0, 0)}, names(*"ab"))
    assert policy.victim(b"x", names(*"ab"), lambda _: True) == b"b"
    policy.forecast().known[b"a"] = (200.0, 0)
    monkeypatch.setattr(foreseen.time, "monotonic", lambda: 1e12)
    assert policy.victim(b"x", names(*"ab"), lambda _: True) == b"a"
