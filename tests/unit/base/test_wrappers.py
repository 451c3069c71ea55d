"""Retries, the meter, the parallel lister, translation, POSIX details."""

from __future__ import annotations

import os
import tempfile
import threading
import time

import numpy as np
import obstore.exceptions as foreign
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swingby.base import translate
from swingby.base.credentials import Credentials, provider_of
from swingby.base.meter import MeteredBase
from swingby.base.posix import PosixBase
from swingby.base.ranges import between, list_ranges
from swingby.base.retry import RetryingBase, RetryLimits
from swingby.config import S3
from swingby.core.object import Page
from swingby.errors import (
    AccessDeniedError,
    AuthenticationError,
    BaseNotFoundError,
    BaseUnavailableError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    SwingbyError,
)
from swingby.testing.faulty_base import Faults, FaultyBase
from swingby.testing.memory_base import MemoryBase

# -- retries -----------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.now = 0.0
        self.pauses = []

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds

    def time(self):
        return self.now


def retrying(base, clock, count=5, seconds=100.0, delay=1.0):
    return RetryingBase(base, RetryLimits(count, delay, seconds), clock.sleep, clock.time, lambda: 1.0)


def test_a_base_that_stays_down_is_tried_so_often_and_pauses_grow_to_a_bound():
    clock = Clock()
    faulty = FaultyBase(MemoryBase({b"a": b"x"}), Faults())
    faulty.is_down = True
    with pytest.raises(BaseUnavailableError):
        retrying(faulty, clock).read(b"a")
    assert clock.pauses == [0.05, 0.1, 0.2, 0.4, 0.8]
    clock.pauses.clear()
    with pytest.raises(BaseUnavailableError):
        retrying(faulty, clock, delay=0.15).stat(b"a")
    assert max(clock.pauses) == 0.15


def test_no_new_try_begins_after_the_time_is_over():
    clock = Clock()
    faulty = FaultyBase(MemoryBase(), Faults())
    faulty.is_down = True
    with pytest.raises(BaseUnavailableError):
        retrying(faulty, clock, count=1000, seconds=3.0).read(b"a")
    assert clock.now <= 3.0


def test_what_cannot_get_better_is_not_tried_again():
    clock = Clock()
    base = MemoryBase()
    with pytest.raises(ObjectNotFoundError):
        retrying(base, clock).read(b"absent")
    assert clock.pauses == []
    assert len(base.reads) == 1


def test_a_create_only_write_is_never_repeated():
    clock = Clock()
    faulty = FaultyBase(MemoryBase(), Faults())
    faulty.is_down = True
    with pytest.raises(BaseUnavailableError):
        retrying(faulty, clock).write(b"a", b"x", if_absent=True)
    assert clock.pauses == []


def test_a_listing_that_breaks_goes_on_behind_the_last_key():
    keys = [b"k%04d" % number for number in range(5000)]
    faulty = FaultyBase(MemoryBase(dict.fromkeys(keys, b"x")), Faults(error=0.5), seed=3)
    pages = list(retrying(faulty, Clock(), count=20).list(b""))
    assert [key for page in pages for key in page.keys] == keys


# -- meter -------------------------------------------------------------------------------------------------------------


def test_requests_bytes_and_failures_are_counted():
    metered = MeteredBase(MemoryBase({b"a": b"12345"}))
    metered.read(b"a")
    metered.read(b"a", 1, 2)
    metered.stat(b"a")
    with pytest.raises(ObjectNotFoundError):
        metered.read(b"absent")
    reading = metered.reading()
    assert (reading.requests, reading.bytes, reading.failures) == (4, 7, 1)


def test_the_latency_is_told_by_reads_that_are_alone():
    faulty = FaultyBase(MemoryBase({b"a": b"x"}), Faults(latency_seconds=0.02))
    metered = MeteredBase(faulty)
    metered.read(b"a")
    assert 0.02 <= metered.latency_seconds < 0.1
    faulty.faults = Faults(latency_seconds=0.2)
    threads = [threading.Thread(target=metered.read, args=(b"a",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metered.latency_seconds < 0.1


# -- the parallel lister -----------------------------------------------------------------------------------------------


def lister(keys, page_size, delay=0.0):
    calls = []

    def fetch(after):
        calls.append(after)
        if delay:
            time.sleep(delay)
        left = [key for key in keys if key > after]
        page = left[:page_size]
        return Page(page, np.ones(len(page), np.uint64), np.zeros((len(page), 16), np.uint8)), len(left) > page_size

    return fetch, calls


@given(st.lists(st.binary(min_size=1, max_size=8), unique=True, max_size=300), st.integers(1, 50), st.integers(1, 8))
def test_every_key_is_listed_once_and_in_order(keys, page_size, threads):
    keys = sorted(b"p/" + key for key in keys if key < b"\xff")
    fetch, _ = lister(keys, page_size)
    found = [key for page in list_ranges(b"p/", b"", fetch, threads) for key in page.keys]
    assert found == keys


def test_a_flat_listing_is_spread_over_threads():
    prefix = b"a/folder/with/a/name/of/more/than/fifty/characters/images/"
    keys = [prefix + b"%08d.jpg" % number for number in range(40_000)]
    fetch, calls = lister(keys, 500, delay=0.03)
    started = time.perf_counter()
    found = [key for page in list_ranges(prefix, b"", fetch, 8) for key in page.keys]
    assert found == keys
    assert time.perf_counter() - started < 0.03 * 80 / 2
    assert len(calls) < 160


def test_an_error_of_one_thread_ends_the_listing():
    keys = [b"%05d" % number for number in range(5000)]
    fetch, _ = lister(keys, 100)

    def failing(after):
        if after > b"02000":
            raise AccessDeniedError("no")
        return fetch(after)

    with pytest.raises(AccessDeniedError):
        list(list_ranges(b"", b"", failing, 4))


def test_a_listing_may_be_left_unfinished():
    keys = [b"%05d" % number for number in range(5000)]
    fetch, calls = lister(keys, 100)
    pages = list_ranges(b"", b"", fetch, 4)
    next(pages)
    next(pages)
    pages.close()
    time.sleep(0.1)
    count = len(calls)
    time.sleep(0.1)
    assert len(calls) == count


@given(st.binary(max_size=60), st.binary(max_size=60), st.integers(0, 95**50))
def test_a_key_between_lies_between(low, high, distance):
    middle = between(low, high, distance)
    assert middle is None or low < middle < high


# -- translation -------------------------------------------------------------------------------------------------------


def test_every_error_of_obstore_is_translated():
    theirs = {cls for cls in vars(foreign).values() if isinstance(cls, type) and issubclass(cls, BaseException)}
    assert theirs == set(translate.OBSTORE)
    for cls in theirs:
        with pytest.raises(SwingbyError) as error:
            translate.raise_obstore(cls("boom\nwith a secret trace"), b"key", "bucket")
        assert "bucket" in str(error.value)
        assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("NoSuchBucket", BaseNotFoundError),
        ("NoSuchKey", ObjectNotFoundError),
        ("InvalidAccessKeyId", AuthenticationError),
        ("SignatureDoesNotMatch", AuthenticationError),
        ("RequestTimeTooSkewed", AuthenticationError),
        ("AccessDenied", AccessDeniedError),
        ("PreconditionFailed", ObjectExistsError),
        ("InternalError", BaseUnavailableError),
    ],
)
def test_codes_of_s3_say_what_to_do(code, kind):
    with pytest.raises(kind) as error:
        translate.raise_for_status(400, f"<Error><Code>{code}</Code></Error>".encode(), b"a/b", "bucket")
    assert "s3://bucket/a/b" in str(error.value)


# -- credentials -------------------------------------------------------------------------------------------------------


def test_credentials_come_from_settings_or_are_asked_for(monkeypatch):
    assert provider_of(S3(access_key_id="a", secret_access_key="b"))() == Credentials("a", "b", None)
    assert provider_of(S3(anonymous=True))() is None
    monkeypatch.setattr("swingby.base.credentials._botocore_chain", lambda: None)
    with pytest.raises(AuthenticationError, match="AWS_ACCESS_KEY_ID"):
        provider_of(S3())
    assert "secret" not in repr(Credentials("a", "secret", None))


# -- POSIX -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def posix():
    return PosixBase("file:test", 4)


def key_of(path):
    return os.fsencode(str(path)).lstrip(b"/")


def listed(posix, folder):
    prefix = key_of(folder) + b"/"
    return [key[len(prefix) :] for page in posix.list(prefix) for key in page.keys]


def test_links_are_followed_and_circles_and_broken_ones_left_out(posix, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file-link").symlink_to("real/a")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "real" / "up").symlink_to("..")
    os.mkfifo(tmp_path / "pipe")
    assert listed(posix, tmp_path) == [b"file-link", b"link/a", b"real/a"]


def test_names_that_are_not_utf8_are_listed_and_read(posix, tmp_path):
    name = b"caf\xe9"
    with open(os.fsencode(str(tmp_path)) + b"/" + name, "wb") as file:
        file.write(b"x")
    assert listed(posix, tmp_path) == [name]
    assert bytes(posix.read(key_of(tmp_path) + b"/" + name).data) == b"x"


def test_a_directory_a_pipe_and_dots_are_no_objects(posix, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for key in (
        key_of(tmp_path),
        key_of(tmp_path / "pipe"),
        key_of(tmp_path) + b"/../x",
        key_of(tmp_path / "pipe") + b"/x",
    ):
        with pytest.raises(ObjectNotFoundError):
            posix.read(key)


def test_opening_a_file_as_a_folder_says_so(posix, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(BaseNotFoundError, match="single file"):
        list(posix.list(key_of(tmp_path / "file") + b"/"))


def test_what_may_not_be_read_is_denied(posix):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = os.path.join(folder, "secret")
        with open(path, "wb") as file:
            file.write(b"x")
        os.chmod(path, 0)
        child = os.fork()
        if child == 0:
            if os.getuid() == 0:  # root may read everything
                os.setuid(65534)
            try:
                posix.read(key_of(path))
            except AccessDeniedError:
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0


def test_a_file_that_grows_while_it_is_read_is_changed(posix, tmp_path, monkeypatch):
    path = tmp_path / "grows"
    path.write_bytes(b"x" * 100)
    real = os.pread

    def growing(descriptor, size, offset):
        data = real(descriptor, size, offset)
        with open(path, "ab") as file:
            file.write(b"more")
        return data

    monkeypatch.setattr(os, "pread", growing)
    with pytest.raises(ObjectChangedError):
        posix.read(key_of(path))
