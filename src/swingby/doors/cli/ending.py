"""How a command ends: its exit code, and the one line that says why.

 code | meaning
------|--------------------------------------------------------------------------------------------
    0 | done
    1 | it ran, and the answer is no: not all is present, bad chunks were found, a check has a problem
    2 | the command line or a setting is wrong
    3 | no such bucket, directory, object or manifest
    4 | the base refuses these credentials
    5 | the base does not answer
    6 | the keeper cannot be had, or failed
    7 | bytes are wrong, or changed since they were listed
   70 | a fault of Swingby's own
  130 | interrupted; 143: terminated
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from enum import IntEnum
from typing import NoReturn, TextIO

import typer

from swingby import errors
from swingby.doors.cli.terminal import consoles, shown


class ExitCode(IntEnum):
    """See the module's text."""

    DONE = 0
    NO = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    BASE_DOWN = 5
    KEEPER = 6
    DATA = 7
    FAULT = 70
    INTERRUPTED = 130
    TERMINATED = 143


_CODES: tuple[tuple[type[errors.SwingbyError], ExitCode], ...] = (
    (errors.ConfigError, ExitCode.USAGE),
    (errors.UrlError, ExitCode.USAGE),
    (errors.ClosedError, ExitCode.FAULT),
    (errors.FormatError, ExitCode.DATA),
    (errors.BadContainerError, ExitCode.DATA),
    (errors.StateError, ExitCode.USAGE),
    (errors.BadSampleError, ExitCode.DATA),
    (errors.ObjectNotFoundError, ExitCode.NOT_FOUND),
    (errors.AccessDeniedError, ExitCode.REFUSED),
    (errors.ObjectExistsError, ExitCode.NO),
    (errors.ObjectChangedError, ExitCode.DATA),
    (errors.CorruptDataError, ExitCode.DATA),
    (errors.TruncatedReadError, ExitCode.BASE_DOWN),
    (errors.BaseUnavailableError, ExitCode.BASE_DOWN),
    (errors.DeadlineError, ExitCode.BASE_DOWN),
    (errors.ForkError, ExitCode.FAULT),
    (errors.LevelError, ExitCode.NO),
    (errors.KeeperError, ExitCode.KEEPER),
)


class Terminated(BaseException):
    """SIGTERM or SIGHUP came: what was begun is cleaned up on the way out."""


def prepare() -> None:
    """Have signals that end a process clean up on the way out, and streams that somebody closed lead nowhere."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _terminate)
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()


def report(error: BaseException, *, debug: bool) -> int:
    """Say what ended the command; its exit code."""
    usage = getattr(error, "format_message", None)  # what the parser of the command line raises
    with contextlib.suppress(BrokenPipeError):
        if isinstance(error, KeyboardInterrupt | Terminated):
            return code_of(error)
        if isinstance(error, typer.Abort):
            return ExitCode.INTERRUPTED
        if debug:
            traceback.print_exception(error)
        text = _usage_line(error, usage()) if usage else line_of(error)
        consoles()[1].print(text, style="red", soft_wrap=True, end="\n" if text else "")
    return ExitCode.USAGE if usage else code_of(error)


def leave(code: int) -> NoReturn:
    """Exit at once: nobody waits for threads that wait for a base."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def be_quiet() -> None:
    """Whoever read our output is gone; what is still buffered goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def code_of(error: BaseException) -> ExitCode:
    """The exit code for what ended a command."""
    if isinstance(error, Terminated):
        return ExitCode.TERMINATED
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return ExitCode.NO if isinstance(error, OSError) else ExitCode.FAULT


def line_of(error: BaseException) -> str:
    """What the user reads: message and remedy, on one line."""
    if isinstance(error, errors.SwingbyError):
        return f"error: {shown(str(error))}"
    if isinstance(error, OSError) and error.strerror:
        where = f"{shown(str(error.filename))}: " if error.filename else ""
        return f"error: {where}{error.strerror}"
    what = shown(f"{type(error).__name__}: {error}")
    return f"error: Swingby failed: {what}. Run the command again with --debug for the details"


def _usage_line(error: BaseException, message: str) -> str:
    """Empty where the help was printed instead."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "swingby"
    return f"error: {shown(message.rstrip('.'))}. See `{command} --help`" if message else ""


def _terminate(number: int, frame: object) -> NoReturn:
    del number, frame
    raise Terminated


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")
