"""The keeper as a process: started when needed, alone, found, restarted, gone when idle; clients that fork and spawn."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import swingby
from swingby import assemble, config, sessions
from swingby.errors import BaseNotFoundError, EmptyDatasetError, KeeperUnavailableError, ProtocolError
from swingby.keeper import protocol
from swingby.keeper.place import place_of
from swingby.keeper.protocol import Evict, Status, Stop
from swingby.sessions import ProcessConnector, Session

FILES = 60


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "files"
    path.mkdir()
    for number in range(FILES):
        (path / f"{number:03d}").write_bytes(os.urandom(1000 + number * 37))
    return str(path)


@pytest.fixture
def settings(home):
    found = config.load({"home": home, "keeper.idle_exit_seconds": 60.0})
    yield found
    with contextlib.suppress(OSError):
        os.kill(keeper_of(found, start=False), signal.SIGKILL)
    sessions.session(found).client.close()


def keeper_of(settings, *, start=True):
    """The process id of the keeper."""
    if not start:
        from swingby.keeper import process

        process.connect(place_of(settings)).close()
    return sessions.session(settings).client.call(Status(), 10).message.facts["process"]


def check(dataset, indices=None):
    """Read and compare with the files."""
    order = np.random.default_rng().permutation(len(dataset)) if indices is None else indices
    for start in range(0, len(order), 16):
        batch = dataset.batch(order[start : start + 16])
        for key, view in zip(batch.keys, batch.views, strict=True):
            with open(os.path.join(dataset.url, key), "rb") as file:
                assert view == file.read()


def await_true(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.01)


def is_alive(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_keeper_is_nobodys_child_and_survives_its_starter(settings, folder):
    code = f"import swingby; swingby.open({folder!r}, settings={{'home': {settings.home!r}}})[0]"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    process = keeper_of(settings)
    with open(f"/proc/{process}/stat") as file:
        parent = int(file.read().rpartition(")")[2].split()[1])
    assert parent != os.getpid()
    with swingby.open(folder, settings=settings) as dataset:
        check(dataset)
    assert keeper_of(settings) == process


def test_the_keeper_holds_nothing_open_of_its_starters(settings, folder):
    """A socket of the starter's ends with it: another rank of a training job waits for that."""
    mine, its = socket.socketpair()
    its.set_inheritable(True)  # as libraries in C make them
    with swingby.open(folder, settings=settings) as dataset:
        check(dataset)
        its.close()
        mine.settimeout(10)
        assert mine.recv(1) == b""
        assert is_alive(keeper_of(settings, start=False))
    mine.close()


def test_many_starters_at_once_get_one_keeper(settings, folder):
    code = (
        "import swingby; from swingby import sessions; from swingby.keeper.protocol import Status;"
        f"s = {{'home': {settings.home!r}}}; swingby.open({folder!r}, settings=s)[3];"
        "print(sessions.session(s).client.call(Status(), 10).message.facts['process'])"
    )
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(6)]
    found = {one.communicate(timeout=60)[0].strip() for one in started}
    assert len(found) == 1
    assert found != {""}


def test_a_keeper_that_was_killed_is_started_again_and_the_cache_is_still_warm(settings, folder):
    with swingby.open(folder, settings=settings) as dataset:
        check(dataset)
        for _ in range(3):
            process = keeper_of(settings)
            os.kill(process, signal.SIGKILL)
            await_true(lambda process=process: not is_alive(process))
            check(dataset)
            other = swingby.open(folder, settings=settings)
            check(other)
            assert keeper_of(settings) != process
        facts = sessions.session(settings).client.call(Status(), 10).message.facts
        assert facts["base_bytes"] == 0


def test_a_keeper_killed_in_the_middle_of_a_request_is_replaced(settings, folder):
    with swingby.open(folder, settings=settings) as dataset:
        stop = threading.Event()
        killed = []

        def kill():
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    process = keeper_of(settings)
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)
                time.sleep(0.4)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            until = time.monotonic() + 4
            while time.monotonic() < until:
                check(dataset)
                with contextlib.suppress(OSError):
                    sessions.session(settings).client.call(Evict(), 5)
        finally:
            stop.set()
            killer.join()
    assert len(set(killed)) > 3


def test_an_idle_keeper_leaves_and_takes_its_socket_along(home, folder):
    settings = config.load({"home": home, "keeper.idle_exit_seconds": 0.5})
    session = sessions.session(settings)
    swingby.open(folder, settings=settings)[0]
    process = keeper_of(settings)
    session.client.close()
    await_true(lambda: not is_alive(process))
    assert not os.path.exists(place_of(settings).socket)
    assert bytes(swingby.open(folder, settings=settings)[0].data)
    session.client.call(Stop(), 5)
    session.client.close()


def test_a_keeper_with_a_client_does_not_leave(home, folder):
    settings = config.load({"home": home, "keeper.idle_exit_seconds": 0.2})
    process = keeper_of(settings)
    exchange = sessions.session(settings).client.dedicated()
    time.sleep(2.5)
    assert is_alive(process)
    exchange.close()
    sessions.session(settings).client.close()
    await_true(lambda: not is_alive(process))


def test_a_stale_socket_and_lock_file_are_no_hindrance(settings, folder):
    process = keeper_of(settings)
    os.kill(process, signal.SIGKILL)
    await_true(lambda: not is_alive(process))
    assert os.path.exists(place_of(settings).socket)
    assert keeper_of(settings) != process


def test_stop_ends_the_keeper_at_once(settings):
    process = keeper_of(settings)
    sessions.session(settings).client.call(Stop(), 5)
    await_true(lambda: not is_alive(process), 3)


def test_a_keeper_of_another_version_says_what_to_do(settings, monkeypatch):
    keeper_of(settings)
    monkeypatch.setattr(protocol, "VERSION", 99)
    session = Session(settings, ProcessConnector(settings), assemble.Hooks())
    with pytest.raises(ProtocolError, match="swingby stop"):
        session.client.call(Status(), 5)


def test_a_python_that_cannot_run_it_is_told_and_reads_still_work(home, folder, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    settings = config.load({"home": home, "keeper.start_seconds_max": 5.0})
    with pytest.raises(KeeperUnavailableError, match="did not start"):
        sessions.session(settings).client.call(Status(), 5)
    with swingby.open(folder, settings=settings) as dataset:
        check(dataset)
    assert len(swingby.read(os.path.join(folder, "003"), settings=settings)) == 1000 + 3 * 37


def test_without_a_keeper_reads_go_to_the_base(home, folder):
    settings = config.load({"home": home, "keeper.mode": "off"})
    with swingby.open(folder, settings=settings) as dataset:
        check(dataset)
        for batch in swingby.Loader(dataset, batch_size=7, shuffle=True):
            batch.packed()
    with pytest.raises(BaseNotFoundError):
        swingby.open(folder + "/absent", settings=settings)
    os.mkdir(folder + "/empty")
    with pytest.raises(EmptyDatasetError):
        swingby.open(folder + "/empty", settings=settings)
    assert not os.path.exists(home)


# -- children ----------------------------------------------------------------------------------------------------------


def test_forked_children_read_while_the_parent_does(settings, folder):
    with swingby.open(folder, settings=settings) as dataset:
        check(dataset)
        children = []
        for number in range(10):
            child = os.fork()
            if child == 0:
                code = 1
                with contextlib.suppress(BaseException):
                    if number % 2:
                        sessions.session(settings).client.call(Evict(), 10)
                    check(dataset)
                    check(swingby.open(folder, settings=settings))
                    code = 0
                os._exit(code)
            children.append(child)
            check(dataset)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 10


def test_a_child_forked_while_threads_read_is_not_stuck(settings, folder):
    with swingby.open(folder, settings=settings) as dataset:
        stop = threading.Event()

        def read():
            while not stop.is_set():
                check(dataset)
                with contextlib.suppress(OSError):
                    sessions.session(settings).client.call(Evict(), 10)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(15):
                child = os.fork()
                if child == 0:
                    code = 1
                    with contextlib.suppress(BaseException):
                        check(dataset, np.arange(10))
                        code = 0
                    os._exit(code)
                assert os.waitpid(child, 0)[1] == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def _child(dataset, numbers, results):
    results.send([bytes(dataset[number].data) for number in numbers])


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_datasets_go_to_other_processes_by_any_start_method(settings, folder, method, monkeypatch):
    levels = 1 + __name__.count(".")  # the child imports this module by its name
    root = functools.reduce(lambda path, _: os.path.dirname(path), range(levels), __file__)
    monkeypatch.syspath_prepend(root)
    context = multiprocessing.get_context(method)
    results, sender = context.Pipe(duplex=False)
    with swingby.open(folder, settings=settings) as dataset:
        expected = [bytes(dataset[number].data) for number in (0, 5, 59)]
        worker = context.Process(target=_child, args=(dataset, [0, 5, 59], sender))
        worker.start()
        sender.close()
        assert results.poll(60)
        assert results.recv() == expected
        worker.join()
        assert worker.exitcode == 0


def test_the_plan_of_a_dead_job_ends(settings, folder):
    for number in range(1500):
        with open(f"{folder}/more-{number:04d}", "wb") as file:
            file.write(b"x" * 100)
    code = (
        "import swingby, time, sys;"
        f"d = swingby.open({folder!r}, settings={{'home': {settings.home!r}}});"
        "i = iter(swingby.Loader(d, batch_size=1, shuffle=True, prefetch_bytes_max=1)); next(i); print('ready', flush=True);"
        "time.sleep(60)"
    )
    job = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    job.stdout.readline()
    client = sessions.session(settings).client
    assert client.call(Status(), 5).message.facts["plans"] == 1
    job.kill()
    job.wait()
    job.stdout.close()
    await_true(lambda: client.call(Status(), 5).message.facts["plans"] == 0)


def test_a_keeper_with_other_settings_is_mentioned_once(settings, folder, caplog):
    keeper_of(settings)
    other = config.load({"home": settings.home, "memory.budget_bytes": "64MiB", "keeper.idle_exit_seconds": 60.0})
    client = sessions.session(other).client
    for _ in range(3):
        client.close()
        client.call(Status(), 5)
    assert [record.message for record in caplog.records if "other settings" in record.message] != []
    assert len([record for record in caplog.records if "other settings" in record.message]) == 1
    client.close()
