"""`swingby evict`."""

from typing import Annotated

import typer

import swingby
from swingby import sessions
from swingby.core.containers.layouts import OBJECTS
from swingby.doors.cli.command import Invocation
from swingby.doors.cli.ending import ExitCode
from swingby.doors.cli.quantities import counted, size
from swingby.doors.cli.running import follow
from swingby.doors.cli.terminal import shown
from swingby.doors.cli.waiting import Waiting
from swingby.doors.cli.warm import LayoutOption
from swingby.errors import ManifestNotFoundError, UrlError
from swingby.keeper.protocol import Evict

UrlArgument = Annotated[
    str | None, typer.Argument(metavar="URL", help="Directory, or s3://bucket/prefix.", show_default=False)
]
AllOption = Annotated[bool, typer.Option("--all", help="Everything.", show_default=False)]


def evict(
    invocation: Invocation, url: UrlArgument = None, everything: AllOption = False, layout: LayoutOption = OBJECTS
) -> int:
    """Let a dataset leave all levels, or everything. The base is not touched. Exit code 1: some of it is in use and stays."""
    if (url is None) is not everything:
        raise UrlError("evict takes a URL or --all", remedy="Give one of them")
    digest = _digest(invocation, url, layout) if url else None
    exchange = sessions.session(invocation.settings).client.dedicated()
    facts = follow(exchange, Evict(digest))
    exchange.close()
    what = shown(url) if url else "everything"
    if facts["unpinned"]:
        invocation.err.print(f"{counted(facts['unpinned'], 'pin')} ended.")
    if not facts["segments"] and not facts["kept"]:
        own = f"No segment of {what} is on any level; if a folder above it was loaded, evict that one."
        invocation.out.print(own if url else "Nothing is on any level.", soft_wrap=True)
        return ExitCode.DONE
    invocation.out.print(
        f"Evicted {what}: {counted(facts['segments'], 'segment')}, {size(facts['bytes'])}.", soft_wrap=True
    )
    if facts["kept"]:
        invocation.out.print(
            f"What stays: {counted(facts['kept'], 'segment')}, pinned or being filled.", style="yellow", soft_wrap=True
        )
    return ExitCode.NO if facts["kept"] else ExitCode.DONE


def _digest(invocation: Invocation, url: str, layout: str) -> str:
    """The newest snapshot's; listed only where it never was, as a folder inside a dataset."""
    try:
        return swingby.open(url, refresh="never", layout=layout, on_bad="skip", settings=invocation.settings).manifest
    except ManifestNotFoundError:
        with Waiting(invocation.err, "listing") as waiting:
            found = swingby.open(url, layout=layout, on_bad="skip", progress=waiting.show, settings=invocation.settings)
            return found.manifest
