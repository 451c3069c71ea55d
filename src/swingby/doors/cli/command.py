"""What all commands share: the global options, the settings they make, and the consoles.

A command is a function of an `Invocation` and its own options; `add` gives it the global options as well, so that they may stand
before and after its name. It returns its exit code, or nothing for success.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from swingby import config
from swingby.doors.cli.ending import ExitCode
from swingby.doors.cli.terminal import consoles
from swingby.errors import ConfigError

PANEL = "Global options"
GIVEN_BY = "--set"

HomeOption = Annotated[
    str | None,
    typer.Option("--home", metavar="DIR", help="Where levels and manifests are kept.", rich_help_panel=PANEL),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any setting, as fetch.inflight_count_max=64.", rich_help_panel=PANEL
    ),
]
DebugOption = Annotated[
    bool, typer.Option("--debug", help="Show where an error was raised.", rich_help_panel=PANEL, show_default=False)
]

_GLOBAL = {"home": (HomeOption, None), "assignments": (SetOption, None), "debug": (DebugOption, False)}

Run = Callable[..., int | None]


class Invocation:
    """One run of one command.

    Args:
        home: as given, or None.
        assignments: "key=value" texts, in the order of the command line.

    Attributes:
        out, err: consoles for results and for messages.
    """

    def __init__(self, home: str | None, assignments: list[str]) -> None:
        self.out, self.err = consoles()
        self._home = home
        self._assignments = assignments

    @functools.cached_property
    def overrides(self) -> dict[str, Any]:
        """The settings that the command line gives.

        Raises:
            ConfigError: one is not of the form key=value.
        """
        found: dict[str, Any] = {} if self._home is None else {"home": self._home}
        for assignment in self._assignments:
            key, equals, value = assignment.partition("=")
            if not equals or not key.strip():
                raise ConfigError(f"--set {assignment!r} is no key=value", remedy="Write --set key=value")
            found[key.strip()] = value
        return found

    @functools.cached_property
    def settings(self) -> config.Settings:
        """The settings in force.

        Raises:
            ConfigError: an unknown setting, or a wrong value.
        """
        return config.load(self.overrides, GIVEN_BY)

    @property
    def origins(self) -> dict[str, str]:
        """Where each setting comes from that is not a default."""
        return config.origins(self.overrides, GIVEN_BY)


def add(app: typer.Typer, name: str, function: Run) -> None:
    """Register a function of (Invocation, own options…) as a command of `app`."""
    own = list(inspect.signature(function).parameters.values())[1:]

    def run(context: typer.Context, **given: Any) -> int:
        before = context.obj or {}
        home = given.pop("home") or before.get("home")
        assignments = (before.get("assignments") or []) + (given.pop("assignments") or [])
        del given["debug"]  # `main` looks for it, wherever it stands
        return function(Invocation(home, assignments), **given) or ExitCode.DONE

    kind = inspect.Parameter.KEYWORD_ONLY
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    shared = [inspect.Parameter(name, kind, default=of[1], annotation=of[0]) for name, of in _GLOBAL.items()]
    parameters = [context, *(one.replace(kind=kind) for one in own), *shared]
    run.__doc__ = function.__doc__
    run.__name__ = function.__name__
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    vars(run)["__signature__"] = inspect.Signature(parameters)  # the command line is made from it
    app.command(name, short_help=(run.__doc__ or "").partition(". ")[0].removesuffix(".") + ".")(run)
