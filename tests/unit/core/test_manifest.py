"""Manifests: packs, shards, keys, building and refreshing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swingby.core.epoch import block_bounds
from swingby.core.manifest import packs as packing
from swingby.core.manifest import reassign as reassigning
from swingby.core.manifest.build import build, refresh
from swingby.core.manifest.keys import Keys, encode
from swingby.core.manifest.packs import Entries, assign
from swingby.core.manifest.root import decode_root, encode_root
from swingby.core.manifest.shard import Shard
from swingby.core.manifest.view import Manifest
from swingby.core.object import Page
from swingby.core.segment import CHUNK_BYTES, PACK_BYTES_MAX, Origin, aligned
from swingby.errors import FormatError

ORIGIN = Origin("base", "")
MIB = 1 << 20
PREFIX = b"data/"


def page(objects):
    keys = sorted(objects)
    sizes = np.array([objects[key][0] for key in keys], np.uint64)
    versions = np.frombuffer(b"".join(objects[key][1] for key in keys), np.uint8).reshape(-1, 16)
    return Page([PREFIX + key for key in keys], sizes, versions)


def pages(objects, size=7):
    keys = sorted(objects)
    for start in range(0, len(keys), size):
        yield page({key: objects[key] for key in keys[start : start + size]})


class Store:
    """Shards by digest, as a sink and as a source."""

    def __init__(self):
        self.files = {}
        self.written = 0

    def sink(self, info, data):
        self.files[info.digest] = data
        self.written += 1

    def view(self, root):
        return Manifest(root, encode_root(root)[0], lambda number: memoryview(self.files[root.shards[number].digest]))


def made(objects, store=None):
    store = store or Store()
    return store.view(build(ORIGIN, PREFIX, pages(objects), store.sink))


def versions(number):
    return number.to_bytes(16, "little")


keys_strategy = st.lists(st.binary(min_size=1, max_size=40), unique=True, min_size=1, max_size=80)
objects_strategy = st.dictionaries(
    st.binary(min_size=1, max_size=20),
    st.tuples(st.one_of(st.integers(0, 5000), st.integers(0, 3 * CHUNK_BYTES)), st.binary(min_size=16, max_size=16)),
    min_size=1,
    max_size=120,
)


def pack_ids(manifest):
    """Which pack or large object each key lies in, by segment id."""
    found = {}
    rows = manifest.rows(np.arange(len(manifest)))
    for index, (pack, *_) in enumerate(rows.tolist()):
        segment = manifest.large(index) if manifest.is_large(pack) else manifest.pack(pack)
        found[manifest.key(index)] = segment.id
    return found


# -- keys --------------------------------------------------------------------------------------------------------------


@given(keys_strategy)
def test_encoded_keys_read_back_by_index_by_block_and_by_bisection(keys):
    keys = sorted(keys)
    offsets, data = encode(keys)
    found = Keys(offsets, memoryview(data), len(keys))
    assert [found[index] for index in range(len(keys))] == list(found) == keys
    assert all(found.find(key) == index for index, key in enumerate(keys))
    for absent in (b"", keys[-1] + b"\xff", keys[0] + b"\0"):
        assert found.find(absent) == (keys.index(absent) if absent in keys else None)


def test_common_prefixes_of_keys_are_stored_once_a_block():
    keys = [b"train/images/class%03d/%06d.jpg" % (number // 100, number) for number in range(1600)]
    _, data = encode(keys)
    assert len(data) < 0.45 * sum(map(len, keys))


# -- building ----------------------------------------------------------------------------------------------------------


@given(objects_strategy)
@settings(deadline=None)
def test_a_manifest_says_what_was_listed(objects):
    manifest = made(objects)
    keys = sorted(objects)
    assert list(manifest.keys()) == keys
    assert len(manifest) == len(keys)
    assert manifest.sizes().tolist() == [objects[key][0] for key in keys]
    assert manifest.data_bytes == sum(size for size, _ in objects.values())
    for index, key in enumerate(keys):
        assert manifest.find(key) == index
        assert (manifest.key(index), manifest.size(index), manifest.version(index)) == (key, *objects[key])


@given(objects_strategy)
@settings(deadline=None)
def test_objects_of_a_pack_do_not_overlap_and_lie_inside(objects):
    manifest = made(objects)
    taken = {}
    for index, (pack, offset, size, slot) in enumerate(manifest.rows(np.arange(len(manifest))).tolist()):
        if manifest.is_large(pack):
            assert manifest.size(index) > CHUNK_BYTES
            continue
        segment = manifest.pack(pack)
        assert size == manifest.size(index) <= CHUNK_BYTES
        assert offset % 64 == 0
        assert offset + size <= segment.size_bytes <= PACK_BYTES_MAX + CHUNK_BYTES
        assert slot < segment.chunk_count
        taken.setdefault(pack, []).append((offset, offset + size, slot))
    for places in taken.values():
        places.sort()
        assert len({slot for *_, slot in places}) == len(places)
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(places))


def test_the_same_listing_makes_the_same_digest_whatever_its_pages():
    objects = {b"%05d" % number: (number * 37 % 9000, versions(number)) for number in range(500)}
    stores = [Store(), Store()]
    roots = [
        build(ORIGIN, PREFIX, pages(objects, size), store.sink) for size, store in zip((7, 100), stores, strict=True)
    ]
    assert encode_root(roots[0])[0] == encode_root(roots[1])[0]
    assert stores[0].files == stores[1].files


def test_identity_goes_into_segment_ids():
    objects = {b"a": (100, versions(1)), b"large": (9 * MIB, versions(2))}
    ids = [
        set(pack_ids(Store.view(store, build(origin, PREFIX, pages(objects), store.sink))).values())
        for origin, store in [
            (Origin("base", ""), Store()),
            (Origin("other", ""), Store()),
            (Origin("base", "tenant"), Store()),
        ]
    ]
    assert not (ids[0] & ids[1])
    assert not (ids[0] & ids[2])
    assert not (ids[1] & ids[2])


def test_keys_out_of_order_or_twice_are_refused():
    for keys in ([b"b", b"a"], [b"a", b"a"]):
        bad = Page([PREFIX + key for key in keys], np.ones(2, np.uint64), np.zeros((2, 16), np.uint8))
        with pytest.raises(FormatError, match="out of order"):
            build(ORIGIN, PREFIX, [bad], Store().sink)
    one, two = page({b"b": (1, versions(1))}), page({b"a": (1, versions(1))})
    with pytest.raises(FormatError, match="out of order"):
        build(ORIGIN, PREFIX, [one, two], Store().sink)


def test_shards_are_bounded_and_cut_where_a_pack_ends(monkeypatch):
    monkeypatch.setattr("swingby.core.manifest.build.SHARD_ENTRIES_MAX", 100)
    objects = {b"%05d" % number: (4 * MIB, versions(number)) for number in range(1000)}
    split = made(objects)
    assert len(split.root.shards) >= 10
    assert all(shard.count <= 100 for shard in split.root.shards)
    monkeypatch.undo()
    assert pack_ids(split) == pack_ids(made(objects))
    indices = np.array([999, 0, 500, 500, 123])
    assert [split.key(int(i)) for i in indices] == [b"%05d" % i for i in indices]
    with pytest.raises(IndexError):
        split.rows(np.array([1000]))


def test_an_object_costs_at_most_40_bytes_beside_its_key():
    objects = {b"%07d" % number: (4096, versions(number)) for number in range(20000)}
    store = Store()
    made(objects, store)
    (shard,) = store.files.values()
    key_bytes = len(encode(sorted(objects))[1])
    assert (len(shard) - key_bytes) / 20000 <= 40


# -- packs, cut by content ---------------------------------------------------------------------------------------------


def big_set(count=3000, size=100_000):
    return {b"%03d/%05d" % (number // 200, number): (size + number % 7, versions(number)) for number in range(count)}


def test_packs_have_the_size_they_should():
    manifest = made(big_set())
    sizes = sorted(manifest.pack(number).size_bytes for number in range(manifest.root.shards[0].packs))
    assert 10 * MIB < sizes[len(sizes) // 2] < 40 * MIB
    assert sizes[-1] <= PACK_BYTES_MAX


def test_a_pack_is_forced_where_no_content_cuts(monkeypatch):
    monkeypatch.setattr(packing, "cut_after", lambda prefix, entries: np.zeros(len(entries.keys), bool))
    objects = {b"%05d" % number: (4 * MIB, versions(number)) for number in range(200)}
    manifest = made(objects)
    sizes = [manifest.pack(number).size_bytes for number in range(manifest.root.shards[0].packs)]
    assert sizes == [PACK_BYTES_MAX] * 3 + [200 * 4 * MIB - 3 * PACK_BYTES_MAX]


@given(st.integers(0, 2999), st.booleans())
@settings(max_examples=25, deadline=None)
def test_an_inserted_or_removed_object_changes_at_most_two_packs(place, is_insertion):
    objects = big_set()
    before = set(pack_ids(made(objects)).values())
    key = sorted(objects)[place]
    if is_insertion:
        objects[key + b"+"] = (77_777, versions(5))
    else:
        del objects[key]
    after = set(pack_ids(made(objects)).values())
    assert len(before - after) <= 2
    assert len(after - before) <= 2


def test_sub_prefixes_and_filters_share_packs():
    objects = big_set()
    whole = set(pack_ids(made(objects)).values())
    inside = {key[4:]: value for key, value in objects.items() if key.startswith(b"007/")}
    store = Store()
    listed = [Page([b"data/007/" + key for key in sorted(inside)], *page(inside)[1:])]
    part = store.view(build(ORIGIN, b"data/007/", listed, store.sink))
    packs = pack_ids(part)
    ids = list(dict.fromkeys(packs[key] for key in sorted(inside)))
    assert len(ids) <= 2 or set(ids[1:-1]) <= whole
    half = {key: value for key, value in objects.items() if key >= b"008"}
    ids = list(dict.fromkeys(pack_ids(made(half))[key] for key in sorted(half)))
    assert len(ids) > 4
    assert set(ids[1:]) <= whole


# -- refreshing --------------------------------------------------------------------------------------------------------


def live_places(manifest):
    """key -> (segment id, slot, offset) of small objects."""
    found = {}
    for index, (pack, offset, _, slot) in enumerate(manifest.rows(np.arange(len(manifest))).tolist()):
        if not manifest.is_large(pack):
            found[manifest.key(index)] = (manifest.pack(pack).id, slot, offset)
    return found


def test_a_refresh_without_a_change_writes_nothing_and_keeps_the_digest():
    objects = big_set(500)
    store = Store()
    manifest = made(objects, store)
    store.written = 0
    result = refresh(manifest, pages(objects), store.sink)
    assert store.written == result.shards_written == result.changed_bytes == 0
    assert encode_root(result.root)[0] == manifest.digest


def test_unchanged_objects_keep_their_place_and_new_ones_come_into_deltas():
    objects = big_set(2000)
    store = Store()
    manifest = made(objects, store)
    before = live_places(manifest)
    changed = sorted(objects)[::500]
    for key in changed:
        objects[key] = (50, versions(99))
    objects[b"zzz"] = (60, versions(1))
    result = refresh(manifest, pages(objects), store.sink)
    after = live_places(store.view(result.root))
    assert not result.moves
    assert all(after[key] == before[key] for key in objects if key in before and key not in changed)
    assert not {after[key][0] for key in [*changed, b"zzz"]} & {place[0] for place in before.values()}
    assert result.changed_bytes == 50 * len(changed) + 60


def test_only_shards_with_a_change_are_written(monkeypatch):
    monkeypatch.setattr("swingby.core.manifest.build.SHARD_ENTRIES_MAX", 100)
    objects = {b"%05d" % number: (MIB, versions(number)) for number in range(1000)}
    store = Store()
    manifest = made(objects, store)
    objects[b"00500"] = (MIB, versions(7))
    result = refresh(manifest, pages(objects), store.sink)
    assert result.shards_written == 1
    assert len(set(result.root.shards) - set(manifest.root.shards)) == 1
    objects = {key: value for key, value in objects.items() if not b"00300" <= key < b"00700"}
    again = refresh(store.view(result.root), pages(objects), store.sink)
    assert list(store.view(again.root).keys()) == sorted(objects)


def test_a_shard_that_grew_too_long_is_split(monkeypatch):
    monkeypatch.setattr("swingby.core.manifest.build.SHARD_ENTRIES_MAX", 100)
    objects = {b"%05d" % number: (MIB, versions(number)) for number in range(0, 900, 10)}
    store = Store()
    manifest = made(objects, store)
    objects |= {b"%05d" % number: (MIB, versions(number)) for number in range(300)}
    result = refresh(manifest, pages(objects), store.sink)
    assert all(shard.count <= 100 for shard in result.root.shards)
    assert list(store.view(result.root).keys()) == sorted(objects)


def test_a_pack_more_than_a_quarter_dead_is_rewritten_and_its_chunks_are_moved():
    objects = big_set(1000)
    store = Store()
    manifest = made(objects, store)
    before = live_places(manifest)
    victim = before[sorted(objects)[400]][0]
    inside = [key for key, place in before.items() if place[0] == victim]
    gone = inside[: len(inside) // 3]
    for key in gone:
        del objects[key]
    result = refresh(manifest, pages(objects), store.sink)
    after = live_places(store.view(result.root))
    assert victim not in {place[0] for place in after.values()}
    moved = {}
    for move in result.moves:
        assert move.source.id == victim
        for slot, offset, new_slot, new_offset, size in move.places.tolist():
            moved[(move.source.id, slot, offset)] = (move.target.id, new_slot, new_offset, size)
    for key in set(inside) - set(gone):
        assert moved[before[key]] == (*after[key], objects[key][0])


@given(
    st.lists(st.tuples(st.sampled_from("acr"), st.integers(0, 400), st.integers(0, 200_000)), max_size=30),
    st.integers(1, 5),
)
@settings(max_examples=40, deadline=None)
def test_any_refresh_lists_the_truth_and_copies_little(changes, rounds):
    objects = big_set(400, 50_000)
    store = Store()
    manifest = made(objects, store)
    changed = copied = 0
    for number in range(rounds):
        for kind, place, size in changes[number::rounds]:
            key = sorted(objects)[place % len(objects)]
            if kind == "a":
                objects[key + b"x%d" % number] = (size, versions(number + 1000))
            elif kind == "c":
                objects[key] = (size, versions(number + 2000))
            elif len(objects) > 1:
                changed += objects.pop(key)[0]
        result = refresh(manifest, pages(objects), store.sink)
        manifest = store.view(result.root)
        changed += result.changed_bytes
        copied += sum(int(move.places[:, 4].sum()) for move in result.moves)
        keys = sorted(objects)
        assert list(manifest.keys()) == keys
        assert manifest.sizes().tolist() == [objects[key][0] for key in keys]
        places = live_places(manifest).values()
        assert len(set(places)) == len(places)
    assert copied <= 5 * changed + 64


@pytest.mark.parametrize("share_of_large", [0.0, 0.02, 1.0])
def test_counts_and_changes_of_packs_are_those_of_the_rows(monkeypatch, share_of_large):
    monkeypatch.setattr("swingby.core.manifest.build.SHARD_ENTRIES_MAX", 1000)
    rng = np.random.default_rng(0)
    objects = {
        b"%05d" % number: (9 * MIB if large else 100_000, versions(number))
        for number, large in enumerate(rng.random(4000) < share_of_large)
    }
    manifest = made(objects)
    packs, is_large = manifest.packs_of_all()
    changes, large = manifest.pack_changes()
    assert np.array_equal(changes, [0, *(1 + np.flatnonzero(packs[1:] != packs[:-1]))])
    assert np.array_equal(large, np.flatnonzero(is_large))
    for ordinal in range(manifest.pack_ordinals):
        assert manifest.live_count(ordinal) == len(manifest.slots_of(ordinal)) == int((packs == ordinal).sum())
    everything = np.arange(len(manifest))
    assert np.array_equal(block_bounds(manifest, None), block_bounds(manifest, everything))


def test_deltas_of_one_size_class_are_merged_when_there_are_eight():
    objects = big_set(300, 50_000)
    store = Store()
    manifest = made(objects, store)
    first = manifest.root.shards[0].packs
    counts = []
    for number in range(30):
        objects[b"new/%03d" % number] = (20_000, versions(number))
        manifest = store.view(refresh(manifest, pages(objects), store.sink).root)
        counts.append(manifest.root.shards[0].packs - first)
    assert max(counts) <= 2 * reassigning.DELTA_CLASS_MAX
    assert list(manifest.keys()) == sorted(objects)


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_root_reads_back_and_tells_damage_and_other_versions():
    manifest = made({b"a": (1, versions(1))})
    digest, data = encode_root(manifest.root)
    assert decode_root(data) == manifest.root
    assert len(digest) == 64
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 4
        if 12 <= place < 16:
            continue  # reserved
        with pytest.raises(FormatError):
            decode_root(bytes(flipped))
    with pytest.raises(FormatError, match="format 3"):
        decode_root(data[:8] + (3).to_bytes(4, "little") + data[12:])
    with pytest.raises(FormatError, match="cut short"):
        decode_root(data[:10])


def test_a_shard_tells_other_versions_and_wrong_lengths():
    store = Store()
    made({b"a": (1, versions(1))}, store)
    (data,) = store.files.values()
    with pytest.raises(FormatError, match="format 9"):
        Shard(memoryview(data[:8] + (9).to_bytes(4, "little") + data[12:]))
    with pytest.raises(FormatError, match="length"):
        Shard(memoryview(data + b"\0" * 64))
    with pytest.raises(FormatError, match="short"):
        Shard(memoryview(data[:50]))
    with pytest.raises(FormatError, match="no manifest shard"):
        Shard(memoryview(b"X" + data[1:]))


def test_aligned_sizes_are_whole_cache_lines():
    assert aligned(np.array([0, 1, 64, 65], np.uint64)).tolist() == [0, 64, 64, 128]


def test_assigning_nothing_is_no_pack():
    empty = Entries([], np.zeros(0, np.uint64), np.zeros((0, 16), np.uint8))
    assert len(assign(ORIGIN, PREFIX, empty).packs) == 0


@pytest.mark.parametrize("count", [1_000, 1 << 40, (1 << 64) - 1])
def test_a_shard_whose_sections_do_not_fit_is_no_shard(count):
    store = Store()
    made({b"a": (1, versions(1))}, store)
    data = bytearray(next(iter(store.files.values())))
    data[16:24] = count.to_bytes(8, "little")
    with pytest.raises(FormatError, match="do not fit"):
        Shard(memoryview(data))
