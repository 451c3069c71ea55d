"""`swingby warm`."""

import time
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console

import swingby
from swingby.core.containers.layouts import LAYOUTS, OBJECTS
from swingby.data.dataset import Dataset
from swingby.doors.cli.command import Invocation
from swingby.doors.cli.ending import ExitCode
from swingby.doors.cli.job import become, lease_of, until
from swingby.doors.cli.quantities import duration, number, objects, rate, size
from swingby.doors.cli.running import follow
from swingby.doors.cli.terminal import shown
from swingby.doors.cli.waiting import Waiting
from swingby.errors import ConfigError, DeadlineError, KeeperUnavailableError
from swingby.keeper.client import Exchange
from swingby.keeper.protocol import Progress, Warm

HOLD_POLL_SECONDS = 3600.0

UrlArgument = Annotated[
    str, typer.Argument(metavar="URL", help="Directory, or s3://bucket/prefix.", show_default=False)
]
IncludeOption = Annotated[
    list[str] | None,
    typer.Option("--include", metavar="PATTERN", help="Only keys that match; repeatable.", show_default=False),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="PATTERN", help="Not keys that match; repeatable.", show_default=False),
]
LayoutOption = Annotated[
    str,
    typer.Option(
        "--layout", metavar="LAYOUT", help=f"The samples in containers: {', '.join(LAYOUTS)}.", show_default=False
    ),
]
SkipBadOption = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out containers that are damaged.", show_default=False)
]
HoldOption = Annotated[bool, typer.Option("--hold", help="Then keep it in memory until Ctrl-C.", show_default=False)]
JobOption = Annotated[
    str | None,
    typer.Option(
        "--for-job",
        metavar="PID | -- COMMAND …",
        help="Then keep it while this process runs, or while the command does, which is run.",
        show_default=False,
    ),
]
ExpiresOption = Annotated[
    str | None,
    typer.Option(
        "--expires", metavar="TIME", help="Then keep it so long at most: 90s, 30m, 2h, 1d.", show_default=False
    ),
]
CommandArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[-- COMMAND …]", help="What --for-job runs.", show_default=False)
]


def warm(
    invocation: Invocation,
    url: UrlArgument,
    *,
    command: CommandArgument = None,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    layout: LayoutOption = OBJECTS,
    skip_bad: SkipBadOption = False,
    hold: HoldOption = False,
    for_job: JobOption = None,
    expires: ExpiresOption = None,
) -> int:
    """Make a dataset present ahead of use. What is present already costs nothing. Exit code 1: not all of it is present."""
    lease = lease_of(for_job, expires, command or [])
    if hold and lease:
        raise ConfigError("--hold is until Ctrl-C", remedy="Leave it out beside --for-job and --expires")
    started = time.monotonic()
    with Waiting(invocation.err, "listing") as waiting:
        how: dict[str, Any] = {"layout": layout, "on_bad": "skip" if skip_bad else "raise", "progress": waiting.show}
        dataset = swingby.open(url, None, "auto", include, exclude, settings=invocation.settings, **how)
        exchange = dataset.client.dedicated()
        try:
            message = Warm(dataset.manifest, dataset.filters, hold or lease is not None, lease, shown(url))
            facts = _warm(dataset, exchange, waiting, message)
        except KeyboardInterrupt:
            invocation.err.print("Stopped. What is present stays; run the same command again to go on.")
            raise
    code = _tell(invocation, facts, time.monotonic() - started, invocation.err if command else invocation.out)
    if hold:
        _hold(invocation.err, exchange)
    exchange.close()
    if lease:
        invocation.err.print(f"Held {until(lease.process, lease.seconds)}.")
    if command:
        become(command)
    return code


def _warm(dataset: Dataset, exchange: Exchange, waiting: Waiting, message: Warm) -> dict[str, Any]:
    waiting.begin("warming")
    total = int(dataset.sizes.sum())

    def show(progress: Progress) -> None:
        waiting.show(progress.objects, progress.bytes, total)

    waiting.show(0, 0, total)
    return follow(exchange, message, show)


def _tell(invocation: Invocation, facts: dict[str, Any], seconds: float, out: Console) -> int:
    """Print what became of it; the exit code."""
    total, present = facts["objects_total"], facts["objects_present"]
    if present == total:
        speed = f" in {duration(seconds)}, {rate(facts['bytes'] / seconds)}"
        out.print(f"{objects(total)} present, {size(facts['bytes'])}{speed}.", soft_wrap=True)
        return ExitCode.DONE
    out.print(f"{number(present)} of {objects(total)} present.")
    complain = _complaints(invocation.err)
    for failure in facts["failures"]:
        complain(f"{shown(failure['key'] or '?')}: {shown(failure['message'])}")
    if facts["failed"] > len(facts["failures"]):
        complain(f"… and {number(facts['failed'] - len(facts['failures']))} more")
    if facts["left_out"]:
        complain(
            f"{objects(facts['left_out'])} left out: no level admits a segment larger than half of it. "
            "Raise memory.budget_bytes or burst.budget_bytes; `swingby doctor` shows them."
        )
    evicted = total - present - facts["failed"] - facts["left_out"]
    if evicted > 0:
        complain(
            f"{objects(evicted)} had to leave again: the levels have no room for all of it. `swingby doctor` shows what limits "
            "them; or choose a part with --include."
        )
    return ExitCode.NO


def _complaints(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(text, style="yellow", soft_wrap=True)


def _hold(console: Console, exchange: Exchange) -> None:
    """Pins live as long as the connection: keep it until the user has enough of it.

    Raises:
        KeeperUnavailableError: the keeper ended before.
    """
    console.print("Held in memory until Ctrl-C.")
    try:
        while True:
            try:
                exchange.receive(HOLD_POLL_SECONDS)
            except DeadlineError:
                continue
            except ConnectionError:
                raise KeeperUnavailableError("the keeper has ended; nothing is held any more") from None
    except KeyboardInterrupt:
        console.print("Released; it stays until its room is needed.")
