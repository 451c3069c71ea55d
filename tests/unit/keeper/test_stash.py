"""What was fetched ahead and not admitted: held within bounds, for as long as its plan may ask for it."""

from __future__ import annotations

import time

from swingby.keeper.stash import SERVED_SECONDS, Kept, Stash


def kept(size=10):
    return Kept(b"x" * size, 1, size)


def chunks(segment, numbers, size=10):
    return [((segment, number), kept(size)) for number in numbers]


def test_what_is_taken_is_gone():
    stash = Stash(100)
    stash.put(1, 5, chunks(b"s", range(3)))
    assert sorted(stash.take(b"s", [0, 2, 9])) == [0, 2]
    assert stash.take(b"s", [0, 2]) == {}
    assert stash.take(b"other", [1]) == {}
    assert (stash.used_bytes, stash.dropped_bytes) == (10, 0)


def test_it_holds_no_more_than_it_may():
    stash = Stash(35)
    stash.put(1, 5, chunks(b"s", range(9)))
    assert (stash.used_bytes, stash.dropped_bytes) == (30, 60)


def test_what_a_plan_has_passed_or_leaves_behind_goes():
    stash = Stash(1000)
    stash.put(1, 5, chunks(b"s", range(3)))
    stash.put(1, 6, chunks(b"s", range(3, 6)))
    stash.put(2, 1, chunks(b"t", range(3)))
    stash.take(b"s", [0])
    stash.pass_by(1, 5)
    assert sorted(stash.take(b"s", range(6))) == [3, 4, 5]
    stash.drop(2)
    stash.drop(7)
    assert stash.used_bytes == 0
    assert stash.dropped_bytes == 50


def test_what_was_put_again_after_it_was_taken_is_not_passed_by_with_the_first():
    stash = Stash(1000)
    stash.put(1, 5, chunks(b"s", [0]))
    stash.take(b"s", [0])
    stash.put(2, 9, chunks(b"s", [0]))
    stash.pass_by(1, 5)
    assert list(stash.take(b"s", [0])) == [0]


def test_what_a_reader_was_just_handed_is_not_worth_fetching_ahead_for_a_while(monkeypatch):
    stash = Stash(1000)
    stash.note_served(b"s", [1, 2, 3])
    assert stash.unserved(b"s", [0, 1, 2]) == [0]
    assert stash.unserved(b"s", [0, 1, 2]) == [0, 1, 2], "once"
    later = time.monotonic() + SERVED_SECONDS + 1
    monkeypatch.setattr("swingby.keeper.stash.time.monotonic", lambda: later)
    assert stash.unserved(b"s", [3]) == [3]
