"""The command line, as a user runs it: real processes, real keepers, files and exit codes."""

from __future__ import annotations

import glob
import io
import json
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import tarfile
import time

import pytest

from swingby import config
from swingby.doors.cli import running
from swingby.doors.cli.application import COMMANDS
from swingby.doors.cli.ending import ExitCode
from swingby.doors.cli.main import main
from swingby.doors.cli.running import Running
from swingby.doors.cli.status import with_ratios
from swingby.keeper import client
from swingby.keeper.place import place_of

SWINGBY = [sys.executable, "-c", "from swingby.doors.cli.main import main; main()"]


class Cli:
    def __init__(self, home):
        self.home = home

    def __call__(self, *arguments, code=0):
        done = subprocess.run(
            [*SWINGBY, "--home", self.home, *arguments],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert code in {None, done.returncode}, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stdout + done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        return done

    def facts(self):
        return with_ratios(Running.find(config.load({"home": self.home})).facts())

    def start(self, *arguments):
        return subprocess.Popen(
            [*SWINGBY, "--home", self.home, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )


@pytest.fixture
def cli(home):
    yield Cli(home)
    stop(home)


def stop(home):
    found = Running.find(config.load({"home": home}))
    if found:
        found.stop()


@pytest.fixture
def at_once(capsys, monkeypatch, home):
    """Runs a command in this process: exit code, output, messages."""
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["swingby", "--home", home, *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code or 0, *capsys.readouterr())

    yield run
    for number, handler in signals.items():
        signal.signal(number, handler)
    stop(home)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "files with spaces"
    rng = random.Random(0)
    for number in range(60):
        place = path / rng.choice(["a", "b"])
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:02d} ü.bin").write_bytes(rng.randbytes(rng.randint(0, 40_000)))
    (path / "large.bin").write_bytes(rng.randbytes(9 << 20))
    return path


# -- warm, status, verify, evict ---------------------------------------------------------------------------------------


def test_warm_makes_all_present_and_a_second_one_asks_the_base_for_nothing(cli, folder):
    assert "61 objects present" in cli("warm", str(folder)).stdout
    before = cli.facts()
    assert "61 objects present" in cli("warm", str(folder)).stdout
    after = cli.facts()
    assert after["process"] == before["process"]
    assert after["base_bytes"] == before["base_bytes"] == sum(os.path.getsize(one) for one in files(folder))


def files(folder):
    return [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]


def test_patterns_choose_what_is_warmed(cli, folder):
    cli("warm", str(folder), "--include", "a/*", "--include", "b/*", "--exclude", "*7 ü.bin")
    chosen = [one for one in files(folder) if not one.endswith(("7 ü.bin", "large.bin"))]
    assert cli.facts()["base_bytes"] == sum(map(os.path.getsize, chosen))


def test_status_shows_levels_bases_and_what_was_saved(cli, folder):
    cli("warm", str(folder))
    text = cli("status").stdout
    for word in ("memory", "burst", "Budget", "Hit rate", "file:", "saved them"):
        assert word in text
    facts = json.loads(cli("status", "--json").stdout)
    assert facts["running"] is True
    assert facts["levels"]["memory"]["used_bytes"] > 9 << 20
    assert facts["levels"]["memory"]["hit_ratio"] is None  # nobody has read yet
    read = f"import swingby; d = swingby.open({str(folder)!r}, settings={{'home': {cli.home!r}}}); d.batch(range(61)); d.close()"
    subprocess.run([sys.executable, "-c", read], check=True)
    assert cli.facts()["levels"]["memory"]["hit_ratio"] == 1.0


def test_status_starts_no_keeper_and_writes_nothing(cli):
    assert "No keeper runs" in cli("status").stdout
    assert json.loads(cli("status", "--json").stdout) == {"running": False, "home": cli.home}
    assert not os.path.exists(cli.home)


def test_what_cannot_be_fetched_is_named_with_its_reason_and_the_rest_is_present(cli, folder):
    lasting = ("--set", "listing.reuse_cost_ratio=1e9")
    cli("warm", str(folder), "--include", "nothing*", *lasting, code=3)  # it lists, and saves the listing
    gone = folder / "a" / min(os.listdir(folder / "a"))
    gone.unlink()
    done = cli("warm", str(folder), *lasting, code=1)
    assert gone.name in done.stderr
    assert "no such file" in done.stderr
    assert "60 of 61 objects present" in done.stdout


def test_what_no_level_admits_is_said(cli, folder):
    small = ("--set", "memory.budget_bytes=16MiB", "--set", "burst.budget_bytes=0")
    done = cli("warm", str(folder), *small, code=1)
    assert "1 object left out" in done.stderr
    assert "60 of 61 objects present" in done.stdout


def test_what_had_to_leave_again_is_said(cli, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(6):
        (folder / str(number)).write_bytes(random.Random(number).randbytes(5 << 20))
    done = cli("warm", str(folder), "--set", "memory.budget_bytes=16MiB", "--set", "burst.budget_bytes=0", code=1)
    assert "had to leave again" in done.stderr


def test_held_data_is_not_evicted_until_ctrl_c(cli, folder):
    holder = cli.start("warm", str(folder), "--hold")
    assert "61 objects" in holder.stdout.readline()
    assert "until Ctrl-C" in holder.stderr.readline()
    assert "stays" in cli("evict", str(folder), code=1).stdout
    holder.send_signal(signal.SIGINT)
    _, said = holder.communicate(timeout=20)
    assert holder.returncode == 0, said
    until = time.monotonic() + 20
    while cli.facts()["levels"]["memory"]["segments"] and time.monotonic() < until:  # it may be copied down just now
        cli("evict", str(folder), code=None)
    assert cli.facts()["levels"]["memory"]["segments"] == 0


def test_evict_takes_one_dataset_or_everything(cli, folder):
    other = folder / "b"
    cli("warm", str(folder))
    cli("warm", str(other))
    cli("evict", str(other))
    assert "61 objects present" in cli("warm", str(folder)).stdout
    assert "Evicted everything" in cli("evict", "--all").stdout
    assert cli.facts()["levels"]["memory"]["used_bytes"] == 0
    assert "Nothing is on any level" in cli("evict", "--all").stdout
    cli("evict", code=2)
    cli("evict", str(folder), "--all", code=2)


def test_verify_finds_a_flipped_bit_and_the_next_warm_heals_it(cli, folder):
    cli("warm", str(folder))
    assert "checked" in cli("verify").stdout
    memory = cli.facts()["levels"]["memory"]["directory"]
    victim = max((os.path.join(memory, name) for name in os.listdir(memory)), key=os.path.getsize)
    with open(victim, "r+b") as file:
        file.seek(5 << 20)
        byte = file.read(1)
        file.seek(5 << 20)
        file.write(bytes([byte[0] ^ 1]))
    done = cli("verify", code=1)
    assert "1 bad" in done.stdout
    assert cli.facts()["levels"]["memory"]["bad_chunks"] == 1
    cli("warm", str(folder))
    assert json.loads(cli("verify", "--json").stdout)["bad_chunks"] == 0


# -- stop, clean -------------------------------------------------------------------------------------------------------


def left_behind(home):
    place = place_of(config.load({"home": home}))
    return [path for path in (home, place.state, place.memory, place.runtime) if os.path.exists(path)]


def has_ended(process):
    """Whether a process is gone, or waits for its parent to take note."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(") ")[2].startswith("Z")
    except FileNotFoundError:
        return True


def test_stop_ends_the_keeper_and_keeps_the_data(cli, folder):
    cli("warm", str(folder))
    first = cli.facts()
    assert "has ended" in cli("stop").stdout
    assert has_ended(first["process"])
    assert "No keeper runs" in cli("stop").stdout
    cli("warm", str(folder))
    assert cli.facts()["base_bytes"] == 0  # memory has kept it


def test_a_keeper_that_does_not_answer_is_ended_all_the_same(cli, folder, monkeypatch):
    monkeypatch.setattr(client, "HELLO_SECONDS_MAX", 0.3)
    monkeypatch.setattr(running, "END_SECONDS_MAX", 0.5)
    cli("warm", str(folder))
    found = Running.find(config.load({"home": cli.home}))
    os.kill(found.process, signal.SIGSTOP)
    found.stop()
    assert has_ended(found.process)
    cli("warm", str(folder))


def test_clean_removes_everything_and_ends_the_keeper(cli, folder, tmp_path):
    burst = tmp_path / "nvme"
    cli("warm", str(folder), "--set", f"burst.directory={burst}")
    process = cli.facts()["process"]
    done = cli("clean", "--yes", "--set", f"burst.directory={burst}")
    assert "Removed" in done.stdout
    assert left_behind(cli.home) == []
    assert os.listdir(burst) == []
    assert has_ended(process)
    assert "nothing to remove" in cli("clean", "--yes").stdout


def test_clean_works_without_a_keeper_and_with_one_that_cannot_start(cli, folder):
    cli("warm", str(folder))
    os.kill(cli.facts()["process"], signal.SIGKILL)
    cli("clean", "--yes", "--set", "keeper.start_seconds_max=0")
    assert left_behind(cli.home) == []


def test_clean_asks_and_takes_no_for_an_answer(cli, folder, in_terminal):
    cli("warm", str(folder))
    done = cli("clean", code=2)
    assert "--yes" in done.stderr
    assert left_behind(cli.home)
    for answer, code in (("n", 1), ("y", 0)):
        said, found = in_terminal([*SWINGBY, "--home", cli.home, "clean"], answer + "\n")
        assert "[y/N]" in said
        assert found == code
        assert bool(left_behind(cli.home)) == bool(code)


# -- endings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("warm", "/no/such/place"), 3, "no such directory"),
        (("warm", "gopher://x/y"), 2, "gopher"),
        (("warm", "s3:///x"), 2, "names no bucket"),
        (("warm",), 2, "Missing argument"),
        (("warm", "/tmp", "--fast"), 2, "No such option"),
        (("polish",), 2, "No such command"),
        (("status", "--set", "memory.buget_bytes=1"), 2, "did you mean 'memory.budget_bytes'"),
        (("status", "--set", "memory"), 2, "--set key=value"),
        (("demo", "/no/such/place"), 3, "no such directory"),
        (("demo", "--report", "/no/such/place/x.html"), 2, "/no/such/place/x.html: No such file"),
        (("demo", "--report", ""), 2, "Name another file with --report"),
        (("demo", "--latency-ms", "inf"), 2, "See `swingby demo --help`"),
        (("demo", "--latency-ms", "-1"), 2, "--latency-ms"),
        (("demo", "--latency-ms", "soon"), 2, "--latency-ms"),
        (("demo", "/tmp", "--bytes-max", "much"), 2, "--bytes-max"),
    ],
)
def test_errors_are_one_line_with_a_code_of_their_kind(at_once, arguments, code, words):
    found, said, complained = at_once(*arguments)
    assert (found, said) == (code, "")
    assert complained.startswith("error: ")
    assert words in complained
    assert complained.count("\n") == 1


def test_debug_shows_where_an_error_came_from(cli):
    done = subprocess.run(
        [*SWINGBY, "--home", cli.home, "warm", "/no/such/place", "--debug"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 3
    assert "Traceback" in done.stderr


def test_global_options_stand_before_and_after_the_command(cli, folder, tmp_path):
    for arguments in (
        ("--set", "scope=x", "status", "--json"),
        ("status", "--json", "--home", str(tmp_path / "other")),
    ):
        cli(*arguments)
    assert json.loads(cli("status", "--json", "--home", str(tmp_path / "other")).stdout)["home"] == str(
        tmp_path / "other"
    )


def test_a_broken_pipe_is_quiet(cli):
    done = subprocess.run(
        ["sh", "-c", '"$@" | true', "sh", *SWINGBY, "--home", cli.home, "doctor", "--json"],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.stderr == ""


def test_a_closed_output_is_no_error(cli):
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *SWINGBY, "--home", cli.home, "status"],
        capture_output=True,
        check=False,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_encoding_without_the_signs_gets_others(cli, folder):
    plain = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [*SWINGBY, "--home", cli.home, "doctor", str(folder)]
    said = subprocess.run(command, capture_output=True, check=False, env=plain).stdout.decode("ascii")
    assert "us a small read" in said or "ms a small read" in said
    assert "* Up to" in said
    assert "\\u2022" not in said


def test_a_terminal_of_40_columns_keeps_whole_words(cli, folder, in_terminal):
    cli("warm", str(folder))
    for command in ("status", "doctor"):
        said, code = in_terminal([*SWINGBY, "--home", cli.home, command], columns=40)
        assert code == 0
        for word in ("memory ", "burst ", cli.home):
            assert word in said


def test_no_color_is_obeyed(cli, folder, in_terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in in_terminal([*SWINGBY, "--home", cli.home, "warm", str(folder / "absent")])[0]


INTERRUPTED_IMPORT = """
import signal, sys
from swingby.doors.cli.main import main
class Finder:
    def find_spec(self, name, *_):
        if name == "swingby.doors.cli.application": signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Finder())
main()
"""


def test_ctrl_c_while_modules_are_loaded_is_quiet():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORT], capture_output=True, check=False, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (130, "")


@pytest.fixture
def silent_server():
    """A server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}", server


@pytest.mark.parametrize("command", ["warm", "demo", "doctor", "evict"])
def test_ctrl_c_ends_with_130_and_breaks_nothing(cli, folder, silent_server, command):
    endpoint, server = silent_server
    access = [f"--set=s3.{name}" for name in (f"endpoint={endpoint}", "access_key_id=x", "secret_access_key=y")]
    started = cli.start(command, "s3://bucket/prefix", *access)
    server.settimeout(20)
    connection, _ = server.accept()
    connection.recv(1)  # the keeper asks, so the client waits
    sent_at = time.monotonic()
    started.send_signal(signal.SIGINT)
    said, complained = started.communicate(timeout=20)
    assert time.monotonic() - sent_at < 1
    connection.close()
    assert started.returncode == 130
    assert "Traceback" not in said + complained
    assert not glob.glob(os.path.join(cli.home, "demo-*"))
    if command == "warm":
        cli("warm", str(folder))


def test_a_base_that_is_down_is_said_within_a_moment_by_doctor(cli):
    access = ("endpoint=http://127.0.0.1:1", "access_key_id=the-id", "secret_access_key=the-secret")
    done = cli("doctor", "s3://bucket/x", *(f"--set=s3.{one}" for one in access), code=1)
    assert "problem" in done.stdout
    assert "the-secret" not in done.stdout + done.stderr
    assert "the-id" not in done.stdout + done.stderr


# -- doctor ------------------------------------------------------------------------------------------------------------


def test_doctor_measures_a_directory_and_says_what_will_be_done(cli, folder):
    report = json.loads(cli("doctor", str(folder), "--json").stdout)
    names = [check["name"] for check in report["checks"]]
    assert names[:6] == ["system", "memory", "shared memory", "open files", "burst directory", "keeper"]
    assert names[6:] == ["base", "base latency", "base throughput"]
    assert {check["state"] for check in report["checks"]} <= {"ok", "note"}
    assert "61 objects" in report["checks"][6]["text"]
    assert any("kept in memory" in sentence for sentence in report["plan"])
    assert ["home", cli.home, "--set"] in report["settings"]
    text = cli("doctor", str(folder)).stdout
    assert "What Swingby will do" in text
    assert not os.path.exists(cli.home)


@pytest.mark.parametrize(
    ("settings", "check", "words"),
    [
        (("memory.directory={tmp}",), "shared memory", "no tmpfs"),
        (("memory.directory={tmp}/absent",), "shared memory", "does not exist"),
        (("burst.directory=/proc/nowhere",), "burst directory", "cannot be written"),
        (("burst.free_floor_ratio=1.0",), "burst directory", "takes nothing more"),
    ],
)
def test_doctor_finds_what_is_wrong_and_names_a_remedy(at_once, tmp_path, settings, check, words):
    arguments = [f"--set={one.format(tmp=tmp_path)}" for one in settings]
    code, said, _ = at_once("doctor", "--json", *arguments)
    assert code == 1
    report = json.loads(said)
    problems = {one["name"]: one for one in report["checks"] if one["state"] == "problem"}
    assert list(problems) == [check]
    assert words in problems[check]["text"]
    assert problems[check]["remedy"]


def test_a_terminal_gets_colours_and_a_pipe_none(cli, folder, in_terminal):
    said, code = in_terminal([*SWINGBY, "--home", cli.home, "warm", str(folder / "absent")])
    assert code == 3
    assert "\x1b[31m" in said


# -- the import --------------------------------------------------------------------------------------------------------


def test_the_library_does_not_import_the_command_line():
    code = "import sys, swingby; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True).stdout.split()
    assert not [name for name in loaded if name.split(".")[0] in {"typer", "rich", "click"} or ".doors" in name]


def test_help_names_every_command(at_once):
    text = at_once("--help")[1]
    for name in (*COMMANDS, "bench"):
        assert name in text
    for name in COMMANDS:
        assert "--home" in at_once(name, "--help")[1]
    assert at_once("--version")[1].startswith("swingby ")


# -- its document ------------------------------------------------------------------------------------------------------


def document():
    with open(os.path.join(os.path.dirname(__file__), "..", "..", "docs", "cli.md"), encoding="utf-8") as file:
        return file.read()


def test_the_commands_of_the_document_run(cli, tmp_path):
    for name in ("a.jpg", "b.jpg", "broken/c.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(random.Random(name).randbytes(5000))
    blocks = re.findall(r"^```bash\n(.*?)^```", document(), re.DOTALL | re.MULTILINE)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert {line[1] for line in lines} == set(COMMANDS) | {"bench"}
    for program, *arguments in lines:
        assert program == "swingby"
        cli(*arguments, code=None if arguments[0] == "doctor" else 0)  # it may find this machine short of something


def test_the_exit_codes_of_the_document_are_all_there_are():
    rows = re.findall(r"^\| ([\d, ]+) \|", document(), re.MULTILINE)
    assert {int(code) for row in rows for code in row.split(",")} == set(ExitCode)


def test_samples_in_containers_are_warmed_checked_and_evicted(cli, tmp_path):
    folder = tmp_path / "tars"
    folder.mkdir()
    for number in range(3):
        with tarfile.open(folder / f"{number}.tar", "w") as made:
            for member in range(20):
                info = tarfile.TarInfo(f"{member}.bin")
                info.size = 5000
                made.addfile(info, io.BytesIO(os.urandom(5000)))
    assert "60 objects present, 300 kB" in cli("warm", str(folder), "--layout", "tar").stdout
    assert cli.facts()["levels"]["memory"]["segments"] >= 1
    assert "60 chunks" in cli("verify").stdout
    assert "Evicted" in cli("evict", str(folder), "--layout", "tar").stdout
    assert cli.facts()["levels"]["memory"]["segments"] == 0
    (folder / "bad.tar").write_bytes(b"nonsense" * 200)
    assert "bad.tar, byte 0: it is no tar" in cli("warm", str(folder), "--layout", "tar", code=7).stderr
    assert "60 objects present" in cli("warm", str(folder), "--layout", "tar", "--skip-bad").stdout
    assert "objects, tar" in cli("warm", str(folder), "--layout", "rar", code=2).stderr
