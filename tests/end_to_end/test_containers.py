"""Samples in containers, read without unpacking: every layout on files, through the keeper and without one."""

from __future__ import annotations

import io
import os
import pickle
import tarfile

import numpy as np
import pytest

import swingby
from swingby.errors import (
    BadContainerError,
    EmptyDatasetError,
    FormatError,
    ManifestNotFoundError,
    ObjectChangedError,
    UrlError,
)
from swingby.testing.harness import inline

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
