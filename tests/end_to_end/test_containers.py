"""Samples in containers, read without unpacking: every layout on files, through the keeper and without one."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import time
import zipfile

import numpy as np
import pytest

import swingby
from swingby.core.containers.crc32c import crc32c, masked
from swingby.errors import (
    BadContainerError,
    BaseUnavailableError,
    CorruptDataError,
    EmptyDatasetError,
    FormatError,
    ManifestNotFoundError,
    ObjectChangedError,
    UrlError,
)
from swingby.testing.harness import inline
from swingby.testing.memory_base import MemoryBase

MIB = 1 << 20


def write_tar(path, members):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tarfile.open(path + ".new", "w") as made:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    os.rename(path + ".new", path)


def members(seed, count=30, large=True):
    rng = np.random.default_rng(seed)
    found = {f"d/{number:03d}.bin": rng.bytes(int(rng.integers(0, 20_000))) for number in range(count)}
    return found | ({"large.bin": rng.bytes(9 * MIB + 5)} if large else {})


@pytest.fixture
def tars(tmp_path):
    """A folder of tars, and what is in them by key. Their names sort otherwise than their samples' keys do."""
    truth = {}
    for seed, name in enumerate(("a.tar", "a.tar-2.tar", "sub/b.tar", "a.tar.d/c.tar")):
        inside = members(seed, large=seed < 2)
        write_tar(str(tmp_path / "data" / name), inside)
        truth |= {f"{name}/{key}": data for key, data in inside.items()}
    (tmp_path / "data" / "README.md").write_bytes(b"no container")
    return str(tmp_path / "data"), truth


def check(dataset, truth):
    assert list(dataset.keys) == sorted(truth)
    assert dataset.sizes.tolist() == [len(truth[key]) for key in sorted(truth)]
    for batch in swingby.Loader(dataset, batch_size=8, shuffle=True):
        for key, view in zip(batch.keys, batch.views, strict=True):
            assert view == truth[key], key


def test_every_sample_is_a_member(tars, home):
    folder, truth = tars
    with inline(home) as found, swingby.open(folder, layout="tar", settings=found.settings) as dataset:
        check(dataset, truth)
        assert dataset.layout == "tar"
        assert dataset[dataset.keys.index("a.tar/large.bin")].data == truth["a.tar/large.bin"]
        data, offsets = dataset.batch(range(5)).packed()
        assert bytes(data) == b"".join(truth[key] for key in dataset.keys[:5])
        assert offsets[-1] == len(data)


def test_filters_select_samples_by_their_whole_key(tars, home):
    folder, truth = tars
    with inline(home) as found:
        of_one = swingby.open(folder, layout="tar", include="sub/b.tar/*", settings=found.settings)
        check(of_one, {key: data for key, data in truth.items() if key.startswith("sub/b.tar/")})
        small = swingby.open(folder, layout="tar", exclude="*large*", settings=found.settings)
        check(small, {key: data for key, data in truth.items() if "large" not in key})


def test_a_snapshot_is_opened_again_and_pickled(tars, home):
    folder, truth = tars
    with inline(home) as found:
        dataset = swingby.open(folder, layout="tar", settings=found.settings)
        again = swingby.open(folder, manifest=dataset.manifest, settings=found.settings)
        assert (again.layout, again.manifest) == ("tar", dataset.manifest)
        check(pickle.loads(pickle.dumps(again)), truth)
        with pytest.raises(ManifestNotFoundError, match="layout 'tar'"):
            swingby.open(folder, manifest=dataset.manifest, layout="zip", settings=found.settings)
        objects = swingby.open(folder, settings=found.settings)
        assert (len(objects), objects.layout, objects.bad_containers) == (5, "objects", {})


def test_without_a_keeper_the_same_samples_are_read(tars, home, monkeypatch):
    folder, truth = tars
    with inline(home) as found:
        by_keeper = swingby.open(folder, layout="tar", settings=found.settings).manifest
        monkeypatch.setattr(type(found.connector), "connect", lambda _: (_ for _ in ()).throw(no_keeper()))
        found.session.client.close()
        dataset = swingby.open(folder, layout="tar", settings=found.settings)
        assert dataset.manifest == by_keeper
        check(dataset, truth)


def no_keeper():
    from swingby.errors import KeeperUnavailableError

    return KeeperUnavailableError("there is none here")


def test_without_levels_the_base_is_read_itself(tars, home):
    folder, truth = tars
    with inline(home, settings={"memory.budget_bytes": 0, "burst.budget_bytes": 0}) as found:
        check(swingby.open(folder, layout="tar", settings=found.settings), truth)


def test_after_a_restart_of_the_keeper_the_index_is_there(tars, home):
    folder, truth = tars
    with inline(home) as found:
        digest = swingby.open(folder, layout="tar", settings=found.settings).manifest
    with inline(home) as found:
        dataset = swingby.open(folder, layout="tar", refresh="never", settings=found.settings)
        assert dataset.manifest == digest
        assert sum(base["bytes"] for base in found.facts()["bases"].values()) == 0
        check(dataset, truth)


def test_only_changed_containers_are_indexed_and_read_again(tars, home):
    folder, truth = tars
    with inline(home) as found:
        check(swingby.open(folder, layout="tar", settings=found.settings), truth)
        before = base_bytes(found)
        assert swingby.open(folder, layout="tar", refresh="always", settings=found.settings).keys[0] == min(truth)
        assert base_bytes(found) == before  # nothing has changed
        inside = members(77, large=False)
        truth = {key: data for key, data in truth.items() if not key.startswith("sub/b.tar/")}
        truth |= {f"sub/b.tar/{key}": data for key, data in inside.items()}
        write_tar(os.path.join(folder, "sub/b.tar"), inside)
        check(swingby.open(folder, layout="tar", refresh="always", settings=found.settings), truth)
        size = os.path.getsize(os.path.join(folder, "sub/b.tar"))
        assert base_bytes(found) - before <= 2 * size  # once to index, once to read


def base_bytes(found):
    return sum(base["bytes"] for base in found.facts()["bases"].values())


def test_a_container_that_changed_under_a_snapshot_is_an_error(tars, home):
    folder, _ = tars
    with inline(home) as found:
        dataset = swingby.open(folder, layout="tar", settings=found.settings)
        write_tar(os.path.join(folder, "sub/b.tar"), members(78, large=False))
        with pytest.raises(ObjectChangedError):
            dataset.batch([dataset.keys.index("sub/b.tar/d/003.bin")])


def test_bad_containers_are_all_named_and_can_be_left_out(tars, home):
    folder, truth = tars
    for name in ("bad.tar", "sub/cut.tar", "worse.tar.gz"):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(b"nonsense" * 200)
    with inline(home) as found:
        with pytest.raises(BadContainerError, match=r"bad\.tar.*cut\.tar.*worse\.tar\.gz.*on_bad='skip'"):
            swingby.open(folder, layout="tar", settings=found.settings)
        dataset = swingby.open(folder, layout="tar", on_bad="skip", settings=found.settings)
        assert list(dataset.bad_containers) == ["bad.tar", "sub/cut.tar", "worse.tar.gz"]
        check(pickle.loads(pickle.dumps(dataset)), truth)
        for name in ("bad.tar", "sub/cut.tar", "worse.tar.gz"):
            os.unlink(os.path.join(folder, name))
        check(swingby.open(folder, layout="tar", refresh="always", settings=found.settings), truth)


def test_what_cannot_be_meant_is_refused(tars, home, tmp_path):
    folder, _ = tars
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "x.tar").write_bytes(b"nonsense" * 200)
    with inline(home) as found:
        with pytest.raises(UrlError, match="objects, tar, webdataset"):
            swingby.open(folder, layout="rar", settings=found.settings)
        with pytest.raises(ValueError, match="raise, skip"):
            swingby.open(folder, layout="tar", on_bad="ignore", settings=found.settings)
        with pytest.raises(EmptyDatasetError, match=r"none named \*\.zip"):
            swingby.open(folder, layout="zip", settings=found.settings)
        with pytest.raises(BadContainerError, match=r"x\.tar, byte 0"):
            swingby.open(str(tmp_path / "one"), layout="tar", on_bad="skip", settings=found.settings)
        with pytest.raises(ManifestNotFoundError, match="never opened with layout='tar'"):
            swingby.open(folder, layout="tar", refresh="never", settings=found.settings)
        with pytest.raises(FormatError, match="webdataset"):
            _ = swingby.open(folder, layout="tar", settings=found.settings)[0].parts


def pieces(sample):
    return (sample.parts["__key__"], bytes(sample.parts["jpg"]), int(bytes(sample.parts["cls"])))


def test_parts_of_a_webdataset_sample_are_views_of_it(tmp_path, home):
    inside = {}
    for number in range(20):
        inside[f"{number:03d}.jpg"] = os.urandom(1000 + number)
        inside[f"{number:03d}.cls"] = b"%d" % number
    write_tar(str(tmp_path / "data" / "x.tar"), inside)
    with inline(home) as found:
        dataset = swingby.open(str(tmp_path / "data"), layout="webdataset", settings=found.settings)
        assert list(dataset.keys) == [f"x.tar/{number:03d}" for number in range(20)]
        got = [one for batch in swingby.Loader(dataset, batch_size=3, decode=pieces) for one in batch]
        assert got == [(f"{number:03d}", inside[f"{number:03d}.jpg"], number) for number in range(20)]
        key, data = dataset[3]
        assert (key, data[-1:]) == ("x.tar/003", inside["003.cls"][-1:])


def write_parquet(path, rows, group, **options):
    import pyarrow as pa
    import pyarrow.parquet as pq

    os.makedirs(os.path.dirname(path), exist_ok=True)
    rng = np.random.default_rng(rows)
    table = pa.table({"id": np.arange(rows), "value": rng.random(rows), "word": [f"w{n % 7}" for n in range(rows)]})
    pq.write_table(table, path, row_group_size=group, **options)
    return table


@pytest.mark.parametrize("settings", [{}, {"memory.budget_bytes": 0, "burst.budget_bytes": 0}])
def test_a_row_group_is_a_table_of_the_columns_asked_for(tmp_path, home, settings):
    small = write_parquet(str(tmp_path / "data" / "small.parquet"), 1000, 100)
    large = write_parquet(str(tmp_path / "data" / "x" / "large.parquet"), 2_000_000, 1_000_000, compression="none")
    with inline(home, settings=settings) as found:
        dataset = swingby.open(str(tmp_path / "data"), layout="parquet", settings=found.settings)
        assert len(dataset) == 12
        assert dataset.keys[10:] == ["x/large.parquet/000000", "x/large.parquet/000001"]
        assert dataset[3].table().equals(small.slice(300, 100))
        assert dataset[3].table(["word"]).equals(small.slice(300, 100).select(["word"]))
        before = base_bytes(found)
        assert dataset.table(11, columns=["word"]).equals(large.slice(1_000_000).select(["word"]))
        if not settings:
            assert base_bytes(found) - before < dataset.sizes[11] // 2
        assert dataset.table(10).equals(large.slice(0, 1_000_000))
        loader = swingby.Loader(dataset, batch_size=5, decode=lambda sample: sample.table(["id"]).num_rows)
        assert sum(rows for batch in loader for rows in batch) == 2_001_000
        pickled = pickle.loads(pickle.dumps(dataset))
        assert len(pickled) == 12
        assert pickled.digest == dataset.digest
        assert pickled.table(0, ["id"]).num_rows == 100


def test_tables_are_of_parquet_alone(tars, home):
    folder, _ = tars
    with inline(home) as found:
        dataset = swingby.open(folder, layout="tar", settings=found.settings)
        with pytest.raises(FormatError, match="layout='parquet'"):
            dataset.table(0)


def test_stored_and_deflated_members_of_zips_are_samples(tmp_path, home):
    truth = {}
    os.makedirs(tmp_path / "data")
    rng = np.random.default_rng(3)
    for name, method in (("a.zip", zipfile.ZIP_STORED), ("b.zip", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(tmp_path / "data" / name, "w", method) as made:
            for number in range(40):
                size = 6 * MIB + 3 if number in {7, 8} else int(rng.integers(0, 9000))
                data = rng.integers(0, 4, size, np.uint8).tobytes()
                made.writestr(f"{number:02d}", data)
                truth[f"{name}/{number:02d}"] = data
    np.savez(tmp_path / "data" / "c.npz", x=np.arange(1000), y=np.eye(30))
    with inline(home) as found:
        dataset = swingby.open(str(tmp_path / "data"), layout="zip", settings=found.settings)
        assert np.array_equal(np.load(io.BytesIO(dataset[dataset.keys.index("c.npz/x.npy")].data)), np.arange(1000))
        some = swingby.open(str(tmp_path / "data"), layout="zip", exclude="c.npz/*", settings=found.settings)
        check(some, truth)
        part = some.keys.index("b.zip/07")
        assert bytes(some._reader.part(part, 5 * MIB, 5 * MIB + 10)) == truth["b.zip/07"][5 * MIB : 5 * MIB + 10]
    for settings in ({"memory.budget_bytes": 0, "burst.budget_bytes": 0}, {"memory.budget_bytes": 8 * MIB}):
        with inline(home + "2", settings=settings) as found:
            check(swingby.open(str(tmp_path / "data"), layout="zip", exclude="c.npz/*", settings=found.settings), truth)


def test_a_damaged_member_is_named_and_its_neighbours_are_read(tmp_path, home):
    os.makedirs(tmp_path / "data")
    path = tmp_path / "data" / "x.zip"
    with zipfile.ZipFile(path, "w") as made:
        for number in range(10):
            made.writestr(f"{number}", b"%d" % number * 1000)
    data = bytearray(path.read_bytes())
    data[data.index(b"4" * 100) + 50] = 0
    path.write_bytes(data)
    with inline(home) as found:
        dataset = swingby.open(str(tmp_path / "data"), layout="zip", settings=found.settings)
        with pytest.raises(CorruptDataError, match=r"x\.zip, byte \d+: .*CRC-32"):
            dataset.batch(range(10))
        assert bytes(dataset[3].data) == b"3" * 1000
        loader = swingby.Loader(dataset, batch_size=10, on_bad="substitute")
        assert sum(len(batch) for batch in loader) == 10
        assert [bad.key for bad in loader.bad] == ["x.zip/4"]


def test_payloads_of_tfrecords_are_samples(tmp_path, home):
    os.makedirs(tmp_path / "data")
    truth = {}
    for name in ("train-00000-of-00002", "train-00001-of-00002"):
        payloads = [os.urandom(number * 50) for number in range(60)]
        with open(tmp_path / "data" / name, "wb") as file:
            for number, payload in enumerate(payloads):
                head = struct.pack("<Q", len(payload))
                file.write(head + struct.pack("<I", masked(crc32c(head))) + payload + bytes(4))
                truth[f"{name}/{number:010d}"] = payload
    with inline(home) as found:
        check(swingby.open(str(tmp_path / "data"), layout="tfrecord", settings=found.settings), truth)


def test_containers_whose_keys_nest_are_told_apart(home):
    """Object stores allow both "x.tar" and "x.tar/y.tar"; their samples' keys stand between each other."""
    outer = {"a": b"1", "y.tar-": b"2", "z": b"3"}
    inner = {"b": b"4"}
    folder = {b"d/x.tar": tar_bytes(outer), b"d/x.tar/y.tar": tar_bytes(inner)}
    with inline(home, base=MemoryBase(folder)) as found:
        truth = {f"x.tar/{name}": data for name, data in outer.items()} | {"x.tar/y.tar/b": b"4"}
        check(swingby.open("memory://bucket/d", layout="tar", settings=found.settings), truth)


def tar_bytes(inside):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, data in inside.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


class EndingBase(MemoryBase):
    """One that answers so many reads and is down from then on."""

    left = 150

    def read(self, key, start=0, size=None, version=None):
        if self.left <= 0:
            raise BaseUnavailableError("the base is down")
        self.left -= 1
        return super().read(key, start, size, version)


def test_an_index_goes_on_where_a_failing_base_ended_it(home):
    inside = {f"{number:03d}.tar": {"a": bytes(20_000), "b": b"%d" % number} for number in range(100)}
    base = EndingBase({f"d/{name}".encode(): tar_bytes(one) for name, one in inside.items()})
    with inline(home, base=base) as found:
        with pytest.raises(BaseUnavailableError):
            swingby.open("memory://bucket/d", layout="tar", settings=found.settings)
        base.left, base.reads = 10**9, []
        dataset = swingby.open("memory://bucket/d", layout="tar", settings=found.settings)
        assert 20 <= len({key for key, _, _ in base.reads}) <= 80  # three reads a tar
        check(dataset, {f"{name}/{key}": data for name, one in inside.items() for key, data in one.items()})
    kept = [name for _, _, names in os.walk(os.path.join(home)) for name in names if len(name) == 32]
    assert len(kept) >= 100


def test_arrays_are_views_of_what_is_held(tmp_path, home):
    os.makedirs(tmp_path / "data")
    arrays = [np.random.default_rng(n).random((n + 1, 50)) for n in range(6)]
    for number, one in enumerate(arrays):
        np.save(tmp_path / "data" / f"{number}.npy", one if number % 2 else np.asfortranarray(one))

    def array(sample):
        head = io.BytesIO(sample.data[:4096])
        np.lib.format.read_magic(head)
        shape, is_fortran, kind = np.lib.format.read_array_header_1_0(head)
        return np.frombuffer(sample.data, kind, offset=head.tell()).reshape(shape, order="F" if is_fortran else "C")

    with inline(home) as found:
        dataset = swingby.open(str(tmp_path / "data"), settings=found.settings)
        loader = swingby.Loader(dataset, batch_size=4, decode=array)
        got = [one for batch in loader for one in batch]
        assert all(np.array_equal(mine, right) for mine, right in zip(got, arrays, strict=True))
        batch = dataset.batch([3])
        assert np.shares_memory(array(batch.sample(0)), np.frombuffer(batch.views[0], np.uint8))


class LyingBase(MemoryBase):
    """One that sends nonsense of one object for a while."""

    lies = True

    def read(self, key, start=0, size=None, version=None):
        found = super().read(key, start, size, version)
        return found._replace(data=b"x" * len(found.data)) if self.lies and key == b"d/1.tar" else found


def test_a_container_that_was_bad_is_tried_again_when_asked_anew(home):
    inside = {f"{number}.tar": {"a": b"%d" % number * 1000} for number in range(3)}
    base = LyingBase({f"d/{name}".encode(): tar_bytes(one) for name, one in inside.items()})
    with inline(home, base=base) as found:
        dataset = swingby.open("memory://bucket/d", layout="tar", on_bad="skip", settings=found.settings)
        assert list(dataset.bad_containers) == ["1.tar"]
        base.lies, base.reads = False, []
        dataset = swingby.open("memory://bucket/d", layout="tar", refresh="always", settings=found.settings)
        assert {key for key, _, _ in base.reads} == {b"d/1.tar"}
        check(dataset, {f"{name}/a": one["a"] for name, one in inside.items()})


def test_a_loader_goes_on_where_it_was_and_workers_get_parts(tmp_path, home):
    inside = {f"{number:03d}.{kind}": b"%d" % number for number in range(40) for kind in ("jpg", "cls")}
    write_tar(str(tmp_path / "data" / "x.tar"), inside)
    with inline(home) as found:
        dataset = swingby.open(str(tmp_path / "data"), layout="webdataset", settings=found.settings)
        decode = swingby.Decode(pieces, where="processes", workers=2)
        loader = swingby.Loader(dataset, batch_size=4, shuffle=True, seed=3, order="segments", decode=decode)
        batches = iter(loader)
        seen = [next(batches) for _ in range(4)]
        state = loader.state_dict()
        batches.close()
        resumed = swingby.Loader(dataset, batch_size=8, shuffle=True, seed=3, order="segments", decode=pieces)
        resumed.load_state_dict(state)
        got = [number for batch in (*seen, *resumed) for _, _, number in batch]
        assert sorted(got) == list(range(40))


@pytest.mark.parametrize("order", ["key", "segments", "global"])
def test_an_epoch_over_local_containers_leaves_them_on_the_memory_level(tmp_path, home, order):
    truth = {f"{name}.tar/{key}": data for name in "abc" for key, data in members(ord(name), 400, large=False).items()}
    for name in "abc":
        write_tar(str(tmp_path / "data" / f"{name}.tar"), members(ord(name), 400, large=False))
    with inline(home) as found:
        dataset = swingby.open(str(tmp_path / "data"), layout="tar", settings=found.settings)
        how = {} if order == "key" else {"shuffle": True, "order": order}
        for batch in swingby.Loader(dataset, batch_size=8, **how):
            assert all(view == truth[key] for key, view in zip(batch.keys, batch.views, strict=True))
        until = time.monotonic() + 20
        while found.keeper.supply.levels.memory.counts().filled_bytes < sum(map(len, truth.values())):
            assert time.monotonic() < until, "what was read is not kept"
            time.sleep(0.01)
        before = base_bytes(found)
        for batch in swingby.Loader(dataset, batch_size=8, shuffle=True):
            assert all(view == truth[key] for key, view in zip(batch.keys, batch.views, strict=True))
        assert base_bytes(found) == before


def test_samples_that_left_the_memory_level_come_from_the_burst_level(home):
    truth = members(7, large=False)
    with inline(home, base=MemoryBase({b"d/a.tar": tar_bytes(truth)})) as found:
        with swingby.open("memory://m/d/", layout="tar", settings=found.settings) as dataset:
            check(dataset, {f"a.tar/{key}": data for key, data in truth.items()})
        memory, _ = found.keeper.engine.levels
        until = time.monotonic() + 20
        while found.keeper.upkeep.waiting_count and time.monotonic() < until:
            time.sleep(0.05)
        assert all(memory.evict(identity) for identity in memory.identities())
        before = found.facts()["base_bytes"]
        with swingby.open("memory://m/d/", layout="tar", settings=found.settings) as dataset:
            check(dataset, {f"a.tar/{key}": data for key, data in truth.items()})
            swingby.prefetch(dataset).wait(20)
        assert found.facts()["base_bytes"] == before
