"""Where text goes: two consoles, and keys made safe to print."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from typing import TextIO

PIPE_WIDTH = 120  # columns where there is no terminal to ask


def consoles() -> tuple[Console, Console]:
    """For results and for messages: standard output and standard error. Colours only where they are terminals."""
    return _console(sys.stdout), _console(sys.stderr)


def shown(text: str) -> str:
    """A key or URL on one line, without characters that a terminal would act on and without halves of others."""
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _console(stream: TextIO) -> Console:
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=False, width=width)
