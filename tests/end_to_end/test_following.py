"""Read-ahead of indices that somebody else orders, and plans that live as long as their job."""

from __future__ import annotations

import gc
import os
import time

import numpy as np
import pytest

import swingby
from swingby import config, sessions
from swingby.keeper.protocol import Status, Stop
from swingby.testing.harness import inline
from swingby.testing.memory_base import MemoryBase

COUNT = 3000
SIZE = 1000


@pytest.fixture
def swing(home):
    base = MemoryBase({b"d/%05d" % number: number.to_bytes(4, "little") * (SIZE // 4) for number in range(COUNT)})
    with inline(home, base=base) as found:
        yield found


def await_true(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.01)


def fetched(swing):
    return sum(one["bytes"] for one in swing.facts()["bases"].values())


def test_what_is_announced_is_fetched_in_its_order_and_within_its_bytes(swing):
    with swingby.open("memory://d/", settings=swing.settings) as dataset:
        following = dataset.following(600 * SIZE)
        order = np.random.default_rng(1).permutation(COUNT)
        following.upcoming(order)
        await_true(lambda: fetched(swing) >= 1024 * SIZE)
        time.sleep(0.2)
        assert fetched(swing) == 1024 * SIZE  # two blocks: the second begins before the bytes ahead are reached
        before = fetched(swing)
        batch = dataset.batch(order[:1024])
        assert [int.from_bytes(view[:4], "little") for view in batch.views] == order[:1024].tolist()
        assert fetched(swing) == before, "what was announced was fetched again"
        following.consumed(1024)
        await_true(lambda: fetched(swing) >= 2048 * SIZE)
        following.close()


def test_indices_of_a_selection_are_the_datasets_own(swing):
    with swingby.open("memory://d/", settings=swing.settings, include=["*7"]) as dataset:
        following = dataset.following(1 << 30)
        following.upcoming(np.arange(len(dataset)))
        await_true(lambda: fetched(swing) == len(dataset) * SIZE)
        dataset.batch(np.arange(len(dataset)))
        assert fetched(swing) == len(dataset) * SIZE
        following.close()


def test_more_is_announced_than_the_keeper_takes_at_once(swing):
    with swingby.open("memory://d/", settings=swing.settings) as dataset:
        following = dataset.following(1 << 30)
        following.upcoming(np.arange(1_000_000) % COUNT)
        for consumed in range(0, 1_000_000, 100_000):
            following.consumed(consumed)
            time.sleep(0.03)  # longer than between two notes
        await_true(lambda: fetched(swing) >= COUNT * SIZE)
        assert following._told == 1_000_000
        assert swing.facts()["plans"] == 1
        following.close()
        await_true(lambda: swing.facts()["plans"] == 0)


def test_a_plan_stays_between_epochs_and_goes_with_its_loader(swing):
    with swingby.open("memory://d/", settings=swing.settings) as dataset:
        loader = swingby.Loader(dataset, batch_size=100, shuffle=True)
        for _ in range(2):
            assert sum(len(batch) for batch in loader) == COUNT
            assert swing.facts()["plans"] == 1
        for _ in loader:
            break
        assert swing.facts()["plans"] == 1
        del loader, _
        gc.collect()
        await_true(lambda: swing.facts()["plans"] == 0)


@pytest.fixture
def client_and_dataset(tmp_path, home):
    """With a keeper that is a process."""
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number:03d}").write_bytes(bytes([number % 256]) * 100)
    settings = config.load({"home": home})
    client = sessions.session(settings).client
    with swingby.open(str(folder), settings=settings) as dataset:
        yield client, dataset
    client.call(Stop(), 10)
    client.close()


def plans(client):
    return client.call(Status(), 10).message.facts["plans"]


def test_a_killed_jobs_plan_ends(client_and_dataset):
    client, dataset = client_and_dataset
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            loader = swingby.Loader(dataset, batch_size=10, shuffle=True)
            next(iter(loader))
            os.write(writer, b"x")
            time.sleep(60)
        finally:
            os._exit(1)
    assert os.read(reader, 1) == b"x"
    assert plans(client) == 1
    os.kill(child, 9)
    os.waitpid(child, 0)
    await_true(lambda: plans(client) == 0)
    os.close(reader)
    os.close(writer)


def test_a_loader_of_the_parent_works_in_a_forked_child_and_both_have_plans(client_and_dataset):
    client, dataset = client_and_dataset
    loader = swingby.Loader(dataset, batch_size=10, shuffle=True)
    next(iter(loader))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if sum(len(batch) for batch in loader) == 300 and plans(dataset.client) == 2 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sum(len(batch) for batch in loader) == 300
    await_true(lambda: plans(client) == 1)
