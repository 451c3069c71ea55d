"""S3 on a real Ceph, through a keeper in this process: right bytes, and clear errors."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest

import swingby
from swingby.base.s3 import S3Base
from swingby.errors import (
    AuthenticationError,
    BaseNotFoundError,
    BaseUnavailableError,
    EmptyDatasetError,
    ObjectChangedError,
    ObjectNotFoundError,
    UrlError,
)
from swingby.testing.harness import inline

MIB = 1 << 20


@pytest.fixture
def objects():
    rng = random.Random(1)
    found = {b"set/%d/%04d.bin" % (number % 3, number): rng.randbytes(rng.randint(0, 30_000)) for number in range(300)}
    found |= {b"set/large/%d" % number: rng.randbytes(9 * MIB + number) for number in range(2)}
    found |= {
        b"set/odd/with space": b"1",
        b"set/odd/new\nline": b"2",
        b"set/odd/../dots": b"3",
        b"set/odd//double": b"4",
        b"set/odd/folder/": b"",
    }
    return found


@pytest.fixture
def store(ceph, bucket, objects):
    from swingby import config

    settings = config.load(ceph.settings())
    base = S3Base(bucket, settings.s3, settings.fetch)
    for key, data in objects.items():
        base.write(key, data)
    yield base
    base.close()


@pytest.fixture
def run(home, ceph):
    with inline(home, settings=ceph.settings()) as found:
        yield found


def test_a_bucket_is_read_right_in_any_order_cold_and_warm(run, bucket, store, objects):
    expected = {key.decode().removeprefix("set/"): data for key, data in objects.items() if not key.endswith(b"/")}
    with swingby.open(f"s3://{bucket}/set", settings=run.settings) as dataset:
        assert list(dataset.keys) == sorted(expected)
        for _ in range(2):
            for batch in swingby.Loader(dataset, batch_size=32, shuffle=True):
                assert [bytes(view) for view in batch.views] == [expected[key] for key in batch.keys]
        facts = run.facts()
        assert facts["base_bytes"] == sum(map(len, expected.values()))


def test_the_second_epoch_asks_nothing_of_the_bucket(run, bucket, store):
    with swingby.open(f"s3://{bucket}/set", settings=run.settings) as dataset:
        requests = []
        for _ in range(3):
            for batch in swingby.Loader(dataset, batch_size=32, shuffle=True):
                batch.packed()
            (reading,) = run.facts()["bases"].values()
            requests.append(reading["requests"])
        assert requests[0] == requests[1] == requests[2]


def test_one_cold_small_object_is_one_request(run, bucket, store):
    with swingby.open(f"s3://{bucket}/set", settings=run.settings) as dataset:
        before = next(iter(run.facts()["bases"].values()))
        index = next(i for i, size in enumerate(dataset.sizes) if size)
        dataset[index]
        after = next(iter(run.facts()["bases"].values()))
        assert after["requests"] - before["requests"] == 1
        assert after["bytes"] - before["bytes"] == dataset.sizes[index]


def test_objects_are_read_by_url_with_ranges(run, bucket, store, objects):
    url = f"s3://{bucket}/set/large/1"
    data = objects[b"set/large/1"]
    assert swingby.read(url, settings=run.settings) == data
    assert swingby.read(url, 5 * MIB - 3, 5 * MIB + 3, settings=run.settings) == data[5 * MIB - 3 : 5 * MIB + 3]
    assert swingby.read(f"s3://{bucket}/set/odd/../dots", settings=run.settings) == b"3"
    store.write(b"set/large/1", b"replaced")
    assert swingby.read(url, settings=run.settings) == b"replaced"


def test_a_changed_object_is_told_and_read_after_a_refresh(run, bucket, store):
    dataset = swingby.open(f"s3://{bucket}/set", settings=run.settings)
    index = next(i for i, size in enumerate(dataset.sizes) if size)
    store.write(b"set/" + dataset.keys[index].encode(), b"changed")
    with pytest.raises(ObjectChangedError, match=f"s3://{bucket}/set/"):
        dataset[index]
    again = swingby.open(f"s3://{bucket}/set", refresh="always", settings=run.settings)
    assert bytes(again[index].data) == b"changed"


BAD_INPUT = [
    ("s3://no-such-bucket-here/x", {}, BaseNotFoundError, "no such bucket"),
    ("s3://{bucket}/nothing/here", {}, EmptyDatasetError, "spelling"),
    ("s3://{bucket}/set", {"s3.access_key_id": "WRONG"}, AuthenticationError, "AWS_ACCESS_KEY_ID"),
    ("s3://{bucket}/set", {"s3.secret_access_key": "WRONG"}, AuthenticationError, "AWS_SECRET_ACCESS_KEY"),
    ("s3://{bucket}/set", {"s3.endpoint": "http://127.0.0.1:9"}, BaseUnavailableError, "does not answer"),
    ("gopher://{bucket}/set", {}, UrlError, "s3://"),
]


@pytest.mark.parametrize("case", BAD_INPUT, ids=lambda case: case[2].__name__)
def test_bad_input_is_answered_with_what_to_do(home, ceph, bucket, case):
    url, change, error, text = case
    with inline(home, settings=ceph.settings() | change) as found, pytest.raises(error, match=text) as raised:
        swingby.open(url.format(bucket=bucket), settings=found.settings)
    assert "WRONG" not in str(raised.value)


def test_an_absent_key_is_not_found(run, bucket, store):
    with pytest.raises(ObjectNotFoundError, match="no such key"):
        swingby.read(f"s3://{bucket}/set/absent", settings=run.settings)


def test_a_gateway_that_went_away_leaves_what_is_cached(home, ceph, bucket, store, objects):
    """Down is simulated by the endpoint's port: the second keeper has another one under the same base id."""
    with inline(home, settings=ceph.settings()) as found:
        dataset = swingby.open(f"s3://{bucket}/set", settings=found.settings)
        dataset.batch(np.arange(100))
        (base,) = found.keeper.engine.bases.all()
        base.base._base._base._wire._address = ("127.0.0.1", 9)
        base.base._base._base._wire.close()
        dataset.batch(np.arange(100))
        absent = next(i for i in range(100, len(dataset)) if dataset.sizes[i])
        with pytest.raises(BaseUnavailableError) as raised:
            dataset[absent]
        assert dataset.keys[absent] in (raised.value.key or "")


def test_without_a_keeper_a_bucket_is_still_read_also_in_forked_children(home, ceph, bucket, store, objects):
    settings = ceph.settings() | {"home": home, "keeper.mode": "off"}
    with swingby.open(f"s3://{bucket}/set", settings=settings) as dataset:
        index = next(i for i, size in enumerate(dataset.sizes) if size)
        expected = objects[b"set/" + dataset.keys[index].encode()]
        assert bytes(dataset[index].data) == expected
        child = os.fork()
        if child == 0:
            os._exit(0 if bytes(dataset[index].data) == expected else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert len(dataset.batch(np.arange(40)).views) == 40
