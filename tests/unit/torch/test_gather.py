"""Batches gathered by threads come in order, within their bound, and every wait ends."""

from __future__ import annotations

import threading
import time

import pytest

pytest.importorskip("torch", reason="swingby.torch needs PyTorch")

from swingby.path.waits import WAITED
from swingby.torch.gather import gathered


class Making:
    """Makes a batch by a function, and says that it holds the lock for so long."""

    def __init__(self, function, locked_seconds=0.0):
        self.function = function
        self.locked_seconds = locked_seconds
        self.threads = []

    def __call__(self, step):
        self.threads.append(threading.current_thread())
        return self.function(step)


def gathering():
    return {thread for thread in threading.enumerate() if thread.name == "swingby-gather"}


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_batches_come_in_the_order_they_were_asked_for(threads):
    def slow_at_first(number):
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number

    assert list(gathered(iter(range(20)), Making(slow_at_first), threads, 4, 0)) == list(range(20))


def test_no_more_are_gathered_than_may_be_ahead():
    begun = []
    batches = gathered(iter(range(100)), Making(begun.append), 2, 4, 0)
    next(batches)
    time.sleep(0.2)
    assert len(begun) == 4
    batches.close()


def test_an_error_is_raised_where_its_batch_is_due_and_the_threads_end():
    def fail_at_two(number):
        if number == 2:
            raise OSError("of the second")
        return number

    batches = gathered(iter(range(100)), Making(fail_at_two), 2, 8, 0)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(OSError, match="of the second"):
        next(batches)
    until = time.monotonic() + 5
    while gathering():
        assert time.monotonic() < until


def test_a_batch_that_takes_too_long_is_an_error():
    release = threading.Event()
    batches = gathered(iter(range(4)), Making(lambda _: release.wait(30)), 1, 2, 0.2)
    started = time.monotonic()
    with pytest.raises(RuntimeError, match=r"timed out after 0\.2 seconds"):
        next(batches)
    assert time.monotonic() - started < 5
    release.set()


def test_what_holds_the_lock_is_made_by_a_caller_that_asks_fast():
    make = Making(lambda number: number, locked_seconds=0.01)
    assert list(gathered(iter(range(50)), make, 2, 4, 0)) == list(range(50))
    own = make.threads.count(threading.current_thread())
    assert own >= 40  # the first are made before it is known how fast it asks


@pytest.mark.parametrize(("locked_seconds", "seconds_max"), [(0.001, 0), (0.0, 0), (1.0, 30.0)])
def test_a_caller_that_computes_or_has_a_limit_makes_none(locked_seconds, seconds_max):
    make = Making(lambda number: number, locked_seconds)
    for _ in gathered(iter(range(20)), make, 2, 4, seconds_max):
        time.sleep(0.003)
    assert len(make.threads) == 20
    assert threading.current_thread() not in make.threads


def test_threads_go_on_where_the_caller_stops_making_them():
    make = Making(lambda number: number, locked_seconds=0.02)
    found = []
    for number in gathered(iter(range(60)), make, 2, 4, 0):
        found.append(number)
        time.sleep(0.03 if 20 <= number < 40 else 0)
    assert found == list(range(60))
    assert make.threads[22:40].count(threading.current_thread()) == 0


def test_what_the_caller_waits_for_a_base_meanwhile_is_told_once():
    def read(number):
        WAITED.add(1.0, 100)
        return number

    before = WAITED.base_seconds, WAITED.base_bytes
    make = Making(read, locked_seconds=0.01)
    list(gathered(iter(range(50)), make, 2, 4, 0))
    assert threading.current_thread() in make.threads
    assert (WAITED.base_seconds, WAITED.base_bytes) == before
