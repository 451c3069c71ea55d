"""The fsspec door over a bucket of a real Ceph."""

from __future__ import annotations

import multiprocessing
import random
import time

import pytest

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")

from swingby import config
from swingby.base.s3 import S3Base
from swingby.doors.fsspec import SwingbyFileSystem
from swingby.errors import AuthenticationError, BaseUnavailableError
from swingby.testing.harness import QUICK_RETRIES, inline

MIB = 1 << 20


@pytest.fixture
def store(ceph, bucket):
    settings = config.load(ceph.settings())
    base = S3Base(bucket, settings.s3, settings.fetch)
    yield base
    base.close()


@pytest.fixture
def make_fs(ceph, home):
    given = ceph.settings()
    settings = QUICK_RETRIES | {"keeper.mode": "inline", "home": home}
    options = {"key": given["s3.access_key_id"], "secret": given["s3.secret_access_key"]}
    options |= {"client_kwargs": {"endpoint_url": given["s3.endpoint"], "region_name": given["s3.region"]}}

    def make(**more):
        mode = {"keeper.mode": "off"} if more else {}  # as others, there is no keeper to start
        return SwingbyFileSystem("s3", options | more, settings=settings | mode, skip_instance_cache=True)

    with inline(home, settings=given):
        yield make


def test_folders_of_any_size_and_keys_of_any_kind(make_fs, bucket, store):
    keys = [f"many/{number:04d}" for number in range(1005)] + ["odd/with space+plus", "odd/ü", "odd//double", "b/c/d"]
    for key in keys:
        store.write(key.encode(), key.encode())
    store.write(b"console/", b"")
    fs = make_fs()
    assert fs.ls(bucket, detail=False) == [f"{bucket}/{name}" for name in ("b", "console", "many", "odd")]
    assert fs.ls(f"{bucket}/many", detail=False) == [f"{bucket}/{key}" for key in keys[:1005]]
    assert fs.ls(f"{bucket}/console") == []
    assert fs.isdir(f"{bucket}/console")
    assert fs.find(bucket) == sorted(f"{bucket}/{key}" for key in keys)
    for key in keys[1005:]:
        assert fs.cat_file(f"{bucket}/{key}") == key.encode()
    assert not fs.exists(f"{bucket}/man")
    assert not fs.exists("no-such-bucket-anywhere/key")


def test_info_is_as_of_s3fs(make_fs, bucket, store):
    store.write(b"key", b"hello")
    fs = make_fs()
    (listed,) = fs.ls(bucket)
    found = fs.info(f"{bucket}/key")
    assert found | {"LastModified": 0, "mtime": 0} == listed | {"LastModified": 0, "mtime": 0}
    assert found["ETag"] == '"5d41402abc4b2a76b9719d911017c592"'
    assert abs(time.time() - found["mtime"]) < 60
    assert fs.modified(f"{bucket}/key") == found["LastModified"]


def test_what_is_wrong_is_told_apart(make_fs, bucket, store):
    store.write(b"key", b"hello")
    for call in (make_fs(secret="wrong").open, make_fs(key="nobody").ls, make_fs(key="nobody").cat_file):
        with pytest.raises(PermissionError):
            call(f"{bucket}/key")
    assert issubclass(AuthenticationError, PermissionError)
    down = make_fs(client_kwargs={"endpoint_url": "http://127.0.0.1:9", "region_name": "us-east-1"})
    for call in (down.exists, down.ls, down.open, down.cat_file):
        with pytest.raises(BaseUnavailableError):
            call(f"{bucket}/key")


def _digest(job):
    fs, file, path = job
    return fs.cat_file(path) == file.read() == fs.open(path).read()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_read_on_after_their_parent_did(ceph, home, bucket, store, method):
    data = random.Random(1).randbytes(5 * MIB)
    store.write(b"large", data)
    settings = ceph.settings() | {"home": home, "keeper.idle_exit_seconds": 1}
    fs, path = SwingbyFileSystem("s3", settings=settings), f"{bucket}/large"
    file = fs.open(path)
    assert file.read() == data
    file.seek(0)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_digest, [(fs, file, path)] * 4) == [True] * 4
