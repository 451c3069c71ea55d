"""`swingby.prefetch`: begins at once, tells how far it is, pins as long as its handle."""

from __future__ import annotations

import gc
import io
import os
import random
import threading
import time

import pytest
import tqdm
from rich.progress import Progress

import swingby
from swingby.errors import (
    BaseUnavailableError,
    ClosedError,
    DeadlineError,
    EmptyDatasetError,
    ForkError,
    LevelError,
    SwingbyError,
    UrlError,
)
from swingby.keeper.protocol import Stop
from swingby.testing.faulty_base import Faults, FaultyBase
from swingby.testing.harness import inline
from swingby.testing.memory_base import MemoryBase

COUNT, SIZE = 40, 50_000
SECONDS_MAX = 20


class Bar:
    def __init__(self):
        self.total, self.n, self.closed = None, 0, 0

    def update(self, n):
        assert n > 0
        self.n += n

    def close(self):
        self.closed += 1


@pytest.fixture
def base():
    rng = random.Random(0)
    files = {b"data/%03d" % n: rng.randbytes(SIZE) for n in range(COUNT)}
    return MemoryBase(files | {b"other/large": rng.randbytes(9 << 20)})


@pytest.fixture
def slow(base):
    return FaultyBase(base, Faults())


@pytest.fixture
def found(home, slow):
    with inline(home, base=slow) as one:
        yield one


def until(condition):
    end = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def begin(found, *urls, **options):
    return swingby.prefetch([f"memory://x/{url}" for url in urls], settings=found.settings, **options)


def test_objects_prefixes_and_datasets_are_present_when_the_wait_is_over(found):
    with swingby.open("memory://x/data", include="00*", settings=found.settings) as dataset:
        with swingby.prefetch(dataset) as handle:
            assert handle.wait(SECONDS_MAX) == (10, 10 * SIZE, 10, 10 * SIZE)
        with begin(found, "data", "other/large", "data/007") as handle:
            reached = handle.wait(SECONDS_MAX)
            assert (reached.objects, reached.objects_total) == (COUNT + 2, COUNT + 2)
            assert reached.bytes == reached.bytes_total == COUNT * SIZE + (9 << 20) + SIZE
            assert handle.done
        read = found.facts()["base_bytes"]
        assert read == COUNT * SIZE + (9 << 20)
        dataset.batch(range(10))
        swingby.read("memory://x/other/large", 5, 10, max_age_seconds=60, settings=found.settings)
        assert found.facts()["base_bytes"] == read


def test_the_caller_goes_on_at_once(found, slow):
    slow.faults = Faults(latency_seconds=0.3)
    started = time.perf_counter()
    handle = begin(found, "data")
    assert time.perf_counter() - started < 0.1
    with pytest.raises(DeadlineError):
        handle.wait(0.05)
    assert not handle.done
    assert handle.wait(SECONDS_MAX).objects == COUNT


def test_pins_live_as_long_as_the_handle(found):
    with begin(found, "data") as handle:
        handle.wait(SECONDS_MAX)
        facts = found.facts()
        assert facts["levels"]["memory"]["pinned_bytes"] >= COUNT * SIZE
        assert [(pin["name"], pin["leased"]) for pin in facts["pins"]] == [("memory://x/data", False)]
        memory = found.keeper.engine.levels.memory
        assert not any(memory.evict(identity) for identity in memory.identities())
    until(lambda: not found.facts()["pin_count"])
    with begin(found, "data", pin=False) as handle:
        handle.wait(SECONDS_MAX)
        assert not found.facts()["pin_count"]


def test_a_handle_that_is_dropped_lets_the_rest_come_and_then_its_pins_end(found, slow):
    slow.faults = Faults(latency_seconds=0.05)
    begin(found, "data")
    gc.collect()
    until(lambda: found.facts()["base_bytes"] == COUNT * SIZE)
    until(lambda: not found.facts()["pin_count"])


def test_what_is_cancelled_ends_soon(found, slow):
    slow.faults = Faults(latency_seconds=0.5)
    handle = begin(found, "data", "other")
    time.sleep(0.2)
    handle.cancel()
    until(lambda: handle.done)
    with pytest.raises(ClosedError):
        handle.wait(SECONDS_MAX)
    until(lambda: not found.facts()["pin_count"])
    assert b"other/large" not in [key for _, key in found.keeper.ranges._validated]


def test_one_that_fails_is_told_of_and_the_others_come(found):
    handle = begin(found, "nothing/here", "data")
    with pytest.raises(EmptyDatasetError):
        handle.wait(SECONDS_MAX)
    assert handle.progress.objects == COUNT


def test_a_base_that_is_down_is_an_error_of_the_wait(found, slow):
    slow.is_down = True
    with pytest.raises(BaseUnavailableError):
        begin(found, "data").wait(SECONDS_MAX)


def test_more_than_may_be_pinned_is_refused_and_comes_without_a_pin(home, base):
    small = {"memory.budget_bytes": 16 << 20, "burst.budget_bytes": 0}
    with inline(home, base=base, settings=small) as found:
        with pytest.raises(LevelError, match="cannot be pinned"):
            begin(found, "other/large").wait(SECONDS_MAX)
        assert begin(found, "data").wait(SECONDS_MAX).objects == COUNT
        assert begin(found, "other/large", pin=False).wait(SECONDS_MAX).objects_total == 1


def test_a_bar_counts_bytes_and_is_closed_once(found):
    bar = Bar()
    with begin(found, "data", "other/large", progress=bar) as handle:
        handle.wait(SECONDS_MAX)
    assert bar.n == bar.total == COUNT * SIZE + (9 << 20)
    assert bar.closed == 1


def test_a_bar_is_closed_where_it_fails(found, slow):
    bar = Bar()
    slow.is_down = True
    handle = begin(found, "data", progress=bar)
    until(lambda: handle.done)
    assert bar.closed == 1


def test_tqdm_and_rich_show_it(found):
    shown = io.StringIO()
    begin(found, "data", progress=tqdm.tqdm(unit="B", unit_scale=True, file=shown)).wait(SECONDS_MAX)
    assert "2.00M/2.00M" in shown.getvalue()
    with Progress() as bars:
        task = bars.add_task("data")

        def tell(_, size, __, total):
            bars.update(task, completed=size, total=total)

        begin(found, "data", progress=tell).wait(SECONDS_MAX)
        assert bars.tasks[0].completed == bars.tasks[0].total == COUNT * SIZE


def test_open_tells_a_bar_of_objects_also_where_the_listing_is_used_again(found):
    for _ in range(2):
        bar = Bar()
        swingby.open("memory://x/data", progress=bar, settings=found.settings)
        assert (bar.n, bar.total, bar.closed) == (COUNT, COUNT, 1)
    bar = Bar()
    with pytest.raises(EmptyDatasetError):
        swingby.open("memory://x/none", progress=bar, settings=found.settings)
    assert bar.closed == 1


def test_what_progress_raises_ends_it_and_is_raised(found):
    def fail(*_):
        raise RuntimeError("a broken bar")

    with pytest.raises(RuntimeError, match="a broken bar"):
        begin(found, "data", progress=fail).wait(SECONDS_MAX)


def test_what_makes_no_sense_is_refused_at_once(found):
    with pytest.raises(ValueError, match="one URL"):
        swingby.prefetch([], settings=found.settings)
    with pytest.raises(UrlError):
        swingby.prefetch("https://user:word@x/y", settings=found.settings)
    with pytest.raises(ValueError, match="update"):
        begin(found, "data", progress="bar")
    with pytest.raises(ValueError, match="update"):
        swingby.open("memory://x/data", progress=3, settings=found.settings)
    assert not [one for one in threading.enumerate() if one.name == "swingby-prefetch"]


def test_a_forked_child_does_not_wait_for_the_parents_thread(found, slow):
    slow.faults = Faults(latency_seconds=0.2)
    handle = begin(found, "data")
    child = os.fork()
    if child == 0:
        try:
            handle.wait(SECONDS_MAX)
        except ForkError:
            handle.cancel()
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert handle.wait(SECONDS_MAX).objects == COUNT


def test_a_dataset_of_a_keeper_that_has_ended_is_made_present_by_the_next(home, tmp_path):
    (tmp_path / "files").mkdir()
    for number in range(10):
        (tmp_path / "files" / str(number)).write_bytes(bytes(1000))
    settings = {"home": home}
    dataset = swingby.open(tmp_path / "files", settings=settings)
    try:
        dataset.client.call(Stop(), 10)
        with swingby.prefetch(dataset) as handle:  # the new keeper does not know the dataset
            assert handle.wait(SECONDS_MAX).objects == 10
    finally:
        dataset.client.call(Stop(), 10)


def test_a_keeper_that_ends_in_the_middle_leaves_no_thread_that_waits(home):
    """Such a thread would keep the program from ending."""
    memory = MemoryBase({b"d/%04d" % number: bytes(1000) for number in range(3000)})
    slow = FaultyBase(memory, Faults())
    with inline(home, base=slow) as swing, swingby.open("memory://m/d/", settings=swing.settings) as dataset:
        slow.faults = Faults(latency_seconds=0.2)
        handle = swingby.prefetch(dataset)
        until(lambda: memory.reads)
        operations = [one for one in threading.enumerate() if one.name.startswith("swingby-operation")]
        assert operations
    for thread in operations:
        thread.join(SECONDS_MAX)
        assert not thread.is_alive()
    with pytest.raises(SwingbyError):
        handle.wait(SECONDS_MAX)
