"""What is warmed for a job stays while the job lives, and no longer: real keepers, processes and signals."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from swingby import config
from swingby.doors.cli.running import Running
from swingby.keeper.place import place_of

SWINGBY = [sys.executable, "-c", "from swingby.doors.cli.main import main; main()"]
SECONDS_MAX = 20


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "files").mkdir()
    rng = random.Random(0)
    for number in range(20):
        (tmp_path / "files" / f"{number:02d}").write_bytes(rng.randbytes(50_000))
    return str(tmp_path / "files")


@pytest.fixture
def start(home):
    """Begins a command; what is left of them is ended, the keeper too."""
    begun = []

    def run(*arguments):
        process = subprocess.Popen(
            [*SWINGBY, "--home", home, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        begun.append(process)
        return process

    yield run
    for process in begun:
        process.kill()
        process.communicate()
    if found := Running.find(config.load({"home": home})):
        found.stop()


@pytest.fixture
def command(start):
    def run(*arguments, code=0):
        process = start(*arguments)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, (process.returncode, out, err)
        assert "Traceback" not in out + err
        return out, err

    return run


def pins(home):
    found = Running.find(config.load({"home": home}))
    return found.facts()["pins"] if found else []


def until(condition):
    end = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_pins_of_a_job_end_when_it_is_killed(home, folder, start, command, how):
    job = start("warm", folder, "--for-job", "--", "sleep", "60")
    until(lambda: [pin["process"] for pin in pins(home) if pin["leased"]] == [job.pid])
    assert f"until process {job.pid} ends" in command("status")[0]
    job.send_signal(how)
    until(lambda: not pins(home))
    assert job.wait(SECONDS_MAX) == -how  # the signal reached the job itself


def test_a_job_is_run_as_given_and_its_exit_code_is_the_commands(home, folder, command):
    out, err = command("warm", folder, "--for-job", "--", "sh", "-c", "echo $1 $#; exit 7", "x", "--home", "y", code=7)
    assert out == "--home 2\n"  # the warm-up says nothing where the job speaks
    assert "20 objects present" in err
    assert "Held until process" in err


def test_pins_outlive_the_command_that_made_them_and_end_with_the_process_they_name(home, folder, command):
    job = subprocess.Popen(["sleep", "60"])
    try:
        command("warm", folder, "--for-job", str(job.pid))
        time.sleep(1.0)  # several looks at the process
        assert [(pin["process"], pin["seconds_left"]) for pin in pins(home)] == [(job.pid, None)]
        assert f"until process {job.pid} ends" in command("status")[0]
    finally:
        job.kill()
    until(lambda: not pins(home))  # not even reaped
    job.wait()


def test_pins_expire(home, folder, command):
    command("warm", folder, "--for-job", str(os.getpid()), "--expires", "1s")
    command("warm", folder, "--expires", "2h")
    until(lambda: len(pins(home)) == 1)
    left = json.loads(command("status", "--json")[0])["pins"][0]
    assert left["process"] is None
    assert 7100 < left["seconds_left"] < 7200
    assert left["name"] == folder
    assert left["bytes"] >= 1_000_000


def test_a_keeper_with_pins_does_not_leave_as_idle(home, folder, command):
    command("--set", "keeper.idle_exit_seconds=0.5", "warm", folder, "--expires", "5s")
    time.sleep(3.0)  # nobody looks
    assert len(pins(home)) == 1
    end = time.monotonic() + SECONDS_MAX
    while os.path.exists(socket_of(home)):
        assert time.monotonic() < end
        time.sleep(0.1)


def socket_of(home):
    return place_of(config.load({"home": home})).socket


def test_evict_ends_pins_of_jobs_and_not_those_of_others(home, folder, command, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a").write_bytes(b"a" * 1000)
    command("warm", folder, "--expires", "2h")
    command("warm", str(tmp_path / "other"), "--expires", "2h")
    assert "1 pin ended" in command("evict", folder)[1]
    assert [pin["name"] for pin in pins(home)] == [str(tmp_path / "other")]


def test_more_than_a_share_of_the_levels_is_refused_and_nothing_is_run(home, folder, command, tmp_path):
    small = ("--set", "memory.budget_bytes=10000000", "--set", "burst.budget_bytes=0")
    for number in range(2):
        (tmp_path / "files" / f"large {number}").write_bytes(os.urandom(4_500_000))
    _, err = command(*small, "warm", folder, "--for-job", "--", "touch", str(tmp_path / "ran"), code=1)
    assert "cannot be pinned" in err
    assert "75%" in err
    assert not (tmp_path / "ran").exists()
    assert Running.find(config.load({"home": home})).facts()["base_bytes"] == 0
    command(*small, "warm", folder, "--include", "0*", "--expires", "1h")  # a part may be
    assert len(pins(home)) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--for-job",),
        ("--for-job", "me"),
        ("--for-job", "999999999"),
        ("--for-job", "--", "no-such-command-here"),
        ("--expires", "soon"),
        ("--expires", "0s"),
        ("--hold", "--expires", "1h"),
        ("--", "true"),
        ("--for-job", "1", "--", "true"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_touched(home, folder, command, arguments):
    command("warm", folder, *arguments, code=2)
    assert not os.path.exists(home)
