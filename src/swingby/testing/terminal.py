"""Runs a command on a terminal of its own, as a user does."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios

SILENCE_SECONDS_MAX = 60.0
ROWS = 30


def in_terminal(command: list[str], typed: str = "", *, columns: int = 80) -> tuple[str, int]:
    """What a command prints on a terminal, and its exit code.

    Args:
        command: program and arguments.
        typed: on the keyboard, at once.
        columns: of the terminal.
    """
    process, terminal = pty.fork()
    if process == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        os.execv(command[0], command)
    os.write(terminal, typed.encode())
    said = b""
    while select.select([terminal], [], [], SILENCE_SECONDS_MAX)[0]:
        try:
            said += os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
    os.close(terminal)
    return said.decode(), os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
