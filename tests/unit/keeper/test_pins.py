"""Pins: bounds, leases, jobs, and who leaves first."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from swingby.core.segment import Segment
from swingby.errors import LevelError
from swingby.keeper import pins as module
from swingby.keeper.job import Job, started_at
from swingby.keeper.pins import Pins
from swingby.keeper.protocol import Lease
from swingby.keeper.supply import Levels
from swingby.levels.block_reader import BlockReader
from swingby.levels.level import Level, LevelOptions
from swingby.levels.room import DiskRoom
from swingby.levels.segment_file import Run
from swingby.levels.sieve import Sieve

BUDGET = 100 * 4096


def level(name, tmp_path):
    options = LevelOptions(name, str(tmp_path / name), BUDGET, bytes(16))
    return Level(options, DiskRoom(str(tmp_path), 0.0), BlockReader(direct=False))


@pytest.fixture
def levels(tmp_path):
    return Levels(level("memory", tmp_path), level("burst", tmp_path))


def segment(number, pages=10):
    return Segment(number.to_bytes(16, "big"), pages * 4096, 1, packed=False)


def put(level, wanted):
    with level.holding(wanted, create=True) as file:
        level.fill(file, Run(0, 0, bytes(wanted.size_bytes), [1]))


def test_what_memory_may_not_pin_is_pinned_on_the_burst_level_and_then_refused(levels):
    pins = Pins(levels)
    large = [segment(number) for number in range(6)]
    assert pins.add("a", large, None, is_near=False).level.name == "memory"
    assert pins.add("b", large[:3], None, is_near=False).level.name == "memory"  # the same segments count once
    others = [segment(number) for number in range(10, 15)]
    assert pins.add("c", others, None, is_near=False).level.name == "burst"
    with pytest.raises(LevelError, match="at most 75% may be") as refused:
        pins.add("d", [segment(number) for number in range(20, 25)], None, is_near=False)
    assert "memory.budget_bytes" in str(refused.value)


def test_what_no_level_admits_and_what_burst_never_has_is_refused(levels):
    pins = Pins(levels)
    with pytest.raises(LevelError):
        pins.add("a", [segment(1, pages=51)], None, is_near=False)
    pins.add("b", [segment(number) for number in range(6)], None, is_near=True)
    with pytest.raises(LevelError):
        pins.add("c", [segment(number) for number in range(10, 15)], None, is_near=True)


def test_there_are_only_so_many_pins(levels, monkeypatch):
    monkeypatch.setattr(module, "PINS_MAX", 2)
    pins = Pins(levels)
    held = [pins.add("a", [segment(1)], None, is_near=False) for _ in range(2)]
    with pytest.raises(LevelError):
        pins.add("a", [segment(1)], None, is_near=False)
    pins.end(held[0])
    pins.add("a", [segment(1)], None, is_near=False)
    assert len(pins) == 2


def test_bytes_count_once_for_each_segment_and_end_with_the_last_pin(levels):
    pins = Pins(levels)
    first = pins.add("a", [segment(1), segment(2)], None, is_near=False)
    second = pins.add("b", [segment(2), segment(3)], None, is_near=False)
    found = [pins.bytes_on(levels.memory)]
    for pin in (first, first, second):
        pins.end(pin)
        found.append(pins.bytes_on(levels.memory))
    assert [one // 40960 for one in found] == [3, 2, 2, 0]


def test_there_are_only_so_many_leases(levels, monkeypatch):
    monkeypatch.setattr(module, "LEASES_MAX", 1)
    pins, lease = Pins(levels), Lease(os.getpid(), started_at(os.getpid()))
    pins.add("a", [segment(1)], lease, is_near=False)
    with pytest.raises(LevelError):
        pins.add("a", [segment(1)], lease, is_near=False)
    pins.add("a", [segment(1)], None, is_near=False)


def test_what_a_lease_held_is_the_first_to_leave(levels):
    pins, memory = Pins(levels), levels.memory
    for number in range(8):
        put(memory, segment(number))
        memory.touch(segment(number).id)
    pin = pins.add("a", [segment(5)], Lease(seconds=0.05), is_near=False)
    pin.begin_lease()
    pins.expire()
    assert not memory.evict(segment(5).id)
    time.sleep(0.06)
    pins.expire()
    assert not len(pins)
    assert memory._policy.victim(b"", memory._sizes, memory._may_leave) == segment(5).id


def test_what_two_pin_stays_until_both_have_ended(levels):
    pins, memory = Pins(levels), levels.memory
    put(memory, segment(1))
    first, second = (pins.add("a", [segment(1)], None, is_near=False) for _ in range(2))
    pins.end(first)
    pins.end(first)
    assert not memory.evict(segment(1).id)
    pins.end(second)
    assert memory.evict(segment(1).id)


def test_the_time_of_a_lease_begins_when_all_is_present(levels):
    pin = Pins(levels).add("a", [segment(1)], Lease(seconds=0.01), is_near=False)
    time.sleep(0.02)
    assert not pin.is_over


def test_a_process_of_the_same_number_is_not_the_job():
    mine = started_at(os.getpid())
    assert not Job(os.getpid(), mine).is_over
    with pytest.raises(LevelError):
        Job(os.getpid(), mine + 1)


@pytest.mark.parametrize("has_descriptors", [True, False])
def test_a_job_that_was_killed_is_over_before_it_is_reaped(monkeypatch, has_descriptors):
    if not has_descriptors:
        monkeypatch.delattr(os, "pidfd_open")
    process = subprocess.Popen(["sleep", "60"])
    job = Job(process.pid, started_at(process.pid))
    assert not job.is_over
    process.kill()
    end = time.monotonic() + 10
    while not job.is_over:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert process.returncode is None
    process.wait()
    assert job.is_over
    job.close()
    assert started_at(process.pid) is None


def test_demoted_is_next_and_the_rest_keeps_its_order():
    sieve = Sieve()
    ids = [bytes([number]) for number in range(5)]
    for identity in ids:
        sieve.add(identity)
    sieve.touch(ids[3])
    sieve.demote(ids[3])
    order = []
    while (victim := sieve.next(lambda _: True)) is not None:
        order.append(victim)
        sieve.remove(victim)
    assert order == [ids[3], ids[0], ids[1], ids[2], ids[4]]
    sieve.demote(ids[0])  # unknown: nothing happens
    assert sieve.next(lambda _: True) is None
    sieve.add(ids[0])
    sieve.demote(ids[0])
    assert sieve.next(lambda _: True) == ids[0]
