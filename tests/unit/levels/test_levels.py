"""Levels: budgets, eviction, pins, what is found at start; policies and rooms."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swingby.core.checksum import word_of
from swingby.core.segment import Segment
from swingby.errors import LevelError
from swingby.levels import room as rooms
from swingby.levels.block_reader import BlockReader
from swingby.levels.directory import ASIDE
from swingby.levels.level import Level, LevelOptions
from swingby.levels.segment_file import Run
from swingby.levels.sieve import Sieve

MIB = 1 << 20
BOOT = b"1" * 16


class Room:
    def __init__(self, free):
        self.free = free

    def free_bytes(self):
        return self.free


def level_in(folder, budget=10 * MIB, free=1 << 40, boot=BOOT, *, is_mapped=False):
    options = LevelOptions("memory", str(folder), budget, boot, is_mapped)
    return Level(options, Room(free), BlockReader(direct=False))


def segment(number, chunks=4):
    return Segment(bytes([number]) * 16, chunks * MIB, chunks, packed=True)


def fill(level, one, chunks=(0,)):
    with level.holding(one, create=True) as file:
        for chunk in chunks:
            data = bytes([chunk + 1]) * MIB
            level.fill(file, Run(chunk, chunk * MIB, data, [word_of(data)]))


def holds(level, one, chunk=0):
    with level.holding(one, create=False) as file:
        return file is not None and bool(file.word(chunk))


def test_a_level_stays_within_its_budget_and_evicts_the_unused(tmp_path):
    level = level_in(tmp_path, 10 * MIB)
    for number in range(1, 6):
        fill(level, segment(number), (0, 1))
    assert level.counts().used_bytes == 10 * MIB
    for number in (1, 3):
        level.touch(segment(number).id)
    fill(level, segment(6), (0, 1))
    assert level.counts().used_bytes <= 10 * MIB
    assert holds(level, segment(1))
    assert not holds(level, segment(2))
    assert level.counts().evicted_segments == 1


def test_what_is_held_or_pinned_is_never_evicted(tmp_path):
    level = level_in(tmp_path, 4 * MIB)
    fill(level, segment(1))
    level.pin(segment(1).id)
    with level.holding(segment(2), create=True) as held:
        level.fill(held, Run(0, 0, b"x" * MIB, [1]))
        fill(level, segment(3), (0, 1))
        level.pin(segment(3).id)
        with pytest.raises(LevelError, match="nothing may leave"):
            fill(level, segment(4))
        assert not level.evict(segment(2).id)
    assert not level.evict(segment(1).id)
    level.unpin(segment(1).id)
    assert level.evict(segment(1).id)
    assert level.evict(segment(2).id)


def test_a_segment_larger_than_half_of_the_level_is_not_admitted(tmp_path):
    level = level_in(tmp_path, 10 * MIB)
    assert level.admits(segment(1, 5))
    assert not level.admits(segment(1, 6))


def test_when_the_place_itself_is_full_one_segment_goes_a_fill_and_then_the_next_level_is_asked(tmp_path):
    level = level_in(tmp_path, 100 * MIB)
    for number in range(1, 5):
        fill(level, segment(number))
    level._room.free = 0
    level._room_bytes = 0
    with pytest.raises(LevelError, match="no room"):
        fill(level, segment(9))
    assert level.counts().segments == 4  # three of the old ones, and the new one without bytes


def test_a_full_file_system_is_a_level_error_and_not_counted_as_used(tmp_path, monkeypatch):
    level = level_in(tmp_path)
    fill(level, segment(1))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(LevelError, match="ENOSPC"):
        fill(level, segment(2))
    monkeypatch.undo()
    assert level.counts().used_bytes == MIB
    assert not holds(level, segment(2))


def test_a_new_level_finds_what_the_old_one_left(tmp_path):
    level = level_in(tmp_path)
    fill(level, segment(1), (0, 2))
    level.close()
    again = level_in(tmp_path)
    assert again.counts().segments == 1
    assert holds(again, segment(1), 2)
    again.clean_left_over()
    assert 2 * MIB <= again.counts().used_bytes <= 2 * MIB + 8192


def test_what_is_half_made_damaged_or_strange_is_dropped_at_start_and_on_first_use(tmp_path):
    level = level_in(tmp_path)
    for number in range(1, 6):
        fill(level, segment(number))
    names = {number: level._names[segment(number).id] for number in range(1, 6)}
    level.close()
    os.unlink(tmp_path / (names[1] + ".map"))
    os.unlink(tmp_path / (names[2] + ".seg"))
    with open(tmp_path / (names[3] + ".map"), "r+b") as file:
        file.seek(30)
        file.write(b"\xff")
    with open(tmp_path / (names[4] + ".map"), "r+b") as file:
        file.seek(8)
        file.write((7).to_bytes(4, "little"))
    (tmp_path / (names[5] + ".map.tmp")).write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("somebody else's")
    again = level_in(tmp_path)
    again.clean_left_over()
    assert [holds(again, segment(number)) for number in range(1, 6)] == [False, False, False, False, True]
    left = sorted(os.listdir(tmp_path))
    assert left == sorted([names[5] + ".map", names[5] + ".seg", "notes.txt", ASIDE])
    assert sorted(os.listdir(tmp_path / ASIDE)) == [names[4] + ".map", names[4] + ".seg"]


def test_what_clients_map_counts_after_an_earlier_keeper_only_once_it_was_found_right(tmp_path):
    level = level_in(tmp_path, is_mapped=True)
    fill(level, segment(1), (0, 2))
    path = os.path.join(tmp_path, level._names[segment(1).id])
    level.close()
    with open(path + ".seg", "r+b") as file:
        file.seek(2 * MIB + 7)
        file.write(b"?")
    again = level_in(tmp_path, is_mapped=True)
    with again.holding(segment(1), create=False) as file:
        assert file.candidates() == [0, 2]
        assert again.confirm(file, [0, 2]) == 1
        assert file.present().tolist() == [0]


def test_what_this_keeper_has_filled_or_confirmed_is_trusted_when_it_is_opened_again(tmp_path, monkeypatch):
    monkeypatch.setattr("swingby.levels.level.OPEN_FILES_MAX", 1)
    level = level_in(tmp_path, is_mapped=True)
    for number in (1, 2, 3):
        fill(level, segment(number))
    assert all(holds(level, segment(number)) for number in (1, 2, 3))


def test_pairs_of_another_format_go_when_their_room_is_needed(tmp_path):
    level = level_in(tmp_path, 4 * MIB)
    fill(level, segment(1), (0, 1))
    name = level._names[segment(1).id]
    level.close()
    with open(tmp_path / (name + ".map"), "r+b") as file:
        file.seek(8)
        file.write((7).to_bytes(4, "little"))
    again = level_in(tmp_path, 4 * MIB)
    assert not holds(again, segment(1))
    fill(again, segment(2))
    assert len(os.listdir(tmp_path / ASIDE)) == 2
    third = level_in(tmp_path, 4 * MIB)
    assert third.counts().used_bytes >= 2 * MIB
    fill(third, segment(3), (0, 1))
    assert os.listdir(tmp_path / ASIDE) == []


def test_pages_that_no_entry_tells_of_are_not_counted_twice(tmp_path):
    level = level_in(tmp_path)
    fill(level, segment(1), (0,))
    with level.holding(segment(1), create=False) as file:
        os.pwrite(file.descriptor, bytes(MIB), MIB)  # as if killed before the entry
    level.close()
    again = level_in(tmp_path)
    fill(again, segment(1), (1, 2))
    assert 3 * MIB <= again.counts().used_bytes <= 3 * MIB + 8192


def test_of_two_generations_one_stays(tmp_path):
    level = level_in(tmp_path)
    fill(level, segment(1))
    name = level._names[segment(1).id]
    level.close()
    other = name[:-1] + ("0" if name[-1] != "0" else "1")
    for suffix in (".seg", ".map"):
        os.link(tmp_path / (name + suffix), tmp_path / (other + suffix))
    again = level_in(tmp_path)
    again.clean_left_over()
    assert len([one for one in os.listdir(tmp_path) if one.endswith(".seg")]) == 1


def test_a_pair_of_another_size_is_replaced(tmp_path):
    level = level_in(tmp_path)
    fill(level, segment(1, 4))
    level.close()
    with level_in(tmp_path).holding(segment(1, 5), create=True) as file:
        assert file.segment == segment(1, 5)
        assert not file.word(0)


def test_more_files_than_descriptors_are_opened_in_turn(tmp_path, monkeypatch):
    monkeypatch.setattr("swingby.levels.level.OPEN_FILES_MAX", 3)
    level = level_in(tmp_path, 100 * MIB)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(1, 20):
        fill(level, segment(number))
    assert len(os.listdir("/proc/self/fd")) <= before + 2 * 4
    assert all(holds(level, segment(number)) for number in range(1, 20))


def test_a_quarantined_segment_is_gone_while_its_holders_go_on(tmp_path):
    level = level_in(tmp_path)
    fill(level, segment(1))
    with level.holding(segment(1), create=False) as file:
        level.quarantine(file)
        assert not level.has(segment(1).id)
        assert bytes(os.pread(file.descriptor, 1, 0)) == b"\1"
    assert level.counts().bad_chunks == 1
    assert not [one for one in os.listdir(tmp_path) if one.endswith(".seg")]


def test_evictions_are_announced(tmp_path):
    level = level_in(tmp_path)
    told = []
    level.on_evict = lambda: told.append(1)
    fill(level, segment(1))
    level.evict(segment(1).id)
    assert told == [1]


# -- sieve -------------------------------------------------------------------------------------------------------------


class PlainSieve:
    """The algorithm as the paper writes it, with lists."""

    def __init__(self):
        self.queue, self.visited, self.hand = [], {}, None

    def add(self, one):
        if one not in self.visited:
            self.queue.append(one)
            self.visited[one] = False

    def touch(self, one):
        if one in self.visited:
            self.visited[one] = True

    def remove(self, one):
        if one in self.visited:
            if self.hand == one:
                place = self.queue.index(one)
                self.hand = self.queue[place + 1] if place + 1 < len(self.queue) else None
            self.queue.remove(one)
            del self.visited[one]

    def victim(self):
        if not self.queue:
            return None
        place = self.queue.index(self.hand) if self.hand is not None else 0
        while self.visited[self.queue[place]]:
            self.visited[self.queue[place]] = False
            place = (place + 1) % len(self.queue)
        self.hand = self.queue[place]
        return self.hand


@given(st.lists(st.tuples(st.sampled_from("attrv"), st.integers(0, 12)), max_size=200))
def test_sieve_does_what_the_paper_says(steps):
    ours, theirs = Sieve(), PlainSieve()
    for kind, number in steps:
        one = bytes([number])
        if kind == "v":
            victim = ours.next(lambda _: True)
            assert victim == theirs.victim()
            if victim is not None:
                ours.remove(victim)
                theirs.remove(victim)
        else:
            name = {"a": "add", "t": "touch", "r": "remove"}[kind]
            getattr(ours, name)(one)
            getattr(theirs, name)(one)


def test_sieve_keeps_what_may_not_leave():
    sieve = Sieve()
    for number in range(5):
        sieve.add(bytes([number]))
    assert sieve.next(lambda one: one == b"\3") == b"\3"
    assert sieve.next(lambda _: False) is None


def test_sieve_keeps_a_hot_set_through_a_scan():
    sieve, rng, budget = Sieve(), random.Random(0), 100
    held, hits = set(), 0
    for step in range(20_000):
        one = (b"hot%d" % rng.randrange(50)) if rng.random() < 0.5 else b"scan%d" % step
        if one in held:
            hits += 1
            sieve.touch(one)
            continue
        if len(held) == budget:
            victim = sieve.next(lambda _: True)
            sieve.remove(victim)
            held.remove(victim)
        sieve.add(one)
        held.add(one)
    assert hits > 0.9 * 10_000


# -- rooms -------------------------------------------------------------------------------------------------------------


def test_a_disk_keeps_its_floor_free(tmp_path):
    status = os.statvfs(tmp_path)
    free = status.f_bavail * status.f_frsize
    assert rooms.DiskRoom(str(tmp_path), 0.0).free_bytes() == pytest.approx(free, rel=0.05)
    assert rooms.DiskRoom(str(tmp_path), 1.0).free_bytes() <= 0


def test_memory_is_the_least_of_tmpfs_machine_and_cgroups(tmp_path, monkeypatch):
    (tmp_path / "memory").mkdir()
    files = {
        "/proc/meminfo": "MemTotal: 1000 kB\nMemAvailable: 800 kB\n",
        "/proc/self/cgroup": "4:memory:/box/inner\n0::/unified\n",
        "/sys/fs/cgroup/memory/box/memory.limit_in_bytes": "500000",
        "/sys/fs/cgroup/memory/box/memory.usage_in_bytes": "400000",
        "/sys/fs/cgroup/memory/box/memory.stat": "active_file 5\ntotal_active_file 20000\ntotal_inactive_file 30000\n",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes": "700000",
    }
    monkeypatch.setattr(rooms, "_read", lambda path: files.get(path, ""))
    assert rooms.available_memory_bytes() == 500_000 - (400_000 - 50_000)
    assert rooms.usable_memory_bytes() == 500_000
    assert rooms.MemoryRoom(str(tmp_path), 100_000).free_bytes() == 50_000
    files |= {"/sys/fs/cgroup/unified/memory.max": "300000", "/sys/fs/cgroup/unified/memory.current": "290000"}
    assert rooms.available_memory_bytes() == 10_000
