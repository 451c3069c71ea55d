"""A keeper that goes away at a bad moment costs time, never the read."""

from __future__ import annotations

import os
import socket
import threading

import pytest

import swingby
from swingby import config, sessions
from swingby.assemble import Hooks
from swingby.errors import NotOpenError
from swingby.keeper import protocol
from swingby.keeper.protocol import Advance, Hello, Open, Touched, Welcome
from swingby.keeper.server import Server
from swingby.levels.unnamed_file import unnamed_file
from swingby.sessions import Session
from swingby.testing.campaign.job import until
from swingby.testing.harness import inline
from swingby.testing.memory_base import MemoryBase


class Dying:
    """A keeper that greets, and hangs up at every request that `answer` does not take care of."""

    def __init__(self, answer=lambda connection, message: False):
        self.asked = []
        self._answer = answer
        self.server = Server(self._handle, 100, None)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()

    def connect(self):
        mine, its = socket.socketpair()
        self.server.adopt(its)
        return mine

    def _handle(self, connection, message):
        if isinstance(message, Hello):
            board = unnamed_file("board")
            os.ftruncate(board, 8)
            connection.send(Welcome(protocol.VERSION, 1), [board])
            return
        self.asked.append(type(message))
        if not self._answer(connection, message):
            self.server.call_later(0, lambda: self.server.drop(connection))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "files"
    path.mkdir()
    for number in range(5):
        (path / str(number)).write_bytes(b"%d" % number * 100)
    return path


@pytest.fixture
def dying(home):
    keeper = Dying()
    session = Session(config.load({"home": home}), keeper, Hooks())
    sessions.adopt(session)
    yield keeper, session
    sessions.forget(session)
    session.client.close()
    keeper.server.stop()
    keeper.thread.join()


def test_a_keeper_that_dies_at_every_open_leaves_the_listing_to_the_client(dying, folder):
    keeper, session = dying
    with swingby.open(folder, settings=session.settings) as dataset:
        assert [bytes(view) for view in dataset.batch(range(5)).views] == [b"%d" % n * 100 for n in range(5)]
    assert keeper.asked.count(Open) == 2


def test_a_keeper_that_dies_while_a_dataset_is_opened_again_leaves_the_read_to_the_base(home, folder):
    with inline(home) as found:
        dataset = swingby.open(folder, settings=found.settings)
        reader = dataset._reader

        def forgets(connection, message):
            if isinstance(message, protocol.Need):
                connection.fail(NotOpenError("not open"))
            return isinstance(message, protocol.Need)

        keeper = Dying(forgets)
        reader.client = Session(found.settings, keeper, Hooks()).client
        found.session.client._connector = keeper
        found.session.client.close()
        assert bytes(dataset[3].data) == b"3" * 100
        assert protocol.Open in keeper.asked
        reader.client.close()
        keeper.server.stop()
        keeper.thread.join()


def test_what_has_no_answer_is_not_even_answered_by_an_error(home, folder):
    with inline(home) as found, found.session.client.exchange() as exchange:
        exchange.send(Touched("no such dataset", b"", 1, 1), 1)
        exchange.send(Advance(3), 1)
        exchange.send(protocol.Status(), 5)
        assert isinstance(exchange.receive(5).message, protocol.Report)


def test_a_janitor_whose_round_fails_in_one_part_does_the_others(home, tmp_path):
    base = MemoryBase({b"data/a": bytes(1000)})
    settings = {"burst.directory": str(tmp_path), "burst.free_floor_ratio": 0.0}
    with inline(home, base=base, settings=settings) as found:

        def failing():
            raise OSError(5, "Input/output error")

        found.keeper.each_round = failing
        swingby.open("memory://x/data", settings=found.settings)[0]
        until(lambda: not found.facts()["levels"]["burst"]["used_bytes"], 5.0, "nothing is copied down")


def test_reports_of_impossible_numbers_do_not_end_status(home):
    with inline(home, base=MemoryBase({b"data/a": bytes(1000)})) as found:
        digest = swingby.open("memory://x/data", settings=found.settings).manifest
        for number in ((1 << 63) - 1, -(1 << 63)):
            for _ in range(3):
                with found.session.client.exchange() as exchange:
                    exchange.send(Touched(digest, b"", number, number), 5)
                    exchange.send(protocol.Status(), 5)
                    assert exchange.receive(5).message.facts["delivered"] == {"samples": 0, "bytes": 0}
