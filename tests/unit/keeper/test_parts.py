"""Pool, flights, saved manifests, plans: the keeper's parts one by one."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest

from swingby.core.checksum import word_of
from swingby.core.containers.location import RAW, Coded
from swingby.core.manifest.build import build
from swingby.core.object import Page
from swingby.core.plan import Fetch, Piece
from swingby.core.segment import Origin, Segment
from swingby.errors import (
    BaseUnavailableError,
    CorruptDataError,
    FormatError,
    ManifestNotFoundError,
    ObjectNotFoundError,
    ProtocolError,
)
from swingby.keeper.flights import Flights
from swingby.keeper.jobs import STORED, FetchJob, FilesJob, Place, Target
from swingby.keeper.manifests import ASIDE_FILES_MAX, ManifestStore
from swingby.keeper.outlook import Outlook
from swingby.keeper.planner import Planner
from swingby.keeper.plans import EpochPlan, GivenPlan
from swingby.keeper.pool import Pool
from swingby.keeper.protocol import INDICES_WAITING_MAX, Follow, Plan, Selection
from swingby.keeper.sources import Source
from swingby.keeper.supply import Levels, Supply
from swingby.levels.block_reader import BlockReader
from swingby.levels.level import Level, LevelOptions
from swingby.levels.segment_file import Run
from swingby.testing.faulty_base import Faults, FaultyBase
from swingby.testing.memory_base import MemoryBase

# -- pool --------------------------------------------------------------------------------------------------------------


class Task:
    def __init__(self, work, size=1):
        self.size = size
        self.started = False
        self._work = work

    def run(self):
        self._work()


def await_true(condition, seconds=5.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.005)


def test_urgent_jobs_overtake_and_a_job_runs_once():
    gate, ran = threading.Event(), []
    pool = Pool("test", lambda: 1, 1 << 30)
    pool.submit([Task(gate.wait)], urgent=True)
    later = [Task(lambda number=number: ran.append(number)) for number in range(5)]
    pool.submit(later, urgent=False)
    pool.submit([later[3]], urgent=True)
    gate.set()
    await_true(lambda: len(ran) == 5)
    assert ran == [3, 0, 1, 2, 4]
    pool.close()


def test_no_more_jobs_run_than_the_limit_and_a_growing_limit_starts_more():
    running, most, limit, gate = [0], [0], [2], threading.Event()
    lock = threading.Lock()

    def work():
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.01)
        if gate.is_set():
            limit[0] = 6
        with lock:
            running[0] -= 1

    pool = Pool("test", lambda: limit[0], 1 << 30)
    pool.submit([Task(work) for _ in range(20)], urgent=False)
    await_true(lambda: pool.is_idle)
    assert most[0] == 2
    gate.set()
    pool.submit([Task(work) for _ in range(60)], urgent=False)
    await_true(lambda: pool.is_idle)
    assert 3 <= most[0] <= 6
    pool.close()


def test_bytes_in_flight_are_bounded_but_one_job_always_runs():
    held, most, lock = [0], [0], threading.Lock()

    def work(size):
        with lock:
            held[0] += size
            most[0] = max(most[0], held[0])
        time.sleep(0.005)
        with lock:
            held[0] -= size

    pool = Pool("test", lambda: 16, 100)
    tasks = [Task(lambda size=size: work(size), size) for size in [30, 40, 50, 90, 10, 10, 10, 60] * 4]
    pool.submit(tasks, urgent=False)
    await_true(lambda: pool.is_idle)
    assert most[0] <= 100
    done = threading.Event()
    pool.submit([Task(done.set, 5000)], urgent=True)
    assert done.wait(5)
    pool.close()


# -- flights -----------------------------------------------------------------------------------------------------------

SEGMENT = Segment(b"s" * 16, 1 << 16, 4, packed=True)


class Room:
    def free_bytes(self):
        return 1 << 40


@pytest.fixture
def place(tmp_path):
    level = Level(LevelOptions("memory", str(tmp_path), 1 << 30, bytes(16)), Room(), BlockReader(direct=False))
    return Place(level, level.acquire(SEGMENT, create=True))


def fetch_of(chunk, base, key=b"a", data=b"hello"):
    return Fetch(SEGMENT, chunk, chunk * 4096, key, 0, len(data), len(data), base.stat(key).version)


def test_a_chunk_is_fetched_once_for_all_who_wait(place):
    base = MemoryBase({b"a": b"hello"})
    flights, told = Flights(), []

    def plan(absent):
        return [FetchJob(fetch_of(chunk, base), base, Target(place)) for chunk in absent]

    first = flights.join(place, np.array([0, 1]), plan, lambda job, outcome: told.append(("first", job.fetch.chunk)))
    second = flights.join(place, np.array([1, 2]), plan, lambda job, outcome: told.append(("second", job.fetch.chunk)))
    assert [job.fetch.chunk for job in first.new] == [0, 1]
    assert [job.fetch.chunk for job in second.new] == [2]
    assert second.joined == [first.new[1]]
    for job in [*first.new, *second.new]:
        job.run()
    assert sorted(told) == [("first", 0), ("first", 1), ("second", 1), ("second", 2)]
    assert len(base.reads) == 3
    third = flights.join(place, np.array([0, 1, 2]), plan, lambda *_: None)
    assert (third.new, third.joined) == ([], [])


def test_waiters_are_released_when_the_fetch_fails(place):
    faulty = FaultyBase(MemoryBase({b"a": b"hello"}), Faults())

    def job_of(absent):
        return [FetchJob(fetch_of(0, faulty), faulty, Target(place))]

    flights, told = Flights(), []
    joined = flights.join(place, np.array([0]), job_of, lambda job, outcome: told.append(outcome.errors.get(0)))
    faulty.is_down = True
    joined.new[0].run()
    assert isinstance(told[0], BaseUnavailableError)
    assert not place.file.word(0)
    faulty.is_down = False
    again = flights.join(place, np.array([0]), job_of, lambda job, outcome: told.append(outcome.errors.get(0)))
    assert len(again.new) == 1  # errors are not remembered
    again.new[0].run()
    assert told[1] is None
    assert place.file.word(0) == word_of(b"hello")


def test_a_body_shorter_than_its_version_is_never_stored(place):
    base = MemoryBase({b"a": b"hello"})
    fetch = fetch_of(0, base)
    faulty = FaultyBase(base, Faults(shorten=1.0))
    told = []
    joined = Flights().join(
        place,
        np.array([0]),
        lambda _: [FetchJob(fetch, faulty, Target(place))],
        lambda _, outcome: told.append(outcome),
    )
    joined.new[0].run()
    assert isinstance(told[0].errors[0], CorruptDataError)
    assert "a" in str(told[0].errors[0])
    assert not place.file.word(0)


def test_chunks_that_an_earlier_keeper_left_are_confirmed_and_not_fetched_again(tmp_path):
    def level():
        options = LevelOptions("memory", str(tmp_path), 1 << 30, bytes(16), is_mapped=True)
        return Level(options, Room(), BlockReader(direct=False))

    base = MemoryBase({b"a": b"hello"})
    earlier = level()
    with earlier.holding(SEGMENT, create=True) as file:
        for chunk in (0, 1):
            earlier.fill(file, Run(chunk, chunk * 4096, b"hello", [word_of(b"hello")]))
    earlier.close()
    later = level()
    place = Place(later, later.acquire(SEGMENT, create=True))
    faulty = FaultyBase(base, Faults(error=1.0))
    told = []
    flights = Flights()
    joined = flights.join(
        place,
        np.array([0, 1]),
        lambda absent: [FetchJob(fetch_of(chunk, base), faulty, Target(place)) for chunk in absent],
        lambda _, outcome: told.append(outcome.errors.get(0)),
    )
    for job in joined.new:  # the first confirms both
        job.run()
    assert told == [None, None]


def test_samples_that_are_there_already_are_not_read_again(place):
    data = b"".join(b"%d" % number * 5000 for number in range(4))
    base = MemoryBase({b"x.tar": data})
    place.level.fill(place.file, Run(1, 5056, b"1" * 5000, [word_of(b"1" * 5000)]))
    coded = Coded(RAW, 0, 5000)
    pieces = tuple(Piece(number, number * 5056, number * 5000, 5000, coded) for number in range(4))
    fetch = Fetch(SEGMENT, 0, 0, b"x.tar", 0, 20_000, 20_000, base.stat(b"x.tar").version, pieces)
    told, target = [], Target(place)
    joined = Flights().join(
        place, np.arange(4), lambda _: [FetchJob(fetch, base, target)], lambda _, outcome: told.append(outcome)
    )
    joined.new[0].run()
    assert told == [STORED]
    assert [(start, size) for _, start, size in base.reads] == [(0, 5000), (10_000, 10_000)]
    assert [bytes(place.file.read(number, place.level.reader)[:1]) for number in range(4)] == [b"0", b"1", b"2", b"3"]


def test_bytes_that_find_no_room_are_handed_to_the_waiter(place, monkeypatch):
    base = MemoryBase({b"a": b"hello"})
    place.level.options = place.level.options._replace(budget_bytes=0)
    told = []
    fetch = fetch_of(0, base)
    joined = Flights().join(
        place, np.array([0]), lambda _: [FetchJob(fetch, base, Target(place))], lambda _, outcome: told.append(outcome)
    )
    joined.new[0].run()
    assert (told[0].errors, told[0].homeless) == ({}, {0: (b"hello", word_of(b"hello"), 5)})


def test_files_read_together_are_stored_and_a_bad_one_is_no_reason_for_the_others_to_fail(place):
    base = MemoryBase({b"a": b"hello", b"b": b"gone", b"c": b"world"})
    fetches = [fetch_of(chunk, base, key, base._objects[key]) for chunk, key in enumerate((b"a", b"b", b"c"))]
    base.delete(b"b")
    told = []
    joined = Flights().join(
        place,
        np.arange(3),
        lambda _: [FilesJob(fetches, base, Target(place))],
        lambda _, outcome: told.append(outcome),
    )
    joined.new[0].run()
    assert len(told) == 1
    assert {chunk: type(error) for chunk, error in told[0].errors.items()} == {1: ObjectNotFoundError}
    assert place.file.absent(np.arange(3)).tolist() == [1]
    assert bytes(place.file.read(2, place.level.reader)) == b"world"


# -- saved manifests ---------------------------------------------------------------------------------------------------


def saved(store, keys, prefix=b"p/"):
    page = Page([prefix + key for key in keys], np.full(len(keys), 10, np.uint64), np.zeros((len(keys), 16), np.uint8))
    with store.writing() as sink:
        return store.save(build(Origin("base", ""), prefix, [page], sink), 1.5)


def test_a_saved_manifest_is_found_again_by_another_store(tmp_path):
    listing = saved(ManifestStore(str(tmp_path), 8), [b"a", b"b"])
    store = ManifestStore(str(tmp_path), 8)
    assert list(store.load(listing.digest).keys()) == [b"a", b"b"]
    record = store.place("base", "", b"p/")
    assert record.listings == [listing]
    assert store.place("base", "", b"q/") is None
    assert store.is_whole(listing.digest)


def test_old_listings_go_with_what_only_they_used(tmp_path):
    store = ManifestStore(str(tmp_path), 2)
    listings = [saved(store, [b"%d" % number, b"a"]) for number in range(5)]
    assert store.place("base", "", b"p/").listings == listings[-2:]
    assert len(os.listdir(tmp_path / "roots")) == len(os.listdir(tmp_path / "shards")) == 2
    with pytest.raises(ManifestNotFoundError):
        store.load(listings[0].digest)
    assert list(store.load(listings[-1].digest).keys()) == [b"4", b"a"]


@pytest.mark.parametrize("place", [0, 30, -1])
@pytest.mark.parametrize("folder", ["roots", "shards", "places"])
def test_damage_is_found_before_it_is_used(tmp_path, folder, place):
    listing = saved(ManifestStore(str(tmp_path), 8), [b"a", b"b", b"c"])
    (name,) = os.listdir(tmp_path / folder)
    data = bytearray((tmp_path / folder / name).read_bytes())
    data[place] ^= 1
    (tmp_path / folder / name).write_bytes(data)
    store = ManifestStore(str(tmp_path), 8)
    if folder == "places":
        assert store.place("base", "", b"p/") is None
        return
    assert not store.is_whole(listing.digest)
    with pytest.raises((ManifestNotFoundError, FormatError)):
        list(store.load(listing.digest).keys())
    again = saved(store, [b"a", b"b", b"c"])
    assert again.digest == listing.digest
    assert ManifestStore(str(tmp_path), 8).is_whole(listing.digest)


@pytest.mark.parametrize("folder", ["roots", "places"])
def test_a_file_of_another_format_is_set_aside_and_what_it_was_is_made_anew(tmp_path, folder):
    listing = saved(ManifestStore(str(tmp_path), 8), [b"a"])
    (name,) = os.listdir(tmp_path / folder)
    data = bytearray((tmp_path / folder / name).read_bytes())
    data[8] += 9
    (tmp_path / folder / name).write_bytes(data)
    store = ManifestStore(str(tmp_path), 8)
    assert saved(store, [b"a"]).digest == listing.digest
    assert (tmp_path / "aside" / name).read_bytes() == data
    again = ManifestStore(str(tmp_path), 8)
    assert [one.digest for one in again.place("base", "", b"p/").listings] == [listing.digest]
    assert list(again.load(listing.digest).keys()) == [b"a"]


def test_indexes_of_places_that_are_no_more_go_after_a_week(tmp_path):
    store = ManifestStore(str(tmp_path), 8)
    saved(store, [b"a"])
    (known,) = os.listdir(tmp_path / "places")
    for name in (known, "begun", "stale"):
        (tmp_path / "indexes" / name).mkdir(parents=True)
        (tmp_path / "indexes" / name / "x").write_bytes(b"index")
    for name in (known, "stale"):
        os.utime(tmp_path / "indexes" / name, (0, time.time() - 8 * 24 * 3600))
    ManifestStore(str(tmp_path), 8).clean_left_over()
    assert sorted(os.listdir(tmp_path / "indexes")) == sorted([known, "begun"])


def test_not_many_files_are_kept_aside(tmp_path):
    store = ManifestStore(str(tmp_path), 1)
    for number in range(ASIDE_FILES_MAX + 5):
        listing = saved(store, [b"%d" % number])
        (tmp_path / "roots" / f"{listing.digest}.root").write_bytes(b"damaged")
        with pytest.raises(ManifestNotFoundError):
            store.load(listing.digest)
    assert len(os.listdir(tmp_path / "aside")) == ASIDE_FILES_MAX


def test_where_nothing_can_be_written_manifests_live_in_memory():
    store = ManifestStore("/proc/no/such/place", 8)
    listing = saved(store, [b"a", b"b"])
    assert list(store.load(listing.digest).keys()) == [b"a", b"b"]
    assert store.place("base", "", b"p/").listings == [listing]


def test_manifests_that_live_in_memory_leave_with_their_listings():
    store = ManifestStore("/proc/no/such/place", 2)
    saved(store, [b"a"])
    saved(store, [b"b"])
    before = len(os.listdir("/proc/self/fd"))
    for number in range(10):
        saved(store, [b"%d" % number])
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_a_digest_cannot_lead_out_of_the_directory(tmp_path):
    with pytest.raises(ManifestNotFoundError):
        ManifestStore(str(tmp_path), 8).load("../../etc/passwd")


# -- plans -------------------------------------------------------------------------------------------------------------


def plan_over(store, count, selection=None, **fields):
    listing = saved(store, [b"%05d" % number for number in range(count)])
    source = Source(store.load(listing.digest), None)
    defaults = {
        "order": "global",
        "seed": 3,
        "epoch": 1,
        "share": (8, 0, 2, False, 0),
        "ahead_bytes_max": 1000,
    }
    message = Plan(listing.digest, Selection(), **(defaults | fields))
    return EpochPlan(source, selection, message)


def test_a_plan_walks_its_ranks_part_of_the_order_within_its_bytes(tmp_path):
    store = ManifestStore(str(tmp_path), 8)
    walked = []
    plans = [plan_over(store, 2000, share=(8, rank, 2, False, 0), ahead_bytes_max=6000) for rank in (0, 1)]
    for plan in plans:
        while not plan.is_over:
            assert plan.has_room(1 << 60)
            block = plan.next_block(1 << 30)
            walked += block.tolist()
            assert len(block) <= 520
            if not plan.is_over and not plan.has_room(1 << 60):
                plan.advance(plan._next_step)
    assert sorted(walked) == list(range(2000))


def test_a_plan_waits_for_its_reader_and_a_reader_may_overtake_it(tmp_path):
    plan = plan_over(ManifestStore(str(tmp_path), 8), 5000, ahead_bytes_max=5000)
    first = plan.next_block(1 << 30)
    assert not plan.has_room(1 << 60)
    plan.advance(10)
    assert not plan.has_room(1 << 60)
    plan.advance(len(first) // 8)
    assert plan.has_room(1 << 60)
    plan.advance(300)
    assert plan._next_step == 300


def test_a_plan_of_a_selection_walks_the_selected(tmp_path):
    chosen = np.arange(0, 1000, 10)
    plan = plan_over(ManifestStore(str(tmp_path), 8), 1000, chosen, share=(8, 0, 1, False, 0))
    assert set(plan.next_block(1 << 30).tolist()) == set(chosen.tolist())


def test_ranks_that_sweep_begin_apart_and_each_goes_through_everything(tmp_path):
    for rank in (0, 1):
        plan = plan_over(ManifestStore(str(tmp_path), 8), 2000, share=(8, rank, 2, False, 0))
        plan.sweeps = True
        walked = []
        while not plan.is_over:
            walked += plan.next_block(1 << 30).tolist()
            plan.advance(30)
        assert walked[0] == 1000 * rank
        assert sorted(walked) == list(range(2000))


def given_plan(tmp_path, count, ahead_bytes_max):
    listing = saved(ManifestStore(str(tmp_path), 8), [b"%05d" % number for number in range(count)])
    source = Source(ManifestStore(str(tmp_path), 8).load(listing.digest), None)
    return GivenPlan(source, Follow(listing.digest, ahead_bytes_max))


def test_a_given_plan_walks_what_it_is_given_within_its_bytes(tmp_path):
    plan = given_plan(tmp_path, 2000, 6000)
    assert plan.is_over
    given = [np.arange(1500, 300, -1), np.arange(10), np.zeros(0, np.int64)]
    for part in given:
        plan.append(part)
    walked = []
    while not plan.is_over:
        assert plan.has_room(1 << 60)
        walked += plan.next_block(1 << 30).tolist()
        if not plan.has_room(1 << 60):
            plan.advance(len(walked))
    assert walked == np.concatenate(given).tolist()


def test_a_reader_overtakes_a_given_plan(tmp_path):
    plan = given_plan(tmp_path, 2000, 6000)
    plan.append(np.arange(1000))
    plan.advance(700)
    assert plan.next_block(1 << 30).tolist() == list(range(700, 1000))
    plan.advance(5000)
    assert plan.is_over
    assert not plan._ahead_bytes


@pytest.mark.parametrize("indices", [[-1], [5, 2000], [1 << 40]])
def test_a_given_plan_refuses_what_is_not_there(tmp_path, indices):
    with pytest.raises(ProtocolError, match="out of range"):
        given_plan(tmp_path, 2000, 6000).append(np.array(indices))


def test_a_given_plan_refuses_more_than_it_would_walk(tmp_path):
    plan = given_plan(tmp_path, 2000, 6000)
    plan.append(np.zeros(INDICES_WAITING_MAX, np.int64))
    with pytest.raises(ProtocolError, match="ahead"):
        plan.append(np.zeros(1, np.int64))


@pytest.mark.parametrize(
    "fields",
    [
        {"share": (0, 0, 1, False, 0)},
        {"share": (8, 2, 2, False, 0)},
        {"share": (8, -1, 2, False, 0)},
        {"share": (8, 0, 2, False, -1)},
        {"order": "nonsense"},
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(tmp_path, fields):
    with pytest.raises(ProtocolError, match="no such part"):
        plan_over(ManifestStore(str(tmp_path), 8), 100, **fields)


def test_a_plan_that_cannot_be_walked_stops_no_other(tmp_path):
    walked = []

    class Walked(Supply):
        def begin(self, base, wants, on_done, **_):
            walked.append(len(wants))

    bad = plan_over(ManifestStore(str(tmp_path), 8), 100)
    bad.selection = np.array([5])
    planner = Planner(Walked(Levels(None, None), None, None), Outlook(lambda work: work()), lambda source: False)
    planner.add(1, bad)
    planner.add(2, plan_over(ManifestStore(str(tmp_path), 8), 100))
    await_true(lambda: walked)
    planner.close()
