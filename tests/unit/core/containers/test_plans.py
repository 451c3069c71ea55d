"""Requests for samples: neighbours together, nothing twice, nothing that nobody asked for; manifests that tell where they lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swingby.core.containers.index import ContainerIndex, Found, decode_index, encode_index, index_of
from swingby.core.containers.location import RAW, ZIP_DEFLATED, Coded, Where
from swingby.core.containers.reading import sample_versions
from swingby.core.manifest.build import build, refresh
from swingby.core.manifest.packs import Entries
from swingby.core.manifest.root import Contained, decode_root, encode_root
from swingby.core.manifest.shard import Shard
from swingby.core.manifest.view import Manifest
from swingby.core.object import ObjectInfo, Page
from swingby.core.plan import GAP_BYTES_MAX, Piece, chunk_numbers, memory_bytes, object_fetches, sample_fetches, without
from swingby.core.segment import CHUNK_BYTES, Origin, Segment, object_segment
from swingby.errors import FormatError
from swingby.keeper.jobs import neighbours
from swingby.levels.segment_file import Run

PACK = Segment(b"p" * 16, 1 << 30, 1000, packed=True)
ORIGIN = Origin("base", "")


def wants(gaps):
    """Samples one after another, with gaps between them, in two containers."""
    at, found = 0, []
    for number, (gap, size) in enumerate(gaps):
        at += gap
        key = b"a" if number % 7 else b"b"
        found.append(
            (Where(key, at, size, 1 << 40, bytes(16)), Piece(number, number * 64, at, size, Coded(RAW, 0, size)))
        )
        at += size
    return found


gaps_strategy = st.lists(st.tuples(st.integers(0, 3 * GAP_BYTES_MAX), st.integers(0, 30_000)), max_size=60)


@given(gaps_strategy, st.sampled_from([1, 50_000, 1 << 24]))
def test_every_sample_is_in_one_request_and_little_else(gaps, range_bytes):
    wanted = wants(gaps)
    fetches = sample_fetches(PACK, reversed(wanted), range_bytes=range_bytes)
    assert sorted(chunk for fetch in fetches for chunk in chunk_numbers(fetch)) == [piece.chunk for _, piece in wanted]
    for fetch in fetches:
        assert fetch.size <= max(range_bytes, *(piece.stored_bytes for piece in fetch.pieces))
        stop = fetch.start
        for piece in fetch.pieces:
            assert 0 <= piece.start - stop <= GAP_BYTES_MAX
            stop = piece.start + piece.stored_bytes
        assert stop == fetch.start + fetch.size


def test_neighbours_in_a_container_are_one_request_and_others_are_not():
    near, far = [(512, 16_384)] * 5, [(GAP_BYTES_MAX + 1, 16_384)]
    wanted = [(where._replace(key=b"a"), piece) for where, piece in wants(near + far + near)]
    assert [len(fetch.pieces) for fetch in sample_fetches(PACK, wanted, range_bytes=1 << 24)] == [5, 6]
    other = [(where._replace(key=b"ab"[number % 2 :][:1]), piece) for number, (where, piece) in enumerate(wanted)]
    assert len(sample_fetches(PACK, other, range_bytes=1 << 24)) > 2


def test_what_is_present_meanwhile_is_left_out():
    (fetch,) = sample_fetches(PACK, [(w._replace(key=b"a"), p) for w, p in wants([(0, 9000)] * 6)], range_bytes=1 << 24)
    assert without(fetch, [], range_bytes=fetch.size) == [fetch]
    left = without(fetch, [0, 2, 3], range_bytes=fetch.size)
    assert [(one.start, one.size, chunk_numbers(one)) for one in left] == [(9000, 9000, [1]), (36_000, 18_000, [4, 5])]
    assert without(fetch, range(6), range_bytes=fetch.size) == []


def test_chunks_of_a_large_compressed_sample_come_by_one_request():
    segment = object_segment(ORIGIN, b"key", 3 * CHUNK_BYTES + 1, bytes(16))
    where = Where(b"z", 100, 5000, 1 << 20, bytes(16), ZIP_DEFLATED, 7)
    (fetch,) = object_fetches(segment, where, [1, 3], range_bytes=CHUNK_BYTES)
    assert (fetch.start, fetch.size, chunk_numbers(fetch)) == (100, 5000, [1, 3])
    assert memory_bytes(fetch) == 5000 + segment.size_bytes


def test_a_large_sample_is_read_by_ranges_inside_its_container():
    segment = object_segment(ORIGIN, b"key", 3 * CHUNK_BYTES, bytes(16))
    where = Where(b"t", 1000, segment.size_bytes, 1 << 30, bytes(16))
    fetches = object_fetches(segment, where, [0, 2], range_bytes=1 << 24)
    assert [(one.start, one.size, one.object_size) for one in fetches] == [
        (1000, CHUNK_BYTES, 1 << 30),
        (1000 + 2 * CHUNK_BYTES, CHUNK_BYTES, 1 << 30),
    ]


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 200)), max_size=400, unique_by=lambda one: one[0]))
def test_neighbours_to_be_stored_lie_where_the_pack_has_them(chunks):
    sizes = dict(chunks)
    offsets = np.cumsum([0, *[-(-sizes.get(number, 70) // 64) * 64 for number in range(501)]]).tolist()
    runs = [Run(number, offsets[number], bytes(size), [1]) for number, size in chunks]
    groups = neighbours(runs)
    assert sorted(run.chunk for group in groups for run in group) == sorted(sizes)
    for group in groups:
        assert [run.chunk for run in group] == list(range(group[0].chunk, group[0].chunk + len(group)))
        assert len(group) <= 256


# -- manifests ---------------------------------------------------------------------------------------------------------


def containers(versions):
    keys = sorted(versions)
    tokens = np.frombuffer(b"".join(versions[key] for key in keys), np.uint8).reshape(-1, 16)
    return Entries(keys, np.full(len(keys), 1 << 20, np.uint64), tokens)


def page(table, number, samples=40):
    key = table.keys[number]
    index = index_of([Found(b"%03d" % n, 100 + n, 512 * n, 100 + n) for n in range(samples)], {})
    index.locations["container"] = number
    info = ObjectInfo(int(table.sizes[number]), table.versions[number].tobytes())
    return Page(
        [b"p/" + key + b"/" + name for name in index.names],
        index.sizes,
        sample_versions("tar", info, index),
        index.locations,
    )


class Files:
    def __init__(self):
        self.files = {}

    def sink(self, info, data):
        self.files[info.digest] = data

    def view(self, root):
        return Manifest(root, encode_root(root)[0], lambda number: memoryview(self.files[root.shards[number].digest]))


def test_a_manifest_of_samples_tells_where_they_lie_and_reads_back():
    files, table = Files(), containers({b"a.tar": b"1" * 16, b"sub/b.tar": b"2" * 16})
    root = build(ORIGIN, b"p/", [page(table, 0), page(table, 1)], files.sink, table)
    made = files.view(
        root.__class__(*[getattr(root, n) for n in root.__struct_fields__[:4]], Contained("tar", "s", {}, []))
    )
    assert decode_root(encode_root(made.root)[1]) == made.root
    assert (made.is_contained, made.root.layout, len(made)) == (True, "tar", 80)
    for index in (0, 39, 40, 79):
        number, place = divmod(index, 40)
        key = b"p/" + table.keys[number]
        assert made.where(index) == Where(key, 512 * place, 100 + place, 1 << 20, table.versions[number].tobytes())
    assert made.find(b"sub/b.tar/007") == 47


def test_a_refresh_keeps_the_packs_of_containers_that_stayed():
    files, table = Files(), containers({b"%02d.tar" % n: b"%016d" % n for n in range(10)})
    old = build(ORIGIN, b"p/", [page(table, n) for n in range(10)], files.sink, table)
    changed = containers({b"%02d.tar" % n: b"%016d" % (n if n != 3 else 99) for n in range(10)})
    contained = Contained("tar", "s", {}, [])
    before = files.view(old.__class__(*[getattr(old, n) for n in old.__struct_fields__[:4]], contained))
    result = refresh(before, [page(changed, n) for n in range(10)], files.sink, changed)
    assert result.changed_bytes == int(page(changed, 3).sizes.sum())
    again = refresh(before, [page(table, n) for n in range(10)], files.sink, table)
    assert (again.shards_written, again.root.shards) == (0, before.root.shards)


def test_a_shard_of_samples_tells_wrong_lengths():
    files, table = Files(), containers({b"a.tar": b"1" * 16})
    build(ORIGIN, b"p/", [page(table, 0)], files.sink, table)
    (data,) = files.files.values()
    assert Shard(memoryview(data)).locations is not None
    for bad in (data + bytes(64), data[:-64], data[:88] + (1 << 40).to_bytes(8, "little") + data[96:]):
        with pytest.raises(FormatError):
            Shard(memoryview(bad))


def test_versions_of_samples_follow_their_container():
    index = index_of([Found(b"a", 1, 512, 1), Found(b"b", 1, 2048, 1, ZIP_DEFLATED)], {})
    tokens = sample_versions("tar", ObjectInfo(1, bytes(16)), index)
    assert len({token.tobytes() for token in tokens}) == 2
    for layout, info in (
        ("zip", ObjectInfo(1, bytes(16))),
        ("tar", ObjectInfo(2, bytes(16))),
        ("tar", ObjectInfo(1, b"1" * 16)),
    ):
        assert not (sample_versions(layout, info, index)[0] == tokens[0]).all()


def test_an_index_reads_back_and_tells_damage():
    index = index_of([Found(b"%d" % n, n, n * 512, n, n % 3, n) for n in range(100)], {"link": 3})
    data = encode_index(index)
    again = decode_index(data)
    assert isinstance(again, ContainerIndex)
    assert (again.names, again.left_out) == (index.names, index.left_out)
    assert np.array_equal(again.sizes, index.sizes)
    assert np.array_equal(again.locations, index.locations)
    assert decode_index(encode_index(index_of([], {}))).names == []
    for place in (0, 9, 17, 30, len(data) - 1):
        flipped = bytearray(data)
        flipped[place] ^= 4
        with pytest.raises(FormatError):
            decode_index(bytes(flipped))
    with pytest.raises(FormatError):
        decode_index(data[:10])
