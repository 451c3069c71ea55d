"""Pairs of files: what makes them valid, what is dropped, what another boot means."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest

from swingby.core.checksum import word_of
from swingby.core.segment import CHUNK_BYTES, Segment
from swingby.errors import CorruptDataError, FormatError, LevelError
from swingby.levels import map_file
from swingby.levels.block_reader import BlockReader
from swingby.levels.map_file import UnknownFormatError
from swingby.levels.mapping import map_read_only
from swingby.levels.segment_file import MAP_SUFFIX, OLD_MAP_SUFFIX, SEGMENT_SUFFIX, Run, SegmentFile

BOOT, OTHER_BOOT = b"1" * 16, b"2" * 16
PACK = Segment(b"p" * 16, 1 << 20, 10, packed=True)
LARGE = Segment(b"l" * 16, 2 * CHUNK_BYTES + 100, 3, packed=False)
READER = BlockReader(direct=False)


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path)


def fill(file, chunk, offset, data):
    file.write(Run(chunk, offset, data, [word_of(data)]))


def test_chunks_are_absent_until_written_and_then_read_right(folder):
    file = SegmentFile.create(folder, PACK, BOOT)
    assert file.absent(np.arange(10)).tolist() == list(range(10))
    fill(file, 3, 640, b"hello")
    fill(file, 9, 64, b"")
    assert file.absent(np.arange(10)).tolist() == [0, 1, 2, 4, 5, 6, 7, 8]
    assert file.present().tolist() == [3, 9]
    assert bytes(file.read(3, READER)) == b"hello"
    assert file.present_count == 2
    assert not file.is_complete


@pytest.mark.parametrize("short", [False, True])
def test_neighbours_are_written_together_and_read_one_by_one(folder, monkeypatch, short):
    """A write that is interrupted goes on."""
    if short:
        whole = os.pwritev
        monkeypatch.setattr(os, "pwritev", lambda descriptor, parts, at: whole(descriptor, parts[:3], at))
    file = SegmentFile.create(folder, PACK, BOOT)
    parts = [random.Random(size).randbytes(size) for size in (100, 0, 64, 5000)]
    offsets = [640, 768, 768, 832]
    file.write(
        *[Run(2 + n, at, data, [word_of(data)]) for n, (at, data) in enumerate(zip(offsets, parts, strict=True))]
    )
    assert file.present().tolist() == [2, 3, 4, 5]
    assert [bytes(file.read(2 + number, READER)) for number in range(4)] == parts


def test_a_pair_is_opened_again_as_it_was(folder):
    file = SegmentFile.create(folder, LARGE, BOOT)
    data = random.Random(0).randbytes(CHUNK_BYTES + 100)
    file.write(Run(1, CHUNK_BYTES, data, [word_of(data[:CHUNK_BYTES]), word_of(data[CHUNK_BYTES:])]))
    file.close()
    again = SegmentFile.open(file.path, BOOT)
    assert again.segment == LARGE
    assert again.generation == file.generation
    assert again.present().tolist() == [1, 2]
    assert bytes(again.read(1, READER)) == data[:CHUNK_BYTES]
    assert bytes(again.read(2, READER)) == data[CHUNK_BYTES:]
    assert again.taken_bytes() >= len(data)


def test_a_reader_sees_words_and_bytes_in_the_mapped_files(folder):
    file = SegmentFile.create(folder, PACK, BOOT)
    words = map_read_only(file.map_descriptor, map_file.map_bytes(10))[map_file.ENTRIES_OFFSET :].cast("Q")
    view = map_read_only(file.descriptor, PACK.size_bytes)
    assert words[2 * 4] == 0
    fill(file, 4, 4096, b"mapped")
    assert words[2 * 4] == word_of(b"mapped")
    assert bytes(view[4096:4102]) == b"mapped"
    file.retire()
    file.close()
    assert bytes(view[4096:4102]) == b"mapped"
    assert not os.listdir(folder)


def test_retiring_marks_the_map_for_those_who_have_it(folder):
    file = SegmentFile.create(folder, PACK, BOOT)
    mapped = map_read_only(file.map_descriptor, map_file.map_bytes(10))
    assert not map_file.is_dead(mapped)
    file.retire()
    assert map_file.is_dead(mapped)


def test_a_damaged_byte_in_a_segment_is_found_by_reading(folder):
    file = SegmentFile.create(folder, PACK, BOOT)
    fill(file, 0, 128, b"x" * 1000)
    os.pwrite(file.descriptor, b"y", 600)
    with pytest.raises(CorruptDataError):
        file.read(0, READER)


@pytest.mark.parametrize("place", range(0, 88, 5))
def test_a_damaged_map_header_is_never_believed(folder, place):
    file = SegmentFile.create(folder, PACK, BOOT)
    byte = os.pread(file.map_descriptor, 1, place)[0]
    os.pwrite(file.map_descriptor, bytes([byte ^ 16]), place)
    file.close()
    with pytest.raises(FormatError):
        SegmentFile.open(file.path, BOOT)


def test_maps_of_another_version_are_told_apart_from_damage(folder):
    file = SegmentFile.create(folder, PACK, BOOT)
    os.pwrite(file.map_descriptor, (9).to_bytes(4, "little"), 8)
    file.close()
    with pytest.raises(UnknownFormatError, match="format 9"):
        SegmentFile.open(file.path, BOOT)


@pytest.mark.parametrize("suffix", [SEGMENT_SUFFIX, MAP_SUFFIX])
def test_half_a_pair_is_no_pair(folder, suffix):
    file = SegmentFile.create(folder, PACK, BOOT)
    file.close()
    os.unlink(file.path + suffix)
    with pytest.raises(FormatError):
        SegmentFile.open(file.path, BOOT)


def test_a_truncated_segment_is_no_pair(folder):
    file = SegmentFile.create(folder, PACK, BOOT)
    os.ftruncate(file.descriptor, 100)
    file.close()
    with pytest.raises(FormatError, match="shorter"):
        SegmentFile.open(file.path, BOOT)


def test_a_pair_under_another_name_is_no_pair(folder):
    file = SegmentFile.create(folder, PACK, BOOT)
    file.close()
    other = os.path.join(folder, "ab" * 16 + ".0000000000000001")
    for suffix in (SEGMENT_SUFFIX, MAP_SUFFIX):
        os.rename(file.path + suffix, other + suffix)
    with pytest.raises(FormatError, match="another segment"):
        SegmentFile.open(other, BOOT)


def test_after_another_boot_a_chunk_counts_once_it_was_found_right(folder):
    file = SegmentFile.create(folder, PACK, BOOT)
    fill(file, 1, 64, b"good")
    fill(file, 2, 4096, b"torn")
    os.pwrite(file.descriptor, b"XXXX", 4096)
    file.close()
    for _ in range(2):  # the second opening goes on where the first was
        again = SegmentFile.open(file.path, OTHER_BOOT)
        assert again.has_candidates
        assert again.may_have(1)
        assert os.path.exists(file.path + OLD_MAP_SUFFIX)
        again.close()
    again = SegmentFile.open(file.path, OTHER_BOOT)
    assert again.absent(np.arange(3)).tolist() == [0, 1, 2]
    again.confirm([1, 2], READER)
    assert again.absent(np.arange(3)).tolist() == [0, 2]
    assert bytes(again.read(1, READER)) == b"good"
    again.close()
    assert SegmentFile.open(file.path, OTHER_BOOT).word(1) == word_of(b"good")


def test_what_is_not_trusted_counts_once_it_was_found_right_and_stays_known_until_then(folder):
    file = SegmentFile.create(folder, PACK, BOOT)
    for chunk in (1, 2, 3):
        fill(file, chunk, 4096 * chunk, b"good%d" % chunk)
    seen = map_read_only(file.map_descriptor, map_file.map_bytes(10))[map_file.ENTRIES_OFFSET :].cast("Q")
    os.pwrite(file.descriptor, b"X", 2 * 4096)
    file.close()
    again = SegmentFile.open(file.path, BOOT, is_trusted=False)
    assert not any(seen)
    assert again.confirm([1], READER) == 0
    again.close()
    third = SegmentFile.open(file.path, BOOT, is_trusted=False)  # of what the second did not look at, nothing is lost
    assert third.candidates() == [1, 2, 3]
    assert third.confirm([1], READER, ahead_bytes=1 << 20) == 1
    assert third.present().tolist() == [1, 3]
    assert [chunk for chunk in range(10) if seen[2 * chunk]] == [1, 3]
    assert not third.has_candidates
    assert not os.path.exists(file.path + OLD_MAP_SUFFIX)


def test_a_crash_between_keeping_the_entries_and_taking_them_back_loses_none(folder):
    file = SegmentFile.create(folder, PACK, BOOT)
    fill(file, 1, 64, b"good")
    file.close()
    with open(file.path + MAP_SUFFIX, "rb") as source, open(file.path + OLD_MAP_SUFFIX, "wb") as target:
        target.write(source.read())
    again = SegmentFile.open(file.path, OTHER_BOOT)
    again.confirm([1], READER)
    assert bytes(again.read(1, READER)) == b"good"


def test_a_map_that_does_not_say_what_was_entered_is_found(folder):
    file = SegmentFile.create(folder, PACK, BOOT)
    fill(file, 1, 64, b"good")
    assert file.is_map_right()
    for place in (20, map_file.ENTRIES_OFFSET, map_file.ENTRIES_OFFSET + 5 * map_file.ENTRY_BYTES):
        os.pwrite(file.map_descriptor, b"\1", place)
        assert not file.is_map_right()
        os.pwrite(file.map_descriptor, map_file.encode_header(file._header) + file.entries.tobytes(), 0)


def test_a_directory_that_is_gone_is_a_level_error(folder):
    with pytest.raises(LevelError, match="ENOENT"):
        SegmentFile.create(os.path.join(folder, "absent"), PACK, BOOT)


@pytest.mark.parametrize("direct", [False, True])
def test_ranges_are_read_at_any_offset(folder, direct):
    data = random.Random(1).randbytes(100_000)
    path = os.path.join(folder, "x")
    with open(path, "wb") as file:
        file.write(data)
    reader = BlockReader(direct=direct)
    for offset, size in [(0, 1), (4095, 2), (5, 99_995), (4096, 4096), (99_999, 1), (70_000, 0)]:
        assert bytes(reader.read(path, offset, size)) == data[offset : offset + size]
    with pytest.raises(OSError, match="ends early"):
        reader.read(path, 99_000, 5000)


def test_a_map_keeps_no_descriptor(folder):
    path = os.path.join(folder, "x")
    with open(path, "wb") as file:
        file.write(b"z" * 10_000)
    before = len(os.listdir("/proc/self/fd"))
    views = []
    for size in (10_000, 1, 0):
        descriptor = os.open(path, os.O_RDONLY)
        views.append(map_read_only(descriptor, size))
        os.close(descriptor)
    assert len(os.listdir("/proc/self/fd")) == before
    assert [len(view) for view in views] == [10_000, 1, 0]
    assert views[0].readonly
    part = views[0][5:10]
    del views
    assert bytes(part) == b"zzzzz"
    with pytest.raises(OSError, match="Bad file descriptor"):
        map_read_only(-1, 10)


def test_bytes_are_written_before_the_entry_that_tells_of_them(folder, monkeypatch):
    file = SegmentFile.create(folder, PACK, BOOT)
    order, write = [], os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, *rest: (order.append(descriptor), write(descriptor, *rest))[1])
    fill(file, 1, 64, b"good")
    assert order == [file.descriptor, file.map_descriptor]
