"""The quick way to GET an S3 object: plain HTTP/1.1 over kept connections, the answer read straight into its buffer.

One request costs 42 µs of CPU against 85 of obstore (16 KiB objects, 16 threads, docs/decisions/0004): no runtime between the
thread that wants the bytes and the socket. Whatever is not an ordinary answer (chunked bodies, no length) is `UnusualAnswerError`,
for a general client to do again. Sources: RFC 9112; AWS Signature Version 4, of which what changes with the second only is kept.

Threads: safe. Forks: safe, the child makes its own connections.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import ssl
import struct
import threading
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlsplit

import numpy as np

from swingby.base.translate import raise_for_status, raise_unreachable
from swingby.core import forks
from swingby.errors import SwingbyError, TruncatedReadError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from swingby.base.credentials import Provider
    from swingby.base.s3_http import Bucket

HEAD_BYTES_MAX = 64 << 10
ERROR_BYTES_MAX = 64 << 10
IDLE_CONNECTIONS_MAX = 256

_LENGTH, _ETAG, _RANGE = b"\r\ncontent-length:", b"\r\netag:", b"\r\ncontent-range:"

_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


class UnusualAnswerError(Exception):
    """An answer that this client does not read."""


class Got(NamedTuple):
    """An answer: the body, the entity tag, and the size of the whole object."""

    data: Buffer
    etag: str
    object_size: int


class _StaleConnectionError(Exception):
    pass


class Wire:
    """GETs from one bucket.

    Args:
        bucket: where it answers.
        credentials: asked once a second.
        connect_seconds_max, request_seconds_max: time limits; the second also of any wait for bytes.
    """

    def __init__(
        self, bucket: Bucket, credentials: Provider, connect_seconds_max: float, request_seconds_max: float
    ) -> None:
        parts = urlsplit(bucket.origin)
        self._bucket = bucket
        self._host = parts.netloc
        self._address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._connect_seconds_max = connect_seconds_max
        self._request_seconds_max = request_seconds_max
        self._path = bucket.path.encode() + b"/"
        self._signer = _Signer(self._host, bucket.region, credentials)
        self._idle: list[_Connection] = []
        forks.register(self)

    def get(self, key: bytes, part: tuple[int, int] | None) -> Got:
        """The object, or its bytes [start, stop).

        Raises:
            UnusualAnswerError: do it another way.
            SwingbyError: what the status means, or that the base does not answer.
        """
        head = self._signer.head(self._path + quote(key).encode())
        extra = b"range: bytes=%d-%d\r\n\r\n" % (part[0], part[1] - 1) if part else b"\r\n"
        while True:
            try:
                connection, is_new = (self._idle.pop(), False)
            except IndexError:
                connection, is_new = self._connect(key), True
            try:
                got = connection.exchange(head + extra, key, self._bucket.name)
            except _StaleConnectionError as error:
                connection.close()
                if is_new:
                    raise_unreachable(error, key, self._bucket.origin)
                continue
            except SwingbyError:
                self._keep(connection)
                raise
            except OSError as error:
                connection.close()
                raise_unreachable(error, key, self._bucket.origin)
            except BaseException:
                connection.close()
                raise
            self._keep(connection)
            return got

    def close(self) -> None:
        """Close idle connections."""
        while self._idle:
            self._idle.pop().close()

    def after_fork(self) -> None:
        """See `forks`: the connections are the parent's."""
        self.close()
        self._signer.after_fork()

    def _keep(self, connection: _Connection) -> None:
        if connection.may_be_kept and len(self._idle) < IDLE_CONNECTIONS_MAX:
            self._idle.append(connection)
        else:
            connection.close()

    def _connect(self, key: bytes) -> _Connection:
        try:
            plain = socket.create_connection(self._address, self._connect_seconds_max)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wrapped = self._tls.wrap_socket(plain, server_hostname=self._address[0]) if self._tls else plain
            return _Connection(wrapped, self._request_seconds_max, is_plain=self._tls is None)
        except OSError as error:
            raise_unreachable(error, key, self._bucket.origin)


class _Connection:
    """One connection; one request at a time."""

    def __init__(self, connection: socket.socket, seconds_max: float, *, is_plain: bool) -> None:
        self._socket = connection
        self._seconds_max = seconds_max
        self._wait_all = socket.MSG_WAITALL if is_plain else 0
        self._buffer = bytearray(HEAD_BYTES_MAX)
        self.may_be_kept = True
        if is_plain:  # the kernel keeps time: a time limit of Python's would poll before every call
            connection.settimeout(None)
            limit = struct.pack("ll", int(seconds_max), int(seconds_max % 1 * 1e6))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        else:
            connection.settimeout(seconds_max)

    def exchange(self, request: bytes, key: bytes, bucket: str) -> Got:
        """Send a request and read its answer."""
        try:
            self._socket.sendall(request)
            filled = self._socket.recv_into(self._buffer)
        except (ConnectionError, ssl.SSLEOFError) as error:
            raise _StaleConnectionError(str(error)) from None
        if not filled:
            raise _StaleConnectionError("the connection was closed")
        while (end := self._buffer.find(b"\r\n\r\n", 0, filled)) < 0:
            count = self._socket.recv_into(memoryview(self._buffer)[filled:])
            if not count:
                raise UnusualAnswerError("a head without an end")
            filled += count
        head = bytes(memoryview(self._buffer)[:end])
        lowered = head.lower()
        size = _number(lowered, lowered, _LENGTH)
        if size < 0 or not head.startswith(b"HTTP/1.1 "):
            self.may_be_kept = False
            raise UnusualAnswerError("an answer without a length")
        if b"connection: close" in lowered:
            self.may_be_kept = False
        status = head[9:12]
        if status != b"200" and status != b"206":
            if size > ERROR_BYTES_MAX:
                self.may_be_kept = False
                raise UnusualAnswerError("an error of many words")
            raise_for_status(int(status), bytes(self._body(end + 4, filled, size, key)), key, bucket)
        data = self._body(end + 4, filled, size, key)
        etag = _field(head, lowered, _ETAG).decode("latin-1")
        if status == b"200":
            return Got(data, etag, size)
        return Got(data, etag, int(_field(head, lowered, _RANGE).rpartition(b"/")[2]))

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def __del__(self) -> None:
        self._socket.close()  # one that was in use when the wire was closed

    def _body(self, start: int, filled: int, size: int, key: bytes) -> Buffer:
        if filled - start > size:
            self.may_be_kept = False
            raise UnusualAnswerError("more than one answer")
        view = memoryview(np.empty(size, np.uint8))  # a new bytes object of 16 KiB costs ten times as much
        done = filled - start
        view[:done] = memoryview(self._buffer)[start:filled]
        if done == size:
            return view
        until = time.monotonic() + self._seconds_max
        while done < size:
            count = self._socket.recv_into(view[done:], 0, self._wait_all)
            if not count or time.monotonic() > until:
                self.may_be_kept = False
                what = "the body ended early" if not count else "the body did not come in time"
                raise TruncatedReadError(
                    f"{key.decode('utf-8', 'replace')}: {what}", key=key.decode("utf-8", "replace")
                )
            done += count
        return view


class _Signer:
    """Heads of signed GET requests. What depends on time and credentials only is made once a second."""

    def __init__(self, host: str, region: str, credentials: Provider) -> None:
        self._host = host
        self._region = region
        self._credentials = credentials
        self._lock = threading.Lock()
        self._made: tuple[int, bytes, bytes, bytes, bytes] | None = None

    def head(self, path: bytes) -> bytes:
        """Request line and headers for a quoted path; what is appended must end with an empty line."""
        made = self._made
        second = int(time.time())
        if made is None or made[0] != second:
            made = self._make(second)
        _, key, canonical, text, fields = made
        if not key:
            return b"GET " + path + fields
        digest = hashlib.sha256(b"GET\n" + path + canonical).hexdigest().encode()
        signature = hmac.digest(key, text + digest, "sha256").hex().encode()
        return b"GET " + path + fields + signature + b"\r\n"

    def after_fork(self) -> None:
        """See `forks`."""
        self._lock = threading.Lock()

    def _make(self, second: int) -> tuple[int, bytes, bytes, bytes, bytes]:
        with self._lock:
            if self._made and self._made[0] == second:
                return self._made
            found = self._credentials()
            if found is None:
                self._made = second, b"", b"", b"", f" HTTP/1.1\r\nhost: {self._host}\r\n".encode()
                return self._made
            now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
            scope = f"{now[:8]}/{self._region}/s3/aws4_request"
            signed = {"host": self._host, "x-amz-content-sha256": _EMPTY_SHA256, "x-amz-date": now}
            if found.session_token:
                signed["x-amz-security-token"] = found.session_token
            names = ";".join(signed)
            lines = "".join(f"{name}:{value}\n" for name, value in signed.items())
            key = b"AWS4" + found.secret_access_key.encode()
            for part in scope.split("/"):
                key = hmac.digest(key, part.encode(), "sha256")
            fields = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
            grant = f"Credential={found.access_key_id}/{scope}, SignedHeaders={names}, Signature="
            self._made = (
                second,
                key,
                f"\n\n{lines}\n{names}\n{_EMPTY_SHA256}".encode(),
                f"AWS4-HMAC-SHA256\n{now}\n{scope}\n".encode(),
                f" HTTP/1.1\r\n{fields}authorization: AWS4-HMAC-SHA256 {grant}".encode(),
            )
            return self._made


def _field(head: bytes, lowered: bytes, name: bytes) -> bytes:
    """The value of a header field; empty where it is absent."""
    start = lowered.find(name)
    if start < 0:
        return b""
    start += len(name)
    stop = lowered.find(b"\r\n", start)
    return (head[start:stop] if stop >= 0 else head[start:]).strip()


def _number(head: bytes, lowered: bytes, name: bytes) -> int:
    text = _field(head, lowered, name)
    return int(text) if text.isdigit() else -1
