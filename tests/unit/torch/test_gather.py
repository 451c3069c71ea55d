"""Batches gathered by threads come in order, within their bound, and every wait ends."""

from __future__ import annotations

import threading
import time

import pytest

pytest.importorskip("torch", reason="swingby.torch needs PyTorch")

from swingby.torch.gather import gathered


def gathering():
    return {thread for thread in threading.enumerate() if thread.name == "swingby-gather"}


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_batches_come_in_the_order_they_were_asked_for(threads):
    def slow_at_first(number):
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number

    assert list(gathered(iter(range(20)), slow_at_first, threads, 4, 0)) == list(range(20))


def test_no_more_are_gathered_than_may_be_ahead():
    begun = []
    batches = gathered(iter(range(100)), begun.append, 2, 4, 0)
    next(batches)
    time.sleep(0.2)
    assert len(begun) == 4
    batches.close()


def test_an_error_is_raised_where_its_batch_is_due_and_the_threads_end():
    def fail_at_two(number):
        if number == 2:
            raise OSError("of the second")
        return number

    batches = gathered(iter(range(100)), fail_at_two, 2, 8, 0)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(OSError, match="of the second"):
        next(batches)
    until = time.monotonic() + 5
    while gathering():
        assert time.monotonic() < until


def test_a_batch_that_takes_too_long_is_an_error():
    release = threading.Event()
    batches = gathered(iter(range(4)), lambda _: release.wait(30), 1, 2, 0.2)
    started = time.monotonic()
    with pytest.raises(RuntimeError, match=r"timed out after 0\.2 seconds"):
        next(batches)
    assert time.monotonic() - started < 5
    release.set()
