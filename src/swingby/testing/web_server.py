"""A web server of this process for tests: ranges or none, validators or none, redirects, refusals.

Keys are request targets, as they were sent, without the first slash.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

LIST = b"list.txt"

_RANGE = re.compile(r"bytes=(\d+)-(\d*)$")


class Habits(msgspec.Struct):
    """What a server does.

    Attributes:
        ranges: it answers a Range header with a part.
        etag, modified: it tells an ETag, a Last-Modified.
        head: it answers HEAD; otherwise 403, as a signed URL's does.
        length: it tells the length of a body; otherwise it sends chunks.
        short_bytes: bodies end so many bytes early.
        encoding: the Content-Encoding that it tells.
        status: of every answer; 0: what is right.
    """

    ranges: bool = True
    etag: bool = True
    modified: bool = True
    head: bool = True
    length: bool = True
    short_bytes: int = 0
    encoding: str = ""
    status: int = 0


class WebServer:
    """A server on a free port of loopback.

    Attributes:
        objects: what it holds; the list, if it holds none of its own, names all else.
        redirects: places by key.
        habits: what it does; changed by tests as they go.
        requests: method and key of each request.
    """

    def __init__(self) -> None:
        self.objects: dict[bytes, bytes] = {}
        self.redirects: dict[bytes, str] = {}
        self.habits = Habits()
        self.requests: list[tuple[str, bytes]] = []
        server = self

        handler = type("Handler", (_Handler,), {"web": server})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="web-server", daemon=True)
        self._thread.start()

    def get(self, key: bytes) -> bytes | None:
        """An object's bytes; the list is made of the others where there is none."""
        if key == LIST and key not in self.objects:
            return b"".join(name + b"\n" for name in list(self.objects))
        return self.objects.get(key)

    def encrypt(self, certificate: str, key: str) -> None:
        """Speak TLS from now on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    web: WebServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the second packet of an answer waits 40 ms

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, has_body: bool) -> None:
        habits = self.web.habits
        key = unquote_to_bytes(self.path[1:])
        self.web.requests.append((self.command, key))
        data = self.web.get(key)
        if key in self.web.redirects:
            self._send(302, b"", {"Location": self.web.redirects[key]})
        elif habits.status:
            self._send(habits.status, b"no", {})
        elif not has_body and not habits.head:
            self._send(403, b"", {})
        elif data is None:
            self._send(404, b"", {})
        else:
            self._send_object(data, has_body=has_body)

    def _send_object(self, data: bytes, *, has_body: bool) -> None:
        habits = self.web.habits
        headers = {"Content-Encoding": habits.encoding} if habits.encoding else {}
        if habits.etag:
            headers["ETag"] = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        if habits.modified:
            headers["Last-Modified"] = "Sun, 06 Nov 1994 08:49:37 GMT"
        asked = _RANGE.match(self.headers.get("Range", "")) if habits.ranges and has_body else None
        if asked is None:
            self._send(200, data, headers)
            return
        start = int(asked[1])
        stop = min(len(data), int(asked[2] or len(data)) + 1)
        if start >= len(data):
            self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        self._send(206, data[start:stop], headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        habits = self.web.habits
        is_chunked = not habits.length and status == 200
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if is_chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        sent = body[: max(0, len(body) - habits.short_bytes)]
        with contextlib.suppress(OSError):
            if is_chunked:
                sent = b"%x\r\n%b\r\n" % (len(sent), sent) if sent else b""
                sent += b"" if habits.short_bytes else b"0\r\n\r\n"
            self.wfile.write(sent)
        self.close_connection = bool(habits.short_bytes)


@contextlib.contextmanager
def running() -> Iterator[WebServer]:
    """A server for the length of a block."""
    server = WebServer()
    try:
        yield server
    finally:
        server.stop()
