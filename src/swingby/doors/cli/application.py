"""The application: all commands, made from their functions."""

import contextlib
import importlib
import importlib.util
from typing import Annotated, Any

import typer

from swingby import __version__
from swingby.doors.cli import command
from swingby.doors.cli.clean import clean
from swingby.doors.cli.command import DebugOption, HomeOption, SetOption
from swingby.doors.cli.demo.command import demo
from swingby.doors.cli.doctor.command import doctor
from swingby.doors.cli.ending import ExitCode
from swingby.doors.cli.evict import evict
from swingby.doors.cli.job import with_job
from swingby.doors.cli.status import status
from swingby.doors.cli.stop import stop
from swingby.doors.cli.verify import verify
from swingby.doors.cli.warm import warm

COMMANDS: dict[str, command.Run] = {
    "demo": demo,
    "status": status,
    "warm": warm,
    "verify": verify,
    "evict": evict,
    "clean": clean,
    "stop": stop,
    "doctor": doctor,
}
BENCH = "swingby.bench.command"
BENCH_HELP = "Measure this machine: Swingby against limits and peers."
EPILOG = (
    "Exit codes: 0 done, 1 the answer is no, 2 wrong usage, 3 not found, 4 access denied, 5 the base is down, "
    "6 no keeper, 7 wrong bytes, 130 interrupted."
)


def run(arguments: list[str]) -> int:
    """Run what the arguments say; the exit code. Raises what ended it."""
    found: Any = _build(arguments)(args=with_job(arguments), prog_name="swingby", standalone_mode=False)
    return int(found) if isinstance(found, int) else ExitCode.DONE


def _build(arguments: list[str]) -> typer.Typer:
    """The application. What `bench` needs is imported only when the arguments name it."""
    app = typer.Typer(
        help="Any dataset at memory speed, in front of the storage it lies on.",
        epilog=EPILOG,
        add_completion=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_remember)
    for name, function in COMMANDS.items():
        command.add(app, name, function)
    _add_bench(app, arguments)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"swingby {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.", show_default=False),
]


def _remember(
    context: typer.Context,
    home: HomeOption = None,
    assignments: SetOption = None,
    debug: DebugOption = False,
    version: Version = False,
) -> None:
    del debug, version
    context.obj = {"home": home, "assignments": assignments}


def _add_bench(app: typer.Typer, arguments: list[str]) -> None:
    if importlib.util.find_spec(BENCH) is None:
        return
    if "bench" in arguments:
        with contextlib.suppress(ImportError):
            app.add_typer(importlib.import_module(BENCH).app, name="bench", help=BENCH_HELP)
    else:
        app.add_typer(typer.Typer(), name="bench", help=BENCH_HELP)
