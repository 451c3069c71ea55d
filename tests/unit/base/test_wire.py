"""The quick way to GET, against servers that answer strangely. (Ordinary answers are tested on a real Ceph.)"""

from __future__ import annotations

import os
import socket
import threading

import pytest

from swingby.base.credentials import Credentials
from swingby.base.s3_http import Bucket
from swingby.base.s3_wire import UnusualAnswerError, Wire
from swingby.errors import AccessDeniedError, BaseUnavailableError, ObjectNotFoundError, TruncatedReadError


class Server:
    """Answers each request on each connection with the next of its scripts; a script is bytes, or None to hang up."""

    def __init__(self, *scripts, keep=True):
        self.scripts = list(scripts)
        self.requests = []
        self.connections = 0
        self._keep = keep
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        while True:
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                try:
                    part = connection.recv(4096)
                except OSError:
                    return
                if not part:
                    connection.close()
                    return
                request += part
            self.requests.append(request)
            script = self.scripts.pop(0) if self.scripts else None
            if script is None:
                connection.close()
                return
            connection.sendall(script)
            if not self._keep:
                connection.close()
                return

    def close(self):
        self._listener.close()
        for connection in self._open:
            connection.close()


def answer(body=b"hello", status=b"200 OK", extra=b'ETag: "5d41402abc4b2a76b9719d911017c592"\r\n'):
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, extra, len(body), body)


@pytest.fixture
def serve():
    made = []

    def start(*scripts, seconds=5.0, keep=True, token=None):
        server = Server(*scripts, keep=keep)
        bucket = Bucket("bucket", f"http://127.0.0.1:{server.port}", "/bucket", "here")
        wire = Wire(bucket, lambda: Credentials("id", "secret", token), 2.0, seconds)
        made.append((server, wire))
        return server, wire

    yield start
    for server, wire in made:
        wire.close()
        server.close()


def test_a_connection_is_kept_and_used_again(serve):
    server, wire = serve(answer(), answer(b"again"))
    assert bytes(wire.get(b"a", None).data) == b"hello"
    assert bytes(wire.get(b"b", None).data) == b"again"
    assert server.connections == 1
    assert server.requests[1].startswith(b"GET /bucket/b HTTP/1.1\r\n")
    assert b"AWS4-HMAC-SHA256 Credential=id/" in server.requests[0]


def test_a_kept_connection_that_was_closed_is_replaced(serve):
    server, wire = serve(answer(), None, answer(b"again"))
    wire.get(b"a", None)
    assert bytes(wire.get(b"b", None).data) == b"again"
    assert server.connections == 2


def test_a_connection_that_the_server_ends_is_not_kept(serve):
    server, wire = serve(answer(extra=b"Connection: close\r\n"), answer())
    wire.get(b"a", None)
    wire.get(b"a", None)
    assert server.connections == 2


def test_a_new_connection_that_is_closed_at_once_is_unavailable(serve):
    _, wire = serve()
    with pytest.raises(BaseUnavailableError):
        wire.get(b"a", None)


def test_nobody_listening_is_unavailable():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    wire = Wire(Bucket("b", f"http://127.0.0.1:{port}", "/b", "r"), lambda: None, 1.0, 1.0)
    with pytest.raises(BaseUnavailableError, match="does not answer"):
        wire.get(b"a", None)


def test_a_body_that_ends_early_is_truncated(serve):
    script = answer(b"x" * 100_000)[:-10]
    _, wire = serve(script, keep=False)
    with pytest.raises(TruncatedReadError):
        wire.get(b"a", None)


def test_a_server_that_stalls_is_given_up(serve):
    server, wire = serve(b"HTTP/1.1 200 OK\r\n", seconds=0.2)
    with pytest.raises(BaseUnavailableError):
        wire.get(b"a", None)
    assert server.connections == 1


@pytest.mark.parametrize(
    "script",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhello",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 100000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Padding: %b\r\n" % (b"y" * 70_000),
    ],
)
def test_unusual_answers_are_left_to_the_general_client(serve, script):
    server, wire = serve(script, answer(), keep=True)
    with pytest.raises(UnusualAnswerError):
        wire.get(b"a", None)
    assert bytes(wire.get(b"a", None).data) == b"hello"  # and the connection is not trusted again
    assert server.connections == 2


def test_errors_of_the_base_are_translated_and_keep_the_connection(serve):
    body = b"<Error><Code>AccessDenied</Code></Error>"
    server, wire = serve(
        answer(body, b"403 Forbidden"), answer(b"", b"404 Not Found"), answer(b"", b"503 Slow Down"), answer()
    )
    with pytest.raises(AccessDeniedError):
        wire.get(b"a", None)
    with pytest.raises(ObjectNotFoundError):
        wire.get(b"a", None)
    with pytest.raises(BaseUnavailableError) as error:
        wire.get(b"a", None)
    assert error.value.retryable
    wire.get(b"a", None)
    assert server.connections == 1


def test_ranges_and_session_tokens_are_sent(serve):
    partial = answer(b"llo", b"206 Partial Content", b'Content-Range: bytes 2-4/5\r\nETag: "e"\r\n')
    server, wire = serve(partial, token="t0ken")
    got = wire.get(b"a b/\xc3\xbc", (2, 5))
    assert (bytes(got.data), got.object_size, got.etag) == (b"llo", 5, '"e"')
    assert b"range: bytes=2-4\r\n" in server.requests[0]
    assert b"x-amz-security-token: t0ken\r\n" in server.requests[0]
    assert server.requests[0].startswith(b"GET /bucket/a%20b/%C3%BC HTTP/1.1\r\n")


def test_a_head_and_body_in_many_pieces_are_put_together(serve):
    listener = socket.create_server(("127.0.0.1", 0))
    data = os.urandom(300_000)

    def trickle():
        connection, _ = listener.accept()
        connection.recv(4096)
        whole = answer(data)
        for start in range(0, 200, 7):
            connection.sendall(whole[start : start + 7])
        connection.sendall(whole[203:])
        connection.close()

    threading.Thread(target=trickle, daemon=True).start()
    wire = Wire(Bucket("b", f"http://127.0.0.1:{listener.getsockname()[1]}", "/b", "r"), lambda: None, 1.0, 5.0)
    assert bytes(wire.get(b"a", None).data) == data
    wire.close()
    listener.close()


def test_a_forked_child_makes_its_own_connections(serve):
    server, wire = serve(answer(), answer(b"child"), answer(b"parent"))
    wire.get(b"a", None)
    child = os.fork()
    if child == 0:
        os._exit(0 if bytes(wire.get(b"a", None).data) == b"child" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert bytes(wire.get(b"a", None).data) == b"parent"
    assert server.connections == 2
