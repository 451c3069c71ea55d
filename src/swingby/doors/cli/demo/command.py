"""`swingby demo`."""

import json
import os
from typing import Annotated

import msgspec
import typer

from swingby import config
from swingby.doors.cli.command import Invocation
from swingby.doors.cli.demo.report import render
from swingby.doors.cli.demo.run import Demo, Terms
from swingby.doors.cli.demo.source import Choice, installed_python
from swingby.doors.cli.demo.summary import show
from swingby.doors.cli.ending import ExitCode
from swingby.doors.cli.status import JsonOption
from swingby.doors.cli.terminal import shown
from swingby.doors.cli.waiting import Waiting
from swingby.doors.cli.warm import ExcludeOption, IncludeOption
from swingby.errors import ConfigError

REPORT = "swingby-demo.html"
BYTES_MAX = "4GiB"
EPOCHS = 3
LATENCY_MS_MAX = 10_000.0  # ten seconds a request: nobody waits for more

UrlArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="URL", help="Directory, or s3://bucket/prefix; else Python's own library.", show_default=False
    ),
]
LatencyOption = Annotated[
    float,
    typer.Option(
        "--latency-ms",
        min=0.0,
        max=LATENCY_MS_MAX,
        metavar="MS",
        help="Stand for a far base: wait before each request.",
    ),
]
EpochsOption = Annotated[int, typer.Option("--epochs", min=2, max=100, metavar="N", help="On each side.")]
ReportOption = Annotated[str, typer.Option("--report", metavar="PATH", help="Where the HTML report goes.")]
BytesOption = Annotated[str, typer.Option("--bytes-max", metavar="SIZE", help="Refuse more than this.")]


def demo(
    invocation: Invocation,
    url: UrlArgument = None,
    *,
    latency_ms: LatencyOption = 0.0,
    epochs: EpochsOption = EPOCHS,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    bytes_max: BytesOption = BYTES_MAX,
    report: ReportOption = REPORT,
    as_json: JsonOption = False,
) -> int:
    """Load real files, file by file and through Swingby; compare, check every byte, write a report.

    Three epochs on each side, in the same random order; then all it kept is removed. Exit code 1: bytes were wrong.
    """
    choice = Choice(url or "", include or [], exclude or [], _size(bytes_max))
    if url is None:
        choice = installed_python(choice)
    _refuse_early(report)
    with Waiting(invocation.err, "listing") as waiting:
        results = Demo(choice, invocation.settings, Terms(latency_ms / 1000, epochs), waiting).run()
    with open(report, "w", encoding="utf-8") as file:
        file.write(render(results))
    if as_json:
        print(json.dumps(msgspec.to_builtins(results), indent=2))
    else:
        show(invocation.out, results)
        invocation.out.print(f"\nReport: {shown(os.path.abspath(report))}", soft_wrap=True)
    return ExitCode.NO if any(one.wrong_objects for one in results.epochs) else ExitCode.DONE


def _size(text: str) -> int:
    try:
        return config.parse_size(text)
    except ValueError as error:
        raise ConfigError(f"--bytes-max: {error}") from None


def _refuse_early(report: str) -> None:
    """Find out that the report cannot be written before a minute was spent on it.

    Raises:
        ConfigError: it cannot.
    """
    is_new = not os.path.exists(report)
    try:
        with open(report, "a", encoding="utf-8"):
            pass
    except OSError as error:
        text = f"the report cannot be written to {shown(report) or repr(report)}: {error.strerror}"
        raise ConfigError(text, remedy="Name another file with --report") from None
    if is_new:
        os.unlink(report)
