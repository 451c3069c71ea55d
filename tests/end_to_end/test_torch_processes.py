"""DataLoader's processes: killed, interrupted, left in the middle, started in every way; and the keeper's end."""

from __future__ import annotations

import functools
import gc
import operator
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

torch = pytest.importorskip("torch", reason="swingby.torch needs PyTorch")

import swingby
import swingby.torch
from swingby import config, sessions
from swingby.keeper.protocol import Status, Stop

COUNT = 240
KEY = operator.attrgetter("key")
SECONDS_MAX = 20.0


@pytest.fixture
def dataset(tmp_path, home):
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(COUNT):
        (folder / f"{number:03d}").write_bytes(bytes([number]) * 300)
    settings = config.load({"home": home, "keeper.idle_exit_seconds": 2})
    with swingby.open(str(folder), settings=settings) as found:
        yield found
    client = sessions.session(settings).client
    client.call(Stop(), 10)
    client.close()


def children(process=None):
    """Processes, dead ones too, that a process has started and not waited for; the keeper is nobody's child."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == (process or os.getpid()):
            found.append(int(name))
    return set(found)


def await_end(before):
    until = time.monotonic() + SECONDS_MAX
    while left := children() - before:
        assert time.monotonic() < until, left
        time.sleep(0.02)


@pytest.mark.parametrize("persistent", [False, True])
def test_a_worker_that_is_killed_is_an_error_and_the_next_iteration_works(dataset, persistent):
    def kill_once(sample):
        if sample.key == "020" and os.path.exists(mark):
            os.rmdir(mark)
            os.kill(os.getpid(), signal.SIGKILL)
        return sample.key

    mark = os.path.abspath("kill")
    os.mkdir(mark)
    before = children()
    objects = swingby.torch.Dataset(dataset, kill_once)
    loader = swingby.torch.DataLoader(objects, 8, num_workers=2, persistent_workers=persistent)
    found = []
    started = time.monotonic()
    with pytest.raises(RuntimeError, match=r"worker .*(killed by signal|exited unexpectedly)"):
        found.extend(keys for keys in loader)
    assert time.monotonic() - started < SECONDS_MAX
    state = loader.state_dict()
    assert state["consumed"] == 8 * len(found)
    loader.load_state_dict(state)
    found.extend(keys for keys in loader)
    assert sorted(int(key) for keys in found for key in keys) == list(range(COUNT))
    del loader
    gc.collect()
    await_end(before)


@pytest.mark.parametrize("transform", [None, KEY])
@pytest.mark.parametrize("persistent", [False, True])
def test_an_epoch_left_in_the_middle_leaves_nothing(dataset, transform, persistent):
    before, threads = children(), threading.active_count()
    objects = swingby.torch.Dataset(dataset, transform)
    loader = swingby.torch.DataLoader(objects, 8, True, num_workers=2, persistent_workers=persistent)
    for epoch in range(3):
        loader.set_epoch(epoch)
        for _ in loader:
            break
    assert len(list(loader)) == COUNT // 8
    del loader
    gc.collect()
    await_end(before)
    until = time.monotonic() + SECONDS_MAX
    while threading.active_count() > threads:
        assert time.monotonic() < until, threading.enumerate()
        time.sleep(0.02)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_twenty_workers_forked_after_use_read_on(dataset):
    dataset.batch(range(COUNT)).packed()
    before = children()
    loader = swingby.torch.DataLoader(swingby.torch.Dataset(dataset, KEY), 4, num_workers=20, timeout=SECONDS_MAX)
    assert sorted(int(key) for keys in loader for key in keys) == list(range(COUNT))
    assert dataset[3].key == "003"
    gc.collect()
    await_end(before)


@pytest.mark.parametrize("context", ["fork", "forkserver", "spawn"])
def test_workers_are_prepared_by_the_users_function(dataset, context, tmp_path):
    made = str(tmp_path / "made")
    loader = swingby.torch.DataLoader(
        swingby.torch.Dataset(dataset),
        8,
        num_workers=1,
        worker_init_fn=functools.partial(os.mkdir, made),  # called with the worker's number
        multiprocessing_context=context,
        timeout=60,
    )
    assert torch.cat(list(loader))[:, 0].tolist() == list(range(COUNT))
    assert os.path.isdir(made)


def test_a_transform_that_hangs_is_an_error_in_time(dataset):
    def hang(sample):
        time.sleep(SECONDS_MAX if sample.key == "010" else 0)
        return sample.key

    before = children()
    loader = swingby.torch.DataLoader(swingby.torch.Dataset(dataset, hang), 8, num_workers=1, timeout=0.5)
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="timed out"):
        list(loader)
    assert time.monotonic() - started < SECONDS_MAX / 2
    for process in children() - before:
        os.kill(process, signal.SIGKILL)  # it sleeps on


@pytest.mark.parametrize("transform", [None, KEY])
def test_a_keeper_that_is_killed_ends_no_epoch(dataset, transform):
    objects = swingby.torch.Dataset(dataset, transform)
    found = []
    for number, batch in enumerate(swingby.torch.DataLoader(objects, 8, True, num_workers=2)):
        if number == 3:
            os.kill(dataset.client.call(Status(), 10).message.facts["process"], signal.SIGKILL)
        found += batch[:, 0].tolist() if transform is None else map(int, batch)
    assert sorted(found) == list(range(COUNT))


INTERRUPTED = """
import sys, time
import swingby, swingby.torch

def slow(sample):
    time.sleep(0.05)
    return sample.key

if __name__ == "__main__":
    url, home, kind = sys.argv[1:]
    dataset = swingby.open(url, settings={"home": home, "keeper.idle_exit_seconds": 2})
    objects = swingby.torch.Dataset(dataset, slow if kind == "processes" else None)
    loader = swingby.torch.DataLoader(objects, 4, True, num_workers=2)
    while True:
        for number, batch in enumerate(loader):
            if number == 1:
                print("running", flush=True)
"""


@pytest.mark.parametrize("kind", ["processes", "threads"])
def test_an_interrupt_ends_the_program_and_its_workers(dataset, home, kind):
    command = [sys.executable, "-c", INTERRUPTED, dataset.url, home, kind]
    program = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert program.stdout.readline() == "running\n"
    workers = children(program.pid)
    assert len(workers) == (2 if kind == "processes" else 0)
    started = time.monotonic()
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does
    _, said = program.communicate(timeout=SECONDS_MAX)
    assert time.monotonic() - started < SECONDS_MAX / 2
    assert "KeyboardInterrupt" in said
    until = time.monotonic() + SECONDS_MAX
    while any(os.path.exists(f"/proc/{process}") for process in workers):
        assert time.monotonic() < until
        time.sleep(0.02)
