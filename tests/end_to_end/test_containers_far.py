"""Samples in containers on a real Ceph's S3 and on the web: few requests, no byte that nobody asked for."""

from __future__ import annotations

import io
import tarfile
import zipfile

import numpy as np
import pytest

import swingby
from swingby import config
from swingby.base.s3 import S3Base
from swingby.testing.harness import inline

KIB, MIB = 1 << 10, 1 << 20


def tarred(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


def samples(seed, count=400, size=16 * KIB):
    rng = np.random.default_rng(seed)
    return {f"{number:05d}.bin": rng.bytes(size) for number in range(count)}


@pytest.fixture
def store(ceph, bucket):
    settings = config.load(ceph.settings())
    base = S3Base(bucket, settings.s3, settings.fetch)
    yield base
    base.close()


@pytest.fixture
def run(home, ceph):
    with inline(home, settings=ceph.settings()) as found:
        yield found


@pytest.fixture
def tars(store):
    truth = {}
    for seed in range(3):
        inside = samples(seed)
        store.write(b"set/%d.tar" % seed, tarred(inside))
        truth |= {f"{seed}.tar/{name}": data for name, data in inside.items()}
    return truth


def asked(found):
    (base,) = found.facts()["bases"].values()
    return base["requests"], base["bytes"]


@pytest.mark.parametrize("order", ["key", "segments"])
def test_a_cold_epoch_joins_neighbours_and_drags_nothing_along(run, bucket, tars, order):
    with swingby.open(f"s3://{bucket}/set", layout="tar", settings=run.settings) as dataset:
        assert list(dataset.keys) == sorted(tars)
        requests, size = asked(run)
        shuffle = {"shuffle": True, "order": order} if order != "key" else {}
        for batch in swingby.Loader(dataset, batch_size=32, **shuffle):
            assert all(view == tars[key] for key, view in zip(batch.keys, batch.views, strict=True))
        requests, size = asked(run)[0] - requests, asked(run)[1] - size
        assert requests <= len(tars) // 10
        assert size <= 1.05 * sum(map(len, tars.values()))
        before = asked(run)
        for batch in swingby.Loader(dataset, batch_size=32, shuffle=True):
            assert all(view == tars[key] for key, view in zip(batch.keys, batch.views, strict=True))
        assert asked(run) == before


def test_ranks_of_one_machine_share_the_windows_of_their_order(run, bucket, tars):
    with swingby.open(f"s3://{bucket}/set", layout="tar", settings=run.settings) as dataset:
        before = asked(run)
        ranks = [
            iter(swingby.Loader(dataset, batch_size=8, shuffle=True, order="segments", rank=rank, world_size=4))
            for rank in range(4)
        ]
        keys = []
        for batches in zip(*ranks, strict=True):
            for batch in batches:
                assert all(view == tars[key] for key, view in zip(batch.keys, batch.views, strict=True))
                keys += batch.keys
        assert sorted(keys) == sorted(tars)
        requests, size = np.subtract(asked(run), before).tolist()
        assert requests <= len(tars) // 2  # until half of the ranks are there, each asks for its own
        assert size <= 1.05 * sum(map(len, tars.values()))


def test_what_nobody_asked_for_is_not_read(run, bucket, tars):
    with swingby.open(f"s3://{bucket}/set", layout="tar", settings=run.settings) as dataset:
        before = asked(run)
        dataset.batch([5])
        assert np.subtract(asked(run), before).tolist() == [1, 16 * KIB]
        dataset.batch([100, 101, 102, 300])
        assert np.subtract(asked(run), before).tolist() == [3, 5 * 16 * KIB + 2 * 512]


def test_only_a_changed_container_is_read_again(run, bucket, store, tars):
    url = f"s3://{bucket}/set"
    for _ in swingby.open(url, layout="tar", settings=run.settings):
        pass
    inside = samples(9)
    data = tarred(inside)
    store.write(b"set/1.tar", data)
    tars |= {f"1.tar/{name}": one for name, one in inside.items()}
    before = asked(run)[1]
    dataset = swingby.open(url, layout="tar", refresh="always", settings=run.settings)
    for sample in dataset:
        assert sample.data == tars[sample.key]
    assert asked(run)[1] - before <= 2.02 * len(data)  # the index, and the samples


def test_large_members_are_indexed_by_their_headers_and_read_by_ranges(run, bucket, store):
    rng = np.random.default_rng(4)
    inside = {f"{number}.mp4": rng.bytes(9 * MIB + number) for number in range(3)}
    store.write(b"set/x.tar", tarred(inside))
    with swingby.open(f"s3://{bucket}/set", layout="tar", settings=run.settings) as dataset:
        assert asked(run)[1] < 200 * KIB
        for sample in dataset:
            assert sample.data == inside[sample.key.removeprefix("x.tar/")]
        assert asked(run)[1] < 1.02 * sum(map(len, inside.values()))


def test_a_zip_is_indexed_by_its_directory_alone(run, bucket, store):
    inside = samples(5, 300)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in inside.items():
            made.writestr(name, data)
    store.write(b"set/x.zip", out.getvalue())
    with swingby.open(f"s3://{bucket}/set", layout="zip", settings=run.settings) as dataset:
        assert asked(run)[1] < 64 * KIB
        requests = asked(run)[0]
        for sample in dataset:
            assert sample.data == inside[sample.key.removeprefix("x.zip/")]
        assert asked(run)[0] - requests <= 20


def test_containers_on_the_web_are_read_by_ranges(web, home):
    inside = samples(6, 200)
    web.objects |= {b"data/x.tar": tarred(inside), b"list.txt": b"data/x.tar\n"}
    with inline(home) as found:
        dataset = swingby.open(f"http://{web.host}/list.txt", layout="tar", settings=found.settings)
        for sample in dataset:
            assert sample.data == inside[sample.key.removeprefix("data/x.tar/")]
