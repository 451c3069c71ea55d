"""Folders over flat keys, and over directories."""

from __future__ import annotations

import os
import random

import pytest

from swingby.base.browse import FlatBrowser
from swingby.base.posix import PosixBase
from swingby.base.posix_browse import PosixBrowser
from swingby.base.s3_browse import _parse, _seconds
from swingby.errors import AccessDeniedError, ObjectNotFoundError
from swingby.testing.memory_base import MemoryBase


def names(browser, prefix):
    return [(entry.key, entry.info is None) for piece in browser.folder(prefix) for entry in piece]


@pytest.mark.parametrize("seed", range(5))
def test_a_flat_base_has_the_folders_its_keys_say(seed):
    rng = random.Random(seed)
    keys = {
        b"/".join(bytes(rng.choice(b"ab.0\xf0") for _ in range(rng.randint(1, 2))) for _ in range(rng.randint(1, 3)))
        for _ in range(4000)
    }
    base = MemoryBase({b"p/" + key: key for key in keys})
    expected = {(b"p/" + key.partition(b"/")[0], b"/" in key) for key in keys}
    found = names(FlatBrowser(base), b"p/")
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_a_large_folder_is_stepped_over():
    base = MemoryBase({b"p/a/%05d" % n: b"" for n in range(5000)} | {b"p/b": b"1", b"p/a0": b"2"})
    pages = []
    listing = base.list
    base.list = lambda *a: (pages.append(a) or page for page in listing(*a))
    assert names(FlatBrowser(base), b"p/") == [(b"p/a", True), (b"p/a0", False), (b"p/b", False)]
    assert len(pages) == 2


def test_nothing_under_a_prefix_is_no_folder():
    with pytest.raises(ObjectNotFoundError):
        list(FlatBrowser(MemoryBase({b"p": b""})).folder(b"p/"))


def test_directories_are_read_as_they_are(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"123")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    browser = PosixBrowser(PosixBase("file:test", 4))
    prefix = os.fsencode(str(tmp_path))[1:] + b"/"
    assert sorted(names(browser, prefix)) == [(prefix + b"empty", True), (prefix + b"file", False)]
    assert browser.object(prefix + b"file").info.size == 3
    for key in (b"empty", b"none", b"pipe"):
        with pytest.raises(ObjectNotFoundError):
            browser.object(prefix + key)
    for folder in (b"file/", b"none/"):
        with pytest.raises(ObjectNotFoundError):
            list(browser.folder(prefix + folder))


def test_a_directory_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(AccessDeniedError):
        list(PosixBrowser(PosixBase("file:test", 4)).folder(os.fsencode(str(tmp_path))[1:] + b"/"))


def test_listings_of_buckets_are_understood():
    body = (
        b'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        b"<IsTruncated>true</IsTruncated><NextContinuationToken>next</NextContinuationToken>"
        b"<Contents><Key>p/</Key><Size>0</Size></Contents>"
        b"<Contents><Key>p/a%20b</Key><Size>7</Size><LastModified>2026-01-31T12:00:00.500Z</LastModified>"
        b"<ETag>&quot;00112233445566778899aabbccddeeff&quot;</ETag></Contents>"
        b"<CommonPrefixes><Prefix>p/c/</Prefix></CommonPrefixes></ListBucketResult>"
    )
    entries, is_there, following = _parse(body, b"p/")
    assert [(one.key, one.info and one.info.size) for one in entries] == [(b"p/c", None), (b"p/a b", 7)]
    assert (entries[1].etag, entries[1].modified) == ("00112233445566778899aabbccddeeff", 1769860800.5)
    assert (is_there, following) == (True, "next")
    assert _parse(b"<ListBucketResult/>", b"q/") == ([], False, "")
    assert _seconds(None) is None
