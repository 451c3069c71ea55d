"""`http://` and `https://`: single objects and lists, on servers with all kinds of habits."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys

import pytest

import swingby
from swingby import config
from swingby.base.web import WebBase
from swingby.errors import (
    AccessDeniedError,
    AuthenticationError,
    BaseNotFoundError,
    BaseUnavailableError,
    ObjectChangedError,
    ObjectNotFoundError,
    TruncatedReadError,
    UrlError,
)

DATA = bytes(range(256)) * 40


@pytest.fixture
def base(web):
    web.objects[b"file.bin"] = DATA
    made = WebBase("http", web.host, config.load().fetch, 4)
    yield made
    made.close()


@pytest.fixture
def plain_server(tmp_path):
    """Python's own server, which knows no ranges and no entity tags; its URL and directory."""
    folder = tmp_path / "served"
    folder.mkdir()
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        port = re.search(r"port (\d+)", process.stdout.readline())[1]
        yield f"http://127.0.0.1:{port}", folder
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_an_object_is_read_by_its_url_whole_in_parts_and_into_a_buffer(web, home):
    web.objects[b"data/file.bin"] = DATA
    url, settings = f"http://{web.host}/data/file.bin", {"home": home}
    assert swingby.read(url, settings=settings) == DATA
    assert swingby.read(url, 100, 300, settings=settings) == DATA[100:300]
    buffer = bytearray(50)
    assert swingby.read_into(url, buffer, len(DATA) - 20, settings=settings) == 20
    assert bytes(buffer[:20]) == DATA[-20:]


def test_an_object_that_changed_is_read_anew_and_a_version_of_it_refused(web, base, home):
    url, settings = f"http://{web.host}/file.bin", {"home": home}
    assert swingby.read(url, settings=settings) == DATA
    old = base.stat(b"file.bin")
    web.objects[b"file.bin"] = b"changed"
    assert swingby.read(url, settings=settings) == b"changed"
    for part in ((0, None), (1, 2), (5000, 10), (0, 0)):
        with pytest.raises(ObjectChangedError):
            base.read(b"file.bin", *part, old.version)


def test_a_list_is_a_dataset(web, home):
    web.objects[b"data/list.txt"] = (
        f"\ufeff# two places\r\nb/two.bin\r\n\r\na/one bin\r\n  http://{web.host}/other.bin?version=1  \r\nb/two.bin".encode()
    )
    web.objects |= {b"data/b/two.bin": b"two", b"data/a/one bin": b"one", b"other.bin?version=1": b"other"}
    with swingby.open(f"http://{web.host}/data/list.txt", settings={"home": home}) as dataset:
        keys = ["a/one bin", "b/two.bin", f"http://{web.host}/other.bin?version=1"]
        assert list(dataset.keys) == keys
        assert [bytes(view) for view in dataset.batch([2, 1, 0]).views] == [b"other", b"two", b"one"]
        web.objects[b"data/b/two.bin"] = b"TWO"
    with swingby.open(
        f"http://{web.host}/data/list.txt", refresh="always", include="*.bin", settings={"home": home}
    ) as dataset:
        assert bytes(dataset[0].data) == b"TWO"


def test_an_object_of_a_list_that_changed_under_the_snapshot_is_an_error(web, home):
    web.objects[b"a"] = b"first"
    settings = {"home": home, "memory.budget_bytes": 0, "burst.budget_bytes": 0}
    with swingby.open(f"http://{web.host}/list.txt", settings=settings) as dataset:
        web.objects[b"a"] = b"other"
        with pytest.raises(ObjectChangedError):
            _ = dataset[0].data


def test_a_list_with_an_object_that_is_not_there_is_an_error_that_names_it(web):
    web.objects |= {b"list.txt": b"a\nmissing\n", b"a": b"x"}
    with pytest.raises(ObjectNotFoundError, match="/missing"):
        list(WebBase("http", f"{web.host}/list.txt", config.load().fetch, 4).list(b""))


@pytest.mark.parametrize("line", ["ftp://host/a", "file:///etc/passwd", "http://me:hush@host/a", "data:x"])
def test_a_line_that_is_no_web_address_is_an_error(web, line):
    web.objects[b"list.txt"] = line.encode()
    with pytest.raises(UrlError, match="no web address") as error:
        list(WebBase("http", f"{web.host}/list.txt", config.load().fetch, 4).list(b""))
    assert "hush" not in str(error.value)


def test_a_list_that_is_none_is_said(web, plain_server):
    limits = config.load().fetch
    url, _ = plain_server
    with pytest.raises(UrlError, match="no plain text"):
        list(WebBase("http", url.partition("//")[2] + "/", limits, 4).list(b""))
    web.objects[b"list.txt"] = b"\xff\xfe"
    with pytest.raises(UrlError, match="not UTF-8"):
        list(WebBase("http", f"{web.host}/list.txt", limits, 4).list(b""))
    with pytest.raises(BaseNotFoundError, match="no such list"):
        list(WebBase("http", f"{web.host}/other.txt", limits, 4).list(b""))
    with pytest.raises(UrlError, match="is a host"):
        list(WebBase("http", web.host, limits, 4).list(b""))


def test_https_is_checked_against_the_certificates_of_the_system(web, home, tmp_path, monkeypatch):
    certificate, key = str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, *names]
    if shutil.which("openssl") is None:
        pytest.skip("not installed: openssl")
    subprocess.run(made, check=True, capture_output=True)
    web.encrypt(certificate, key)
    web.objects |= {b"file.bin": DATA, b"in/list.txt": b"a\n", b"in/a": b"x"}
    web.redirects[b"down"] = f"http://{web.host}/file.bin"
    base = WebBase("https", web.host, config.load().fetch, 4)
    with pytest.raises(BaseUnavailableError, match="certificate"):
        base.read(b"file.bin")
    base.close()
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    settings = {"home": home}
    assert swingby.read(f"https://{web.host}/file.bin", 5, 9, settings=settings) == DATA[5:9]
    with swingby.open(f"https://{web.host}/in/list.txt", settings=settings) as dataset:
        assert bytes(dataset[0].data) == b"x"
    with pytest.raises(UrlError, match="another protocol"):
        swingby.read(f"https://{web.host}/down", settings=settings)


def test_redirects_are_followed_and_circles_are_not(web, base):
    web.redirects |= {
        b"old": "/older",
        b"older": f"http://{web.host}/file.bin",
        b"circle": "/circle",
        b"out": "ftp://x/y",
    }
    assert bytes(base.read(b"old", 5, 5).data) == DATA[5:10]
    assert base.stat(b"old") == base.stat(b"file.bin")
    with pytest.raises(UrlError, match="more than 10 times"):
        base.read(b"circle")
    with pytest.raises(UrlError, match="another protocol"):
        base.read(b"out")


@pytest.mark.parametrize("ranges", [True, False])
def test_a_head_that_is_refused_is_asked_by_a_get_of_one_byte(web, base, ranges):
    web.habits.head, web.habits.ranges = False, ranges
    assert base.stat(b"file.bin").size == len(DATA)
    web.objects[b"empty"] = b""
    assert base.stat(b"empty").size == 0
    assert [method for method, _ in web.requests][:2] == ["HEAD", "GET"]


def test_without_an_entity_tag_the_time_and_the_size_are_the_version(web, base):
    web.habits.etag = False
    old = base.stat(b"file.bin")
    assert base.read(b"file.bin", 3, 4).info == old
    web.objects[b"file.bin"] = DATA + b"x"
    with pytest.raises(ObjectChangedError):
        base.read(b"file.bin", 3, 4, old.version)


@pytest.mark.parametrize("call", ["stat", "read"])
def test_a_server_that_tells_no_version_is_refused(web, base, call):
    web.habits.etag = web.habits.modified = False
    with pytest.raises(UrlError, match="neither ETag nor Last-Modified"):
        getattr(base, call)(b"file.bin")


def test_an_encoded_object_comes_as_it_is_sent_with_the_size_that_was_told(web, base):
    packed = gzip.compress(DATA)
    web.objects[b"file.gz"], web.habits.encoding = packed, "gzip"
    payload = base.read(b"file.gz")
    assert bytes(payload.data) == packed
    assert payload.info == base.stat(b"file.gz")
    assert payload.info.size == len(packed)
    assert bytes(base.read(b"file.gz", 10, 20).data) == packed[10:30]


@pytest.mark.parametrize("length", [True, False])
def test_a_body_that_ends_early_is_an_error(web, base, length):
    web.habits.short_bytes, web.habits.length = 7, length
    with pytest.raises(TruncatedReadError):
        base.read(b"file.bin")
    web.habits.ranges = False
    with pytest.raises(TruncatedReadError):
        base.read(b"file.bin", len(DATA) - 10, 10)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, AuthenticationError),
        (403, AccessDeniedError),
        (404, ObjectNotFoundError),
        (410, ObjectNotFoundError),
        (418, UrlError),
        (429, BaseUnavailableError),
        (500, BaseUnavailableError),
        (503, BaseUnavailableError),
    ],
)
def test_refusals_are_told_apart_and_show_no_query(web, base, status, kind):
    web.habits.status = status
    for call in (base.read, base.stat):
        with pytest.raises(kind) as error:
            call(b"file.bin?signature=hush")
        assert type(error.value) is kind
        assert "hush" not in str(error.value) + repr(error.value.facts())


def test_no_server_is_said_without_the_query():
    base = WebBase("http", "127.0.0.1:1", config.load().fetch, 4)
    with pytest.raises(BaseUnavailableError, match=r"127\.0\.0\.1:1 does not answer") as error:
        base.read(b"file?signature=hush")
    assert "hush" not in str(error.value) + repr(error.value.facts())


def test_the_web_is_not_written(base):
    for call in (base.delete, lambda key: base.write(key, b"x")):
        with pytest.raises(AccessDeniedError, match="only read"):
            call(b"file.bin")


def test_signatures_are_in_no_name(web, home, caplog):
    web.objects |= {b"list.txt?signature=hush": b"a\n", b"a": b"x"}
    url = f"http://{web.host}/list.txt?signature=hush"
    with swingby.open(url, settings={"home": home, "keeper.mode": "off"}) as dataset:
        assert bytes(dataset[0].data) == b"x"
        assert "hush" not in repr(dataset) + dataset._reader.manifest.root.base_id
    assert "without a keeper" in caplog.text
    assert "hush" not in caplog.text
    with pytest.raises(UrlError) as error:
        swingby.read(f"http://me:hush@{web.host}/a", settings={"home": home})
    assert "hush" not in str(error.value)
    with pytest.raises(FileNotFoundError) as error:
        swingby.read(f"http://{web.host}/none?signature=hush", settings={"home": home})
    assert "hush" not in str(error.value) + repr(error.value.facts())


def test_files_of_a_server_without_ranges_and_entity_tags(plain_server, home):
    url, folder = plain_server
    (folder / "file one.bin").write_bytes(DATA)
    (folder / "list.txt").write_text("file one.bin\n")
    settings = {"home": home}
    assert swingby.read(f"{url}/file one.bin", 1000, 1100, settings=settings) == DATA[1000:1100]
    with swingby.open(f"{url}/list.txt", settings=settings) as dataset:
        assert bytes(dataset[0].data) == DATA
    os.utime(folder / "file one.bin", (1, 1))
    (folder / "file one.bin").write_bytes(DATA[::-1])
    os.utime(folder / "file one.bin", (2, 2))
    assert swingby.read(f"{url}/file%20one.bin", settings=settings) == DATA[::-1]
