"""URLs, selections, plans, checksums, versions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swingby.core.checksum import name_digest, word_of
from swingby.core.containers.location import Where
from swingby.core.object import key_bytes, key_text, version_of_etag, version_of_mtime, versions_of_mtimes
from swingby.core.plan import chunk_sizes, object_fetches
from swingby.core.segment import CHUNK_BYTES, Origin, chunk_extent, chunks_between, object_segment
from swingby.core.selection import dataset_digest, select
from swingby.core.url import Address, parse
from swingby.errors import UrlError

ORIGIN = Origin("base", "")


# -- URLs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("s3://bucket/a/b", Address("s3", "bucket", "a/b")),
        ("s3://bucket", Address("s3", "bucket", "")),
        ("s3://bucket/a/../b//c/", Address("s3", "bucket", "a/../b//c/")),
        ("s3://bucket/100%25 ü", Address("s3", "bucket", "100%25 ü")),
        ("/data/x", Address("file", "", "data/x")),
        ("/data/../x/", Address("file", "", "x/")),
        ("/", Address("file", "", "")),
        ("file:///data/a%20b", Address("file", "", "data/a b")),
        ("file://localhost/x", Address("file", "", "x")),
    ],
)
def test_urls_are_taken_apart(url, address):
    assert parse(url) == address


def test_relative_paths_are_of_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse("x/y").path == str(tmp_path).lstrip("/") + "/x/y"
    assert parse("x").prefix == str(tmp_path).lstrip("/") + "/x/"


@pytest.mark.parametrize("url", ["", "s3://", "s3:///key", "file://host/x", "file://x", "a\0b"])
def test_urls_without_sense_are_refused(url):
    with pytest.raises(UrlError):
        parse(url)


# -- selections --------------------------------------------------------------------------------------------------------


def test_patterns_select_and_exclude():
    keys = [b"a/1.jpg", b"a/2.txt", b"b/1.jpg", "ü/1.jpg".encode(), b"new\nline.jpg"]
    assert select(keys, [], []) is None
    assert select(keys, ["*.jpg"], []).tolist() == [0, 2, 3, 4]
    assert select(keys, ["*.jpg"], ["a/*", "new*"]).tolist() == [2, 3]
    assert select(keys, [], ["*"]).tolist() == []
    assert select(keys, ["ü*"], []).tolist() == [3]


def test_filters_go_into_the_name_of_a_dataset():
    names = {
        dataset_digest("m", *filters)
        for filters in [([], []), (["a"], []), ([], ["a"]), (["a", "b"], []), (["b", "a"], [])]
    }
    assert len(names) == 5
    assert dataset_digest("m", [], []) == "m"


def whole(segment):
    return Where(b"key", 0, segment.size_bytes, segment.size_bytes, bytes(16))


# -- plans -------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 40 * CHUNK_BYTES), st.sets(st.integers(0, 39)), st.sampled_from([1, CHUNK_BYTES, 16 << 20]))
def test_fetches_cover_the_absent_chunks_once_and_are_bounded(size, chunks, range_bytes):
    segment = object_segment(ORIGIN, b"key", size, bytes(16))
    wanted = sorted(chunk for chunk in chunks if chunk < segment.chunk_count)
    fetches = object_fetches(segment, whole(segment), wanted, range_bytes=range_bytes)
    covered = []
    for fetch in fetches:
        sizes = chunk_sizes(fetch)
        assert sum(sizes) == fetch.size <= max(range_bytes, CHUNK_BYTES)
        assert fetch.start == fetch.offset == fetch.chunk * CHUNK_BYTES
        assert [chunk_extent(segment, fetch.chunk + number)[1] for number in range(len(sizes))] == sizes
        covered += range(fetch.chunk, fetch.chunk + len(sizes))
    assert covered == wanted


def test_neighbours_are_joined():
    segment = object_segment(ORIGIN, b"key", 10 * CHUNK_BYTES, bytes(16))
    fetches = object_fetches(segment, whole(segment), [0, 1, 2, 3, 4, 6, 7], range_bytes=4 * CHUNK_BYTES)
    assert [(fetch.chunk, fetch.size // CHUNK_BYTES) for fetch in fetches] == [(0, 4), (4, 1), (6, 2)]


@given(st.integers(0, 100 << 20), st.integers(0, 100 << 20))
def test_chunks_between_offsets_hold_all_of_them(start, length):
    chunks = chunks_between(start, start + length)
    if length:
        assert chunks[0] * CHUNK_BYTES <= start < (chunks[0] + 1) * CHUNK_BYTES
        assert chunks[-1] * CHUNK_BYTES < start + length <= (chunks[-1] + 1) * CHUNK_BYTES


# -- checksums and versions --------------------------------------------------------------------------------------------


def test_a_word_is_never_zero_and_tells_bytes_apart():
    assert word_of(b"") != 0
    assert word_of(b"a") != word_of(b"b")


def test_a_name_digest_tells_parts_apart():
    assert name_digest(b"ab", b"c") != name_digest(b"a", b"bc")
    assert len(name_digest(b"x")) == 16


def test_versions_of_etags_ignore_quotes_and_weakness():
    assert version_of_etag('"abc"') == version_of_etag("abc") == version_of_etag('W/"abc"')
    assert version_of_etag('"5d41402abc4b2a76b9719d911017c592"').hex() == "5d41402abc4b2a76b9719d911017c592"
    assert version_of_etag('"5d41402abc4b2a76b9719d911017c592-2"') != version_of_etag(
        '"5d41402abc4b2a76b9719d911017c592"'
    )
    assert len(version_of_etag("z" * 32)) == 16


def test_versions_of_mtimes_agree_one_by_one_and_together():
    times = [0, -1, 1_700_000_000_123_456_789]
    assert [row.tobytes() for row in versions_of_mtimes(times)] == [version_of_mtime(time) for time in times]


@given(st.binary(max_size=30))
def test_any_file_name_survives_as_text(name):
    assert key_bytes(key_text(name)) == name


def test_segment_ids_depend_on_key_size_and_version():
    ids = {
        object_segment(ORIGIN, *parts).id
        for parts in [(b"a", 1, bytes(16)), (b"b", 1, bytes(16)), (b"a", 2, bytes(16)), (b"a", 1, b"\1" * 16)]
    }
    assert len(ids) == 4
    assert np.unique([len(identity) for identity in ids]).tolist() == [16]
