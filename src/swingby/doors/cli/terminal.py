"""Where text goes: two consoles, and keys made safe to print."""

from __future__ import annotations

import codecs
import sys
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from typing import TextIO

PLAIN = {"×": "x", "µ": "u", "•": "*", "·": "|", "—": "-", "–": "-", "…": "...", "⁶": "^6"}
PIPE_WIDTH = 120  # columns where there is no terminal to ask


def consoles() -> tuple[Console, Console]:
    """For results and for messages: standard output and standard error. Colours only where they are terminals."""
    return _console(sys.stdout), _console(sys.stderr)


def shown(text: str) -> str:
    """A key or URL on one line, without characters that a terminal would act on and without halves of others."""
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _spelt(error: UnicodeError) -> tuple[str, int]:
    """Characters that an encoding lacks, as it can write them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(PLAIN.get(one) or _escaped(one) for one in lacking), error.end


def _console(stream: TextIO) -> Console:
    if hasattr(stream, "reconfigure"):
        codecs.register_error("swingby", _spelt)
        stream.reconfigure(errors="swingby")
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=False, width=width)
