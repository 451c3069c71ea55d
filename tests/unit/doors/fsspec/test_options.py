"""Options of a target as settings; URLs and paths."""

from __future__ import annotations

import pytest

pytest.importorskip("fsspec", reason="fsspec is not installed")
from swingby.doors.fsspec import options
from swingby.doors.fsspec.filesystem import SwingbyFileSystem
from swingby.errors import ConfigError


def test_where_and_as_whom_are_taken_as_s3fs_takes_them():
    given = {
        "key": "k",
        "secret": "s",
        "token": None,
        "anon": False,
        "client_kwargs": {"endpoint_url": "http://here", "region_name": "r"},
        "config_kwargs": {"s3": {"addressing_style": "virtual"}, "max_pool_connections": 9},
        "default_block_size": 5,
    }
    assert options.overrides("s3", given, {"s3.region": "stronger"}) == {
        "s3.access_key_id": "k",
        "s3.secret_access_key": "s",
        "s3.anonymous": False,
        "s3.endpoint": "http://here",
        "s3.region": "stronger",
        "s3.path_style": False,
    }


@pytest.mark.parametrize(
    ("scheme", "given", "named"),
    [
        ("s3", {"requester_pays": True}, "requester_pays"),
        ("s3", {"client_kwargs": {"verify": False}}, "verify"),
        ("s3", {"config_kwargs": {"signature_version": "s3"}}, "signature_version"),
        ("file", {"key": "k"}, "key"),
    ],
)
def test_what_would_change_what_is_read_is_not_passed_over(scheme, given, named):
    with pytest.raises(ConfigError, match=named) as caught:
        options.overrides(scheme, given, None)
    assert "settings=" in str(caught.value)


def test_a_url_may_name_its_target():
    strip, said = SwingbyFileSystem._strip_protocol, SwingbyFileSystem._get_kwargs_from_urls
    assert (strip("swingby://s3://bucket/key/"), said("swingby://s3://bucket/key")) == (
        "bucket/key",
        {"target_protocol": "s3"},
    )
    assert (strip("swingby://bucket/key"), said("swingby://bucket/key")) == ("bucket/key", {})
    assert strip(["swingby://file:///a", "/b/"]) == ["/a", "/b"]
    assert strip("swingby://") == ""


def test_paths_are_the_targets_own():
    assert options.path_of("file", "file:///a/../b/") == "/b"
    assert options.path_of("file", "/odd/a:b") == "/odd/a:b"
    assert options.path_of("s3", "/bucket/a//b/") == "bucket/a//b"
    assert options.scheme_of("s3a") == "s3"


def test_equal_options_are_one_instance_and_no_secret_is_shown():
    def make(secret):
        return SwingbyFileSystem("s3", {"key": "k", "secret": secret, "endpoint_url": "http://127.0.0.1:1"})

    assert make("one") is make("one")
    assert make("one") is not make("two")
    assert make("one") != make("two")
    assert "one" not in repr(make("one")) + make("one").fsid
