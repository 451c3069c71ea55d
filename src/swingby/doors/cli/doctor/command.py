"""`swingby doctor`."""

import json
import os
import textwrap
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from swingby import assemble, config
from swingby.config import Settings
from swingby.doors.cli.command import Invocation
from swingby.doors.cli.doctor import disk, plan, reach, system
from swingby.doors.cli.doctor.finding import Finding, State
from swingby.doors.cli.ending import ExitCode
from swingby.doors.cli.running import Running
from swingby.doors.cli.status import JsonOption
from swingby.doors.cli.terminal import shown
from swingby.doors.cli.waiting import Waiting
from swingby.errors import SwingbyError
from swingby.keeper.place import place_of
from swingby.levels.room import MemoryRoom, usable_memory_bytes

MARGIN_WIDTH_MIN = 20  # columns, where a terminal says it has none
MARKS = {State.OK: ("ok", "green"), State.NOTE: ("note", "yellow"), State.PROBLEM: ("problem", "bold red")}

UrlArgument = Annotated[
    str | None,
    typer.Argument(metavar="URL", help="A base to look at: directory, or s3://bucket/prefix.", show_default=False),
]


class Report(msgspec.Struct, frozen=True):
    """What `doctor` found.

    Attributes:
        checks: in order.
        plan: what Swingby will do and why.
        settings: those that are not defaults: key, value, where from.
    """

    checks: list[Finding]
    plan: list[str]
    settings: list[tuple[str, str, str]]


def doctor(invocation: Invocation, url: UrlArgument = None, as_json: JsonOption = False) -> int:
    """Look at this machine, the levels and a base; say what Swingby will do and why. Exit code 1: there is a problem."""
    with Waiting(invocation.err, "looking at the machine") as waiting:
        report = examine(invocation, url, waiting)
    if as_json:
        print(json.dumps(msgspec.to_builtins(report), indent=2))
    else:
        _show(invocation.out, report)
    has_problem = any(check.state is State.PROBLEM for check in report.checks)
    return ExitCode.NO if has_problem else ExitCode.DONE


def examine(invocation: Invocation, url: str | None, waiting: Waiting) -> Report:
    """Make all checks."""
    settings = invocation.settings
    running = Running.find(settings)
    checks = [system.kernel(), system.memory(settings, running), system.shared_memory(settings), system.open_files()]
    burst, measured = disk.burst(settings)
    checks += [burst, _keeper(invocation, running)]
    found: reach.Reach | None = None
    if url:
        waiting.begin(f"looking at {shown(url)}")
        more, found = reach.base(url, settings)
        checks += more
    sentences = plan.sentences(
        _budgets(invocation, running), found, measured.small_seconds if measured else None, settings.fetch
    )
    return Report(checks, sentences, _settings(invocation))


def _keeper(invocation: Invocation, running: Running | None) -> Finding:
    try:
        return system.keeper(invocation.settings, running)
    except SwingbyError as error:
        return Finding("keeper", State.PROBLEM, shown(error.message), error.remedy or "")


def _budgets(invocation: Invocation, running: Running | None) -> plan.Budgets:
    """Those of the keeper that runs, else those that one would have now."""
    settings = invocation.settings
    floor = settings.burst.free_floor_ratio
    if running:
        try:
            levels = running.facts()["levels"]
        except SwingbyError:
            levels = {}
        held = {name: level["budget_bytes"] for name, level in levels.items()}
        used = levels["memory"]["used_bytes"] if "memory" in levels else 0
        why = "as the running keeper was started"
        return plan.Budgets(held.get("memory", 0), held.get("burst", 0), why, why, floor, used + _room(settings))
    place = place_of(settings)
    memory = burst = 0
    root = os.path.dirname(place.memory)
    if place.memory and os.access(root, os.W_OK):
        memory = assemble.memory_budget(settings, root)
        memory = memory if memory >= assemble.MEMORY_BYTES_MIN else 0
    nearest = disk.nearest(assemble.burst_directory(settings, place))
    if os.access(nearest, os.W_OK):
        burst = max(0, assemble.burst_budget(settings, nearest))
    memory_why = "as memory.budget_bytes says"
    if settings.memory.budget_bytes is None:
        share = int(usable_memory_bytes() * assemble.MEMORY_SHARE)
        memory_why = "a quarter of what this process may use" if memory >= share else "as far as the tmpfs holds it"
    burst_why = "as burst.budget_bytes says" if settings.burst.budget_bytes else "half of what is free on its disk"
    return plan.Budgets(memory, burst, memory_why, burst_why, floor, _room(settings))


def _room(settings: Settings) -> int:
    """Bytes that memory could take now."""
    root = os.path.dirname(place_of(settings).memory)
    return max(0, MemoryRoom(root, assemble.memory_headroom(settings)).free_bytes()) if os.path.isdir(root) else 0


def _settings(invocation: Invocation) -> list[tuple[str, str, str]]:
    tree = msgspec.to_builtins(invocation.settings)
    found = []
    for key, source in sorted(invocation.origins.items()):
        section, _, name = key.rpartition(".")
        value = tree[section][name] if section else tree[name]
        found.append((key, "(set)" if config.is_secret(key) else _text(value), shown(source)))
    return found


def _text(value: Any) -> str:
    return shown(value) if isinstance(value, str) else json.dumps(value)


def _show(out: Console, report: Report) -> None:
    for check in report.checks:
        mark, style = MARKS[check.state]
        out.print(Text.assemble((f"{mark:<9}", style), (check.name, "bold")))
        _indented(out, _sentence(check.text), " " * 9)
        if check.remedy:
            _indented(out, _sentence(check.remedy), " " * 9, style)
    if report.settings:
        out.print(Text("\nSettings that are not defaults", style="bold"))
        for key, value, source in report.settings:
            _indented(out, f"{key} = {value}, from {source}", "  ")
    out.print(Text("\nWhat Swingby will do", style="bold"))
    for sentence in report.plan:
        _indented(out, f"• {sentence}", "  ")


def _indented(out: Console, text: str, margin: str, style: str = "") -> None:
    """Whole words in every line, so that a path can be copied."""
    hanging = margin + "  " if text.startswith("•") else margin
    lines = textwrap.wrap(
        text,
        max(MARGIN_WIDTH_MIN, out.width),
        initial_indent=margin,
        subsequent_indent=hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
    out.print("\n".join(lines), style=style, soft_wrap=True)


def _sentence(text: str) -> str:
    """With a capital, unless it begins with a path, a URL or a setting."""
    first = text.partition(" ")[0]
    whole = text[:1].upper() + text[1:] if first.isalpha() else text
    return whole if whole.endswith((".", "!", "?")) else whole + "."
