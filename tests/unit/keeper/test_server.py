"""The server's loop and the client, over a socket pair."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time

import pytest

from swingby.errors import DeadlineError, KeeperUnavailableError, ObjectNotFoundError
from swingby.keeper import frames
from swingby.keeper.client import KeeperClient
from swingby.keeper.protocol import Hello, Ok, Report, Status, Welcome
from swingby.keeper.server import Server


class Loop:
    """A server in a thread, whose handler tests replace."""

    def __init__(self, **options):
        self.handled = []
        self.answer = lambda connection, message: connection.send(Report({"seen": len(self.handled)}))
        self.server = Server(self.handle, options.get("clients_max", 100), None)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()

    def handle(self, connection, message):
        self.handled.append(message)
        if isinstance(message, Hello):
            reader, writer = os.pipe()
            os.close(writer)
            os.close(reader)
            board = os.memfd_create("board")
            os.ftruncate(board, 8)
            connection.send(Welcome(1, os.getpid()), [board])
        else:
            self.answer(connection, message)

    def connect(self):
        if not self.thread.is_alive():
            raise KeeperUnavailableError("gone")
        mine, its = socket.socketpair()
        self.server.adopt(its)
        return mine

    def stop(self):
        self.server.stop()
        self.thread.join(5)
        assert not self.thread.is_alive()


@pytest.fixture
def loop():
    made = Loop()
    yield made
    made.stop()


@pytest.fixture
def client(loop):
    with contextlib.closing(KeeperClient(loop)) as made:
        yield made


def test_requests_are_answered_and_connections_reused(loop, client):
    for number in range(3):
        assert client.call(Status(), 5).message == Report({"seen": number + 2})
    assert loop.server.client_count == 1


def test_an_error_of_the_keeper_is_raised_in_the_client(loop, client):
    loop.answer = lambda connection, message: connection.fail(ObjectNotFoundError("no such thing", key="k"))
    with pytest.raises(ObjectNotFoundError, match="no such thing") as error:
        client.call(Status(), 5)
    assert error.value.key == "k"


def test_a_keeper_that_does_not_answer_is_a_deadline(loop, client):
    loop.answer = lambda connection, message: None
    started = time.monotonic()
    with pytest.raises(DeadlineError):
        client.call(Status(), 0.2)
    assert time.monotonic() - started < 3


def test_a_keeper_that_went_away_is_asked_again_and_then_unavailable(loop, client):
    client.call(Status(), 5)
    dropped = []

    def drop_once(connection, message):
        if not dropped:
            dropped.append(1)
            loop.server.call_later(0, lambda: loop.server.drop(connection))
        else:
            connection.send(Ok())

    loop.answer = drop_once
    assert client.call(Status(), 5).message == Ok()
    loop.answer = lambda connection, message: loop.server.call_later(0, lambda: loop.server.drop(connection))
    with pytest.raises(KeeperUnavailableError, match="again and again"):
        client.call(Status(), 5)


def test_after_a_lost_connection_no_other_to_that_keeper_is_used(loop, client):
    with client.exchange() as first, client.exchange() as second:
        assert first is not second
    loop.answer = lambda connection, message: loop.server.call_later(0, lambda: loop.server.drop(connection))
    with contextlib.suppress(ConnectionError), client.exchange() as exchange:
        exchange.send(Status(), 5)
        exchange.receive(5)
        pytest.fail("the connection is there")
    loop.answer = lambda connection, message: connection.send(Ok())
    with client.exchange() as exchange:
        assert exchange not in (first, second)


def test_nonsense_ends_only_the_connection_it_came_on(loop, client):
    client.call(Status(), 5)
    for noise in (b"\0" * 100, struct.pack("<HHI", 0x5942, 0, 1 << 30), os.urandom(64)):
        raw = loop.connect()
        raw.sendall(noise)
        raw.settimeout(5)
        while raw.recv(4096):
            pass
        raw.close()
    assert client.call(Status(), 5).message == Report({"seen": 3})
    assert loop.server.client_count == 1


def test_descriptors_that_a_client_sends_are_closed(loop):
    before = len(os.listdir("/proc/self/fd"))
    raw = loop.connect()
    reader, writer = os.pipe()
    frames.send(raw, frames.encode(Hello(1, 1), 2), [reader, writer])
    frames.send(raw, frames.encode(Status()), [reader] * 50)
    raw.settimeout(5)
    raw.recv(4096)
    raw.close()
    os.close(reader)
    os.close(writer)
    until = time.monotonic() + 5
    while len(os.listdir("/proc/self/fd")) > before:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_client_that_does_not_read_is_cut_off_and_others_are_served(loop, client, monkeypatch):
    monkeypatch.setattr("swingby.keeper.server.UNSENT_BYTES_MAX", 1 << 20)
    loop.answer = lambda connection, message: [connection.send(Report({"x": "y" * 100_000})) for _ in range(40)]
    raw = loop.connect()
    raw.sendall(frames.encode(Hello(1, 1)) + frames.encode(Status()))
    until = time.monotonic() + 5
    while loop.server.client_count:
        assert time.monotonic() < until
        time.sleep(0.01)
    loop.answer = lambda connection, message: connection.send(Ok())
    assert client.call(Status(), 5).message == Ok()
    raw.close()


def test_a_large_answer_arrives_whole(loop, client):
    loop.answer = lambda connection, message: connection.send(Report({"x": "y" * 5_000_000}))
    assert len(client.call(Status(), 10).message.facts["x"]) == 5_000_000


def test_timers_fire_in_order(loop):
    fired, done = [], threading.Event()
    for delay in (0.06, 0.02, 0.04):
        loop.server.call_later(delay, lambda delay=delay: fired.append(delay))
    loop.server.call_later(0.1, done.set)
    assert done.wait(5)
    assert fired == [0.02, 0.04, 0.06]


def test_what_depends_on_a_client_ends_with_it(loop, client):
    ended = threading.Event()

    def answer(connection, message):
        connection.on_close.append(ended.set)
        connection.send(Ok())

    loop.answer = answer
    client.call(Status(), 5)
    client.close()
    assert ended.wait(5)


def test_a_forked_child_does_not_keep_its_parents_connections_alive(loop, client):
    exchange = client.dedicated()
    child = os.fork()
    if child == 0:
        time.sleep(1.0)
        os._exit(0)
    exchange.close()
    until = time.monotonic() + 0.8
    while loop.server.client_count:
        assert time.monotonic() < until, "the child holds the connection"
        time.sleep(0.01)
    os.waitpid(child, 0)


def test_more_clients_than_allowed_are_turned_away(tmp_path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    server = Server(lambda connection, message: None, 2, listener)
    thread = threading.Thread(target=server.run)
    thread.start()
    made = [socket.socket(socket.AF_UNIX) for _ in range(4)]
    for one in made:
        one.settimeout(5)
        one.connect(str(tmp_path / "s"))
    ended = [one.recv(1) == b"" for one in made[2:]]
    assert ended == [True, True]
    server.stop()
    thread.join(5)
    for one in made:
        one.close()


@pytest.mark.parametrize("is_late", [False, True])
def test_a_connection_that_a_server_adopts_when_it_ends_is_closed_and_does_not_wait(is_late):
    server = Server(lambda *_: None, 10, None)
    mine, its = socket.socketpair()
    server.stop()
    if not is_late:
        server.adopt(its)
    server.run()
    if is_late:
        server.adopt(its)
    with mine:
        mine.settimeout(1.0)
        assert mine.recv(1) == b""
