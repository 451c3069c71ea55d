"""`swingby clean`."""

import sys
from typing import Annotated

import typer

from swingby.doors.cli import removal
from swingby.doors.cli.command import Invocation
from swingby.doors.cli.ending import ExitCode
from swingby.doors.cli.quantities import size
from swingby.doors.cli.running import Running
from swingby.doors.cli.terminal import shown
from swingby.errors import ConfigError, KeeperError
from swingby.keeper.protocol import Clean

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.", show_default=False)]


def clean(invocation: Invocation, yes: YesOption = False) -> int:
    """Remove everything Swingby wrote on this machine for this home, and end its keeper. The base is not touched."""
    settings, out = invocation.settings, invocation.out
    running = Running.find(settings)
    found = removal.written(settings)
    if not found and running is None:
        out.print("There is nothing to remove.")
        return ExitCode.DONE
    for one in found:
        out.print(f"{size(one.bytes):>9}  {shown(one.path)}", soft_wrap=True)
    if not yes and not _is_agreed():
        out.print("Nothing was removed.")
        return ExitCode.NO
    given_back = sum(one.bytes for one in found)
    if running:
        _by_keeper(running)
    removal.remove(settings)
    out.print(f"Removed {size(given_back)}.")
    return ExitCode.DONE


def _by_keeper(running: Running) -> None:
    """Have the keeper remove what it wrote, which it knows best, and end; one that cannot is ended."""
    try:
        running.end_by(Clean())
    except KeeperError:
        running.stop()


def _is_agreed() -> bool:
    if not sys.stdin.isatty():
        raise ConfigError("clean asks before it removes, and there is no terminal", remedy="Give --yes")
    return input("Remove all this, and end the keeper? [y/N] ").strip().lower() in {"y", "yes"}
