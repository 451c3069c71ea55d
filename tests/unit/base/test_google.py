"""`gs://` through obstore, against a double of the XML interface: no emulator serves its listings.

What only the service itself could show is not tested: docs/compatibility.md says so.
"""

from __future__ import annotations

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote_to_bytes, urlsplit
from xml.sax.saxutils import escape

import pytest

import swingby
from swingby import config
from swingby.base.google import google_base
from swingby.errors import AccessDeniedError, AuthenticationError, BaseNotFoundError, BaseUnavailableError, UrlError
from swingby.testing.base_suite import ODD_KEYS, BaseSuite

PAGE_ENTRIES = 5


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_PUT(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        asked = parse_qs(urlsplit(self.path).query)
        if "partNumber" in asked:
            self.server.parts[int(asked["partNumber"][0])] = data
            self.send(200, b"", {"ETag": etag(data)})
            return
        if self.headers.get("x-goog-if-generation-match") == "0" and self.key in self.server.objects:
            self.refuse(412, "PreconditionFailed")
            return
        self.server.objects[self.key] = data
        self.send(200, b"", {"ETag": etag(data)})

    def do_POST(self):
        """A large upload's begin and end."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "uploads" in parse_qs(urlsplit(self.path).query, keep_blank_values=True):
            self.server.parts = {}
            answer = "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
        else:
            data = b"".join(self.server.parts[number] for number in sorted(self.server.parts))
            self.server.objects[self.key] = data
            answer = f"<CompleteMultipartUploadResult><ETag>{escape(etag(data))}</ETag></CompleteMultipartUploadResult>"
        self.send(200, answer.encode(), {})

    def do_DELETE(self):
        if self.server.objects.pop(self.key, None) is None:
            self.refuse(404, "NoSuchKey")
        else:
            self.send(204, b"", {})

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if self.server.refusal:
            self.refuse(403, self.server.refusal)
        elif self.bucket != "bucket":
            self.refuse(404, "NoSuchBucket")
        elif not self.key:
            self.list()
        elif self.key not in self.server.objects:
            self.refuse(404, "NoSuchKey")
        else:
            self.give(self.server.objects[self.key])

    def give(self, data):
        asked = re.match(r"bytes=(\d+)-(\d*)$", self.headers.get("Range", ""))
        if not asked:
            self.send(200, data, {"ETag": etag(data)})
            return
        start, stop = int(asked[1]), min(int(asked[2] or len(data)) + 1, len(data))
        if start >= len(data):
            self.refuse(416, "InvalidRange")
            return
        told = {"ETag": etag(data), "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
        self.send(206, data[start:stop], told)

    def list(self):
        asked = parse_qs(urlsplit(self.path).query, errors="surrogateescape")
        prefix = asked.get("prefix", [""])[0].encode()
        after = asked.get("continuation-token", [""])[0].encode()
        keys = sorted(key for key in self.server.objects if key.startswith(prefix) and key > after)
        body = "<ListBucketResult>"
        for key in keys[:PAGE_ENTRIES]:
            data = self.server.objects[key]
            body += (
                f"<Contents><Key>{escape(key.decode())}</Key><Size>{len(data)}</Size><ETag>{escape(etag(data))}</ETag>"
            )
            body += "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        if len(keys) > PAGE_ENTRIES:
            body += f"<IsTruncated>true</IsTruncated><NextContinuationToken>{escape(keys[PAGE_ENTRIES - 1].decode())}"
            body += "</NextContinuationToken>"
        self.send(200, (body + "</ListBucketResult>").encode(), {})

    @property
    def bucket(self):
        return urlsplit(self.path).path[1:].partition("/")[0]

    @property
    def key(self):
        return unquote_to_bytes(urlsplit(self.path).path[1:].partition("/")[2])

    def refuse(self, status, code):
        self.send(status, f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode(), {})

    def send(self, status, body, headers):
        self.send_response(status)
        for name, value in {"Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def etag(data):
    return f'"{hashlib.md5(data).hexdigest()}"'


@pytest.fixture
def double():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.objects, server.refusal = {}, ""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    server.settings = {"gs.endpoint": f"http://127.0.0.1:{server.server_port}"}
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def base_of(settings, bucket="bucket"):
    loaded = config.load(settings)
    return google_base(bucket, loaded.gs, loaded.fetch)


class TestGoogleBaseOnADouble(BaseSuite):
    odd_keys = tuple(key for key in ODD_KEYS if not set(b"\n\t") & set(key))

    @pytest.fixture(autouse=True)
    def settings(self, double):
        self.settings = double.settings

    def make_base(self):
        return base_of(self.settings)

    def make_absent(self, base):
        return base_of(self.settings, "no-such-bucket"), b""


def test_a_dataset_is_read_through_a_keeper(double, home):
    double.objects |= {b"in/a": b"first", b"in/b": b"second", b"in/": b""}
    with swingby.open("gs://bucket/in", settings=double.settings | {"home": home}) as dataset:
        assert [bytes(view) for view in dataset.batch([1, 0]).views] == [b"second", b"first"]
    assert swingby.read("gs://bucket/in/a", settings=double.settings | {"home": home}) == b"first"


def test_refusals_say_what_helps(double):
    double.objects[b"a"] = b"x"
    double.refusal = "AccessDenied"
    with pytest.raises(AccessDeniedError, match="Storage Object Viewer"):
        base_of(double.settings).read(b"a")
    double.refusal = "AuthenticationRequired"
    with pytest.raises(AuthenticationError, match="GOOGLE_APPLICATION_CREDENTIALS"):
        base_of(double.settings).read(b"a")
    double.refusal = ""
    with pytest.raises(BaseNotFoundError):
        base_of(double.settings, "other").read(b"a")
    with pytest.raises(UrlError, match="cannot be named"):
        base_of(double.settings).read(b"a//b")


def test_a_file_of_credentials_that_is_none_is_said(tmp_path):
    with pytest.raises(AuthenticationError, match="GOOGLE_APPLICATION_CREDENTIALS"):
        base_of({"gs.credentials_file": str(tmp_path / "none.json")}).stat(b"a")
    (tmp_path / "wrong.json").write_text('{"type": "service_account", "private_key": "hush"}')
    with pytest.raises(AuthenticationError) as error:
        base_of({"gs.credentials_file": str(tmp_path / "wrong.json")}).stat(b"a")
    assert "hush" not in str(error.value)


def test_no_server_is_said():
    with pytest.raises(BaseUnavailableError):
        base_of({"gs.endpoint": "http://127.0.0.1:1"}).stat(b"a")


def test_the_environment_says_where_and_who(monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "localhost:4443")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/secrets/robot.json")
    found = config.load().gs
    assert (found.endpoint, found.credentials_file) == ("localhost:4443", "/secrets/robot.json")
    assert base_of({}).id == "gs:http://localhost:4443/bucket"
