"""Fixtures that every kind of test uses."""

from __future__ import annotations

import asyncio
import fcntl
import inspect
import os
import pty
import select
import shutil
import struct
import termios
import uuid

import hypothesis
import pytest

from swingby import config
from swingby.keeper import place as places
from swingby.testing import azurite as azurite_blobs
from swingby.testing import ceph as ceph_s3
from swingby.testing import web_server

hypothesis.settings.register_profile("busy", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("busy")


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch, tmp_path):
    """Tests see no configuration but their own."""
    for name in list(os.environ):
        if name.startswith("SWINGBY_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def home(tmp_path):
    """A home of the test, with everything outside it removed afterwards."""
    path = str(tmp_path / f"home-{uuid.uuid4().hex[:8]}")
    yield path
    place = places.place_of(config.load({"home": path}))
    for folder in (place.memory, place.runtime):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def in_terminal():
    """Runs a command on a terminal of its own: what it prints there, and its exit code."""

    def run(command, typed="", *, columns=80):
        process, terminal = pty.fork()
        if process == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
            os.execv(command[0], command)
        os.write(terminal, typed.encode())
        said = b""
        while select.select([terminal], [], [], 60)[0]:
            try:
                said += os.read(terminal, 4096)
            except OSError:  # the other end is closed
                break
        os.close(terminal)
        return said.decode(), os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    return run


@pytest.fixture(scope="session")
def ceph():
    """A real Ceph with an S3 gateway, for all tests that want one."""
    if absent := ceph_s3.missing():
        pytest.skip(f"not installed: {absent}")
    with ceph_s3.running() as found:
        yield found


@pytest.fixture
def bucket(ceph):
    """A fresh bucket's name."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    ceph_s3.make_bucket(ceph, name)
    return name


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Tests that are coroutines, as those that zarr ships are, run in a loop of their own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(scope="session")
def azurite():
    """A real Azurite, for all tests that want one."""
    if absent := azurite_blobs.missing():
        pytest.skip(f"not installed: {absent}")
    with azurite_blobs.running() as found:
        yield found


@pytest.fixture
def web():
    """A web server of this process."""
    with web_server.running() as found:
        yield found


@pytest.fixture
def container(azurite):
    """A fresh container's name."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    azurite.make_container(name)
    return name


def pytest_addoption(parser):
    parser.addoption("--no-skips", action="store_true", help="fail tests that skip, outside tests/hardware")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.skipped and item.config.getoption("--no-skips") and "tests/hardware" not in str(item.path):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be missing: {report.longrepr}"
