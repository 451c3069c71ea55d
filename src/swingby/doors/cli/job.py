"""What `swingby warm --for-job` holds its data for: a process that runs, or a command that takes this process's place."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import sys
from typing import NoReturn

from swingby.doors.cli.quantities import duration
from swingby.errors import ConfigError
from swingby.keeper.job import started_at
from swingby.keeper.protocol import Lease

OPTION = "--for-job"
ITSELF = "itself"  # what the option holds where a command follows
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "": 1}
SECONDS_MAX = 366 * 86400.0
IGNORED_BY_PYTHON = ("SIGPIPE", "SIGXFZ", "SIGXFSZ")


def with_job(arguments: list[str]) -> list[str]:
    """The same command line, where `--for-job` without a process names this one."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    found = []
    for number, argument in enumerate(arguments):
        found.append(argument)
        if (
            argument == OPTION
            and number < end
            and arguments[number + 1 : number + 2]
            and _is_option(arguments[number + 1])
        ):
            found.append(ITSELF)
    return found


def lease_of(for_job: str | None, expires: str | None, command: list[str]) -> Lease | None:
    """How long to pin; None: not at all.

    Args:
        for_job: a process's id, `ITSELF`, or None.
        expires: a time, as "2h", or None.
        command: that takes this process's place.

    Raises:
        ConfigError: options that make no sense together, no such process or command.
    """
    if bool(command) is not (for_job == ITSELF):
        raise ConfigError(
            "--for-job takes the id of a process, or a command behind it",
            remedy="Write `swingby warm URL --for-job -- COMMAND …`, or --for-job PID",
        )
    if command and not shutil.which(command[0]):
        raise ConfigError(f"there is no command {command[0]!r}", remedy="Check its spelling, and PATH")
    seconds = _seconds(expires) if expires is not None else 0.0
    if for_job is None:
        return Lease(seconds=seconds) if seconds else None
    process = os.getpid() if for_job == ITSELF else _process(for_job)
    started = started_at(process)
    if started is None:
        raise ConfigError(f"--for-job {process}: no such process runs here")
    return Lease(process, started, seconds)


def until(process: int | None, seconds: float | None) -> str:
    """For people: "until process 4711 ends, 2 h 00 min at most", "for 90 s"."""
    if not process:
        return f"for {duration(seconds or 0.0)}"
    return f"until process {process} ends" + (
        f", {duration(seconds)} at most" if seconds is not None and seconds > 0 else ""
    )


def become(command: list[str]) -> NoReturn:
    """Run the command in place of this process: it keeps the id, gets signals itself, and its exit code is the command's."""
    for name in IGNORED_BY_PYTHON:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvp(command[0], command)


def _is_option(argument: str) -> bool:
    return argument.startswith("-")


def _process(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ConfigError(f"--for-job {text!r} is no process", remedy="Give its id, or -- and a command")
    return int(text)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    seconds = float(match[1]) * SECONDS[match[2]] if match else math.nan
    if not 0 < seconds <= SECONDS_MAX:
        raise ConfigError(f"--expires {text!r} is no time", remedy="Write 90s, 30m, 2h or 1d; a year at most")
    return seconds
