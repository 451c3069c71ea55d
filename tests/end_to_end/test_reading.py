"""Reading datasets and objects, with an inline keeper over a base in memory or files."""

from __future__ import annotations

import os
import pickle
import random
import threading
import time

import numpy as np
import pytest

import swingby
from swingby.errors import (
    BaseUnavailableError,
    ClosedError,
    CorruptDataError,
    EmptyDatasetError,
    FormatError,
    ManifestNotFoundError,
    ObjectChangedError,
    ObjectNotFoundError,
    UrlError,
)
from swingby.testing.faulty_base import Faults, FaultyBase
from swingby.testing.harness import inline
from swingby.testing.memory_base import MemoryBase

MIB = 1 << 20


def objects_of(seed=0, small=200, large=2):
    rng = random.Random(seed)
    found = {
        b"data/%s/%04d.bin" % (rng.choice([b"a", b"b", b"b.c"]), n): rng.randbytes(rng.randint(0, 20000))
        for n in range(small)
    }
    found |= {b"data/large/%d.bin" % n: rng.randbytes(5 * MIB + n) for n in range(large)}
    return found


@pytest.fixture
def objects():
    return objects_of()


@pytest.fixture
def base(objects):
    return MemoryBase(objects)


def relative(objects):
    return {key.decode().removeprefix("data/"): data for key, data in objects.items()}


def test_every_object_is_read_right_by_index_and_in_batches(home, base, objects):
    with inline(home, base=base) as found, swingby.open("memory://x/data", settings=found.settings) as dataset:
        expected = relative(objects)
        assert list(dataset.keys) == sorted(expected)
        assert dataset.sizes.tolist() == [len(expected[key]) for key in dataset.keys]
        for index in (0, 7, -1, len(dataset) - 3):
            sample = dataset[index]
            assert bytes(sample.data) == expected[sample.key]
            assert sample.data.readonly
        order = np.random.default_rng(0).permutation(len(dataset))
        for start in range(0, len(order), 50):
            batch = dataset.batch(order[start : start + 50])
            assert [bytes(view) for view in batch.views] == [expected[key] for key in batch.keys]
            assert batch.sizes.tolist() == [len(expected[key]) for key in batch.keys]


def test_the_second_epoch_asks_the_base_for_nothing(home, base, objects):
    with inline(home, base=base) as found, swingby.open("memory://x/data", settings=found.settings) as dataset:
        for _ in range(2):
            asked = len(base.reads)
            for batch in swingby.Loader(dataset, batch_size=32, shuffle=True):
                batch.packed()
        assert len(base.reads) == asked
        nonempty = sum(1 for data in objects.values() if data)
        assert nonempty <= asked <= nonempty + 2  # large objects may take two ranges


def test_one_cold_small_object_is_one_read_of_its_bytes(home, base, objects):
    with inline(home, base=base) as found, swingby.open("memory://x/data", settings=found.settings) as dataset:
        index = next(i for i, size in enumerate(dataset.sizes) if 0 < size < 20000)
        dataset[index]
        dataset[index]
        assert base.reads == [(b"data/" + dataset.keys[index].encode(), 0, None)]


def test_repeated_indices_in_one_batch_are_served_and_fetched_once(home, base):
    with inline(home, base=base) as found, swingby.open("memory://x/data", settings=found.settings) as dataset:
        index = next(i for i, size in enumerate(dataset.sizes) if 0 < size < 20000)
        batch = dataset.batch([index, index, 0, index])
        assert batch.views[0] == batch.views[1] == batch.views[3]
        assert len([read for read in base.reads if read[0].endswith(dataset.keys[index].encode())]) == 1


def test_packed_gives_bytes_and_offsets_fresh_and_into_a_buffer(home, base, objects):
    expected = relative(objects)
    with inline(home, base=base) as found, swingby.open("memory://x/data", settings=found.settings) as dataset:
        for indices in (range(20), range(len(dataset) - 20, len(dataset)), [3], []):
            batch = dataset.batch(list(indices))
            wanted = b"".join(expected[dataset.keys[i]] for i in indices)
            data, offsets = batch.packed()
            assert data.tobytes() == wanted
            assert offsets.dtype == np.int64
            assert [offsets[k + 1] - offsets[k] for k in range(len(batch))] == [
                len(expected[dataset.keys[i]]) for i in indices
            ]
            out = np.zeros(len(wanted) + 10, np.uint8)
            into, _ = batch.packed(out=out)
            assert into.tobytes() == wanted
            assert np.shares_memory(into, out) or not len(into)
        with pytest.raises(ValueError, match="holds 3 bytes"):
            dataset.batch([0, 1, 2, 3, 4]).packed(out=np.zeros(3, np.uint8))
        with pytest.raises(ValueError, match="uint8"):
            dataset.batch([0]).packed(out=np.zeros(1 << 20, np.int32))


def test_recycled_buffers_are_not_overwritten_while_somebody_holds_them(home):
    base = MemoryBase({b"data/%02d" % n: bytes([n]) * (1 << 20) for n in range(8)})
    with inline(home, base=base) as found, swingby.open("memory://x/data", settings=found.settings) as dataset:
        held = [dataset.batch([n, n + 1]).packed()[0] for n in range(7)]
        views = [array[10:20] for array in held[:3]]
        del held[0]
        dataset.batch([7, 7]).packed()
        assert [view[0] for view in views] == [0, 1, 2]
        assert [array[0] for array in held] == list(range(1, 7))


def test_views_outlive_eviction_and_close(home, base, objects):
    expected = relative(objects)
    with inline(home, base=base) as found:
        dataset = swingby.open("memory://x/data", settings=found.settings)
        sample = dataset[3]
        for level in found.keeper.engine.levels:
            for identity in level.identities():
                while not level.evict(identity):
                    time.sleep(0.01)  # the janitor holds it for a moment
        dataset.close()
        assert bytes(sample.data) == expected[sample.key]
        with pytest.raises(ClosedError):
            dataset[3]
    assert bytes(sample.data) == expected[sample.key]


def test_what_was_evicted_is_fetched_again_and_right(home, base, objects):
    expected = relative(objects)
    with inline(home, base=base) as found, swingby.open("memory://x/data", settings=found.settings) as dataset:
        for _ in range(3):
            for start in range(0, len(dataset), 16):
                batch = dataset.batch(np.arange(start, min(len(dataset), start + 16)))
                assert [bytes(view) for view in batch.views] == [expected[key] for key in batch.keys]
            for level in found.keeper.engine.levels:
                for identity in level.identities():
                    level.evict(identity)


def test_filters_select_and_keep_the_index_space_dense(home, base, objects):
    with inline(home, base=base) as found:
        dataset = swingby.open("memory://x/data", include=["a/*", "b/*"], exclude="*7.bin", settings=found.settings)
        expected = sorted(key for key in relative(objects) if key[:2] in {"a/", "b/"} and not key.endswith("7.bin"))
        assert list(dataset.keys) == expected
        assert dataset.keys.index(expected[5]) == 5
        assert expected[5] in dataset.keys
        assert "large/0.bin" not in dataset.keys
        assert bytes(dataset[5].data) == relative(objects)[expected[5]]
        whole = swingby.open("memory://x/data", settings=found.settings)
        assert whole.manifest == dataset.manifest
        assert whole.digest != dataset.digest
        with pytest.raises(EmptyDatasetError):
            swingby.open("memory://x/data", include="nothing*", settings=found.settings)


def test_sub_prefixes_share_what_is_cached(home, base):
    with inline(home, base=base) as found:
        whole = swingby.open("memory://x/data", settings=found.settings)
        whole.batch(range(len(whole)))
        asked = len(base.reads)
        part = swingby.open("memory://x/data/large", settings=found.settings)
        part.batch(range(len(part)))
        assert len(base.reads) == asked


def test_a_changed_object_is_an_error_until_the_dataset_is_opened_again(home, base):
    with inline(home, base=base) as found:
        dataset = swingby.open("memory://x/data", settings=found.settings)
        index = next(i for i, size in enumerate(dataset.sizes) if size)
        key = dataset.keys[index]
        base.write(b"data/" + key.encode(), b"new bytes")
        with pytest.raises(ObjectChangedError) as error:
            dataset[index]
        assert error.value.key == "data/" + key
        assert bytes(dataset[index + 1].data)  # the others are readable
        again = swingby.open("memory://x/data", refresh="always", settings=found.settings)
        assert bytes(again[index].data) == b"new bytes"
        assert again.manifest != dataset.manifest


def test_a_snapshot_stays_readable_from_the_cache_after_the_base_changed(home, base, objects):
    with inline(home, base=base) as found:
        dataset = swingby.open("memory://x/data", settings=found.settings)
        dataset.batch(range(len(dataset)))
        key = dataset.keys[3]
        base.write(b"data/" + key.encode(), b"new bytes")
        assert bytes(dataset[3].data) == relative(objects)[key]
        old = swingby.open("memory://x/data", manifest=dataset.manifest, settings=found.settings)
        assert bytes(old[3].data) == relative(objects)[key]


def test_an_object_that_is_gone_is_not_found(home, base):
    with inline(home, base=base) as found:
        dataset = swingby.open("memory://x/data", settings=found.settings)
        index = next(i for i, size in enumerate(dataset.sizes) if size)
        base.delete(b"data/" + dataset.keys[index].encode())
        with pytest.raises(ObjectNotFoundError):
            dataset[index]


def test_refresh_modes(home, base):
    with inline(home, base=base, settings={"listing.reuse_cost_ratio": 1e9}) as found:
        with pytest.raises(ManifestNotFoundError):
            swingby.open("memory://x/data", refresh="never", settings=found.settings)
        first = swingby.open("memory://x/data", settings=found.settings)
        base.write(b"data/zz", b"new")
        assert swingby.open("memory://x/data", settings=found.settings).manifest == first.manifest
        assert swingby.open("memory://x/data", refresh="never", settings=found.settings).manifest == first.manifest
        assert len(swingby.open("memory://x/data", refresh="always", settings=found.settings)) == len(first) + 1
        with pytest.raises(ValueError, match="auto, always, never"):
            swingby.open("memory://x/data", refresh="sometimes", settings=found.settings)
        with pytest.raises(ManifestNotFoundError):
            swingby.open("memory://x/data", manifest="ab" * 32, settings=found.settings)
        with pytest.raises(ManifestNotFoundError):
            swingby.open("memory://x/other", manifest=first.manifest, settings=found.settings)


def test_a_small_listing_is_always_fresh(home, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a").write_bytes(b"1")
    with inline(home) as found:
        assert len(swingby.open(folder, settings=found.settings)) == 1
        (folder / "b").write_bytes(b"2")
        threading.Event().wait(0.3)
        assert len(swingby.open(folder, settings=found.settings)) == 2


def test_unchanged_warm_bytes_are_hits_after_a_refresh(home):
    objects = objects_of(small=2000, large=1)
    base = MemoryBase(objects)
    with inline(home, base=base) as found:
        dataset = swingby.open("memory://x/data", settings=found.settings)
        dataset.batch(range(len(dataset)))
        changed = [b"data/" + key.encode() for key in list(dataset.keys)[::500][:4]]
        for key in changed:
            base.write(key, b"changed " * 100)
        again = swingby.open("memory://x/data", refresh="always", settings=found.settings)
        asked = len(base.reads)
        again.batch(range(len(again)))
        assert sorted({read[0] for read in base.reads[asked:]}) == sorted(changed)


def test_a_dataset_can_be_pickled(home, base, objects):
    with inline(home, base=base) as found:
        dataset = swingby.open("memory://x/data", include="a/*", settings=found.settings)
        copy = pickle.loads(pickle.dumps(dataset))
        assert list(copy.keys) == list(dataset.keys)
        assert copy.manifest == dataset.manifest
        assert bytes(copy[2].data) == bytes(dataset[2].data)


def test_threads_share_a_dataset(home, base, objects):
    expected = relative(objects)
    wrong = []
    with inline(home, base=base) as found, swingby.open("memory://x/data", settings=found.settings) as dataset:

        def read(seed):
            rng = np.random.default_rng(seed)
            for _ in range(30):
                batch = dataset.batch(rng.integers(0, len(dataset), 20))
                wrong.extend(
                    key for key, view in zip(batch.keys, batch.views, strict=True) if bytes(view) != expected[key]
                )

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_indices_out_of_range_are_index_errors(home, base):
    with inline(home, base=base) as found, swingby.open("memory://x/data", settings=found.settings) as dataset:
        for index in (len(dataset), -len(dataset) - 1):
            with pytest.raises(IndexError):
                dataset[index]
        with pytest.raises(IndexError):
            dataset.batch([0, len(dataset)])


# -- single objects ----------------------------------------------------------------------------------------------------


def test_read_gives_ranges_of_any_object(home, base, objects):
    key, data = b"data/large/0.bin", objects[b"data/large/0.bin"]
    with inline(home, base=base) as found:

        def read(*arguments):
            return swingby.read("memory://x/" + key.decode(), *arguments, settings=found.settings)

        assert read() == data
        assert read(5, 10) == data[5:10]
        assert read(4 * MIB - 3, 4 * MIB + 3) == data[4 * MIB - 3 : 4 * MIB + 3]
        assert read(len(data) - 2) == data[-2:]
        assert read(len(data) + 5) == b""
        assert read(3, 3) == b""
        buffer = bytearray(100)
        assert swingby.read_into("memory://x/" + key.decode(), buffer, 7, settings=found.settings) == 100
        assert bytes(buffer) == data[7:107]
        assert swingby.read_into("memory://x/" + key.decode(), buffer, len(data) - 4, settings=found.settings) == 4
        for wrong in ((-1, 5), (5, 4)):
            with pytest.raises(ValueError, match="start"):
                read(*wrong)
        with pytest.raises(ValueError, match="writable"):
            swingby.read_into("memory://x/a", b"read-only", settings=found.settings)


def test_read_sees_a_change_at_once_and_within_max_age_not(home, base):
    base.write(b"loose", b"one")
    with inline(home, base=base) as found:
        assert swingby.read("memory://x/loose", settings=found.settings) == b"one"
        base.write(b"loose", b"two!")
        assert swingby.read("memory://x/loose", max_age_seconds=60, settings=found.settings) == b"one"
        assert swingby.read("memory://x/loose", settings=found.settings) == b"two!"
        base.delete(b"loose")
        with pytest.raises(ObjectNotFoundError):
            swingby.read("memory://x/loose", settings=found.settings)


def test_a_cold_read_of_a_listed_object_is_one_request(home, base, objects):
    with inline(home, base=base) as found:
        dataset = swingby.open("memory://x/data", settings=found.settings)
        index = next(i for i, size in enumerate(dataset.sizes) if 0 < size < 20000)
        key = b"data/" + dataset.keys[index].encode()
        before = found.facts()["bases"]["memory:"]["requests"]
        assert swingby.read(f"memory://x/{key.decode()}", settings=found.settings) == objects[key]
        assert found.facts()["bases"]["memory:"]["requests"] == before + 1
        assert bytes(dataset[index].data) == objects[key]  # it lies in the dataset's pack now
        assert found.facts()["bases"]["memory:"]["requests"] == before + 1


def test_a_listed_object_that_changed_is_read_as_it_is_now(home, base):
    with inline(home, base=base) as found:
        dataset = swingby.open("memory://x/data", settings=found.settings)
        key = dataset.keys[5]
        base.write(b"data/" + key.encode(), b"the newest")
        assert swingby.read(f"memory://x/data/{key}", settings=found.settings) == b"the newest"


def test_files_are_read_by_path_and_url(home, tmp_path):
    path = tmp_path / "a file.bin"
    path.write_bytes(b"0123456789")
    with inline(home) as found:
        assert swingby.read(path, 2, 5, settings=found.settings) == b"234"
        assert swingby.read(f"file://{str(path).replace(' ', '%20')}", settings=found.settings) == b"0123456789"
        path.write_bytes(b"changed")
        assert swingby.read(path, settings=found.settings) == b"changed"
        with pytest.raises(ObjectNotFoundError):
            swingby.read(tmp_path / "absent", settings=found.settings)
        with pytest.raises(UrlError):
            swingby.read(str(tmp_path) + "/", settings=found.settings)


# -- levels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"memory.budget_bytes": 0},
        {"burst.budget_bytes": 0},
        {"memory.budget_bytes": 0, "burst.budget_bytes": 0},
        {"memory.budget_bytes": 9 * MIB},
        {"memory.budget_bytes": 9 * MIB, "burst.budget_bytes": 0},
        {"memory.budget_bytes": 0, "burst.budget_bytes": 4 * MIB},
        {"client.mapped_bytes_max": 1},
    ],
    ids=str,
)
def test_reads_are_right_whatever_levels_there_are(home, base, objects, settings):
    expected = relative(objects)
    with (
        inline(home, base=base, settings=settings) as found,
        swingby.open("memory://x/data", settings=found.settings) as dataset,
    ):
        for seed in range(2):
            order = np.random.default_rng(seed).permutation(len(dataset))
            for start in range(0, len(order), 40):
                batch = dataset.batch(order[start : start + 40])
                assert [bytes(view) for view in batch.views] == [expected[key] for key in batch.keys]
        assert (
            swingby.read("memory://x/data/large/1.bin", MIB, 3 * MIB, settings=found.settings)
            == expected["large/1.bin"][MIB : 3 * MIB]
        )


def test_an_object_larger_than_every_level_and_answer_is_read_by_ranges(home, monkeypatch):
    monkeypatch.setattr("swingby.keeper.supply.LOOSE_BYTES_MAX", 2 * MIB)
    monkeypatch.setattr("swingby.path.read.RANGE_BYTES_MAX", MIB)
    data = random.Random(1).randbytes(9 * MIB + 5)
    base = MemoryBase({b"data/huge": data, b"data/tiny": b"x"})
    with (
        inline(home, base=base, settings={"memory.budget_bytes": 0, "burst.budget_bytes": 0}) as found,
        swingby.open("memory://x/data", settings=found.settings) as dataset,
    ):
        assert bytes(dataset[0].data) == data


def test_segments_climb_down_to_burst_and_back(home, base, objects):
    expected = relative(objects)
    with inline(home, base=base) as found, swingby.open("memory://x/data", settings=found.settings) as dataset:
        dataset.batch(range(len(dataset)))
        asked = len(base.reads)
        for _ in range(100):
            if found.facts()["spill"]["waiting_segments"] == 0 and found.facts()["levels"]["burst"]["segments"] >= 3:
                break
            threading.Event().wait(0.1)
        evict_all(found.keeper.engine.levels.memory)
        batch = dataset.batch(range(len(dataset)))
        assert [bytes(view) for view in batch.views] == [expected[key] for key in batch.keys]
        assert len(base.reads) == asked


def test_bytes_that_flip_on_burst_after_the_keeper_answered_are_never_delivered(home):
    data = random.Random(3).randbytes(6 * MIB)
    base = MemoryBase({b"data/large": data})
    with inline(home, base=base, settings={"memory.budget_bytes": 0}) as found:
        dataset = swingby.open("memory://x/data", settings=found.settings)
        assert bytes(dataset[0].data) == data
        (path,) = (entry.path for entry in os.scandir(burst_of(found)) if entry.name.endswith(".seg"))
        with open(path, "r+b") as file:
            file.seek(5 * MIB)
            file.write(bytes([data[5 * MIB] ^ 1]))
        assert bytes(dataset[0].data) == data
        assert bytes(swingby.read("memory://x/data/large", settings=found.settings)) == data


def test_a_client_lets_go_of_what_was_evicted(home, base):
    def evicted_and_mapped(folder):
        with open("/proc/self/maps") as file:
            return [line for line in file if folder in line and line.endswith("(deleted)\n")]

    with inline(home, base=base) as found, swingby.open("memory://x/data", settings=found.settings) as dataset:
        memory = found.keeper.engine.levels.memory
        dataset.batch(range(len(dataset)))
        evict_all(memory)
        assert evicted_and_mapped(memory.options.directory)
        dataset.batch([0])
        assert not evicted_and_mapped(memory.options.directory)


def burst_of(found):
    return found.keeper.engine.levels.burst.options.directory


def evict_all(level):
    for identity in level.identities():
        while level.has(identity) and not level.evict(identity):
            time.sleep(0.01)  # the janitor holds it for a moment


def test_a_file_base_near_by_is_not_copied_to_burst(home, tmp_path, monkeypatch):
    monkeypatch.setattr("swingby.keeper.bases.read_seconds", lambda *_: 0.0)  # as measured where nothing else runs
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number:02d}").write_bytes(os.urandom(10000))
    with inline(home) as found, swingby.open(folder, settings=found.settings) as dataset:
        dataset.batch(range(20))
        found.keeper.upkeep._spill()
        assert found.facts()["levels"]["burst"]["segments"] == 0


def test_an_object_read_from_end_to_end_is_fetched_ahead(home):
    data = random.Random(2).randbytes(24 * MIB)
    base = MemoryBase({b"large": data})
    with inline(home, base=base, settings={"fetch.range_bytes": 4 * MIB}) as found:
        for start in (0, 4 * MIB, 8 * MIB):
            assert (
                swingby.read("memory://x/large", start, start + 4 * MIB, settings=found.settings)
                == data[start : start + 4 * MIB]
            )
        end = time.monotonic() + 10
        while max(start for _, start, _ in base.reads) < 12 * MIB and time.monotonic() < end:
            time.sleep(0.01)
        assert max(start for _, start, _ in base.reads) == 12 * MIB
        swingby.read("memory://x/large", 20 * MIB, 21 * MIB, settings=found.settings)  # a jump: nothing ahead of it
        threading.Event().wait(0.2)
        assert max(start for _, start, _ in base.reads) == 20 * MIB


def test_iterating_a_dataset_gives_every_sample_in_order(home, base, objects):
    with inline(home, base=base) as found, swingby.open("memory://x/data", settings=found.settings) as dataset:
        seen = [(sample.key, bytes(sample.data)) for sample in dataset]
    assert seen == sorted(relative(objects).items())


def test_a_base_that_is_down_leaves_what_is_cached(home, base, objects):
    faulty = []

    def wrap(inner):
        faulty.append(FaultyBase(inner, Faults()))
        return faulty[-1]

    with inline(home, base=base, wrap=wrap, settings={"fetch.retry_count_max": 1}) as found:
        dataset = swingby.open("memory://x/data", settings=found.settings)
        dataset.batch(range(50))
        for one in faulty:
            one.is_down = True
        assert len(dataset.batch(range(50)).views) == 50
        again = swingby.open("memory://x/data", settings=found.settings)
        assert again.manifest == dataset.manifest
        with pytest.raises(BaseUnavailableError):
            swingby.open("memory://x/data", refresh="always", settings=found.settings)
        absent = next(index for index in range(50, len(dataset)) if dataset.sizes[index])
        with pytest.raises(BaseUnavailableError):
            dataset[absent]


@pytest.mark.parametrize("part", ["open_root", "open_shard"])
def test_where_the_disk_does_not_give_manifests_back_reads_go_on_and_only_saved_ones_are_missed(
    home, base, objects, tmp_path, part
):
    def unreadable(_):
        if part == "open_shard":
            raise FormatError("a manifest shard is gone")
        return os.open(tmp_path / "unreadable", os.O_WRONLY | os.O_CREAT)

    with inline(home, base=base) as found:
        early = swingby.open("memory://x/data", settings=found.settings)
        setattr(found.keeper.engine.store, part, unreadable)
        found.keeper.sources._open.clear()
        expected = relative(objects)
        for dataset in (early, swingby.open("memory://x/data", settings=found.settings)):
            batch = dataset.batch(range(len(dataset)))
            assert {key: bytes(view) for key, view in zip(batch.keys, batch.views, strict=True)} == expected
        with pytest.raises(ManifestNotFoundError):
            swingby.open("memory://x/data", refresh="never", settings=found.settings)


def test_a_body_that_is_too_short_is_an_error_without_a_keeper_too(home):
    base = MemoryBase({b"data/a": b"0123456789"})
    with inline(home, base=base, wrap=lambda base: FaultyBase(base, Faults(shorten=1.0))) as found:
        dataset = swingby.open("memory://x/data", settings=found.settings)
        found.keeper.stop()
        with pytest.raises(CorruptDataError, match="the base sent 9 bytes"):
            dataset[0]
        for start in (0, 3):
            with pytest.raises(CorruptDataError, match="the base sent"):
                swingby.read("memory://x/data/a", start, settings=found.settings)
