"""`swingby status`."""

import json
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from swingby.doors.cli.command import Invocation
from swingby.doors.cli.job import until
from swingby.doors.cli.quantities import counted, duration, number, objects, share, size
from swingby.doors.cli.running import Running
from swingby.doors.cli.terminal import shown

WIDE = 60  # columns of a terminal that shows all of the table

JsonOption = Annotated[bool, typer.Option("--json", help="Print facts as JSON.", show_default=False)]


def status(invocation: Invocation, as_json: JsonOption = False) -> None:
    """Show what the levels hold and what they saved; starts no keeper."""
    home = invocation.settings.home
    running = Running.find(invocation.settings)
    facts: dict[str, Any] = {"running": False, "home": home}
    if running:
        facts = {"running": True} | with_ratios(running.facts())
    if as_json:
        print(json.dumps(facts, indent=2))
    elif running:
        _show(invocation.out, facts)
    else:
        invocation.out.print(f"No keeper runs for {shown(home)}; the next use starts one.")


def with_ratios(facts: dict[str, Any]) -> dict[str, Any]:
    """The keeper's facts, with the hit ratio of each level: of the objects looked for there, those found; None before the first."""
    levels = {}
    for name, level in facts["levels"].items():
        looked = level["hits"] + level["misses"]
        levels[name] = level | {"hit_ratio": level["hits"] / looked if looked else None}
    return facts | {"levels": levels}


def _show(out: Console, facts: dict[str, Any]) -> None:
    alive = duration(max(1.0, time.time() - facts["started_at"]))
    others = f"{counted(facts['clients'] - 1, 'other connection')}, {counted(facts['plans'], 'plan')}"
    _say(out, f"Keeper {facts['process']} of {shown(facts['home'])}, for {alive}; {others}.\n")
    out.print(_levels(facts["levels"], out.width))
    _say(out, "")
    for name, level in facts["levels"].items():
        _say(out, f"{name} lies in {shown(level['directory'])}.")
        if level["bad_chunks"]:
            _say(out, f"{name}: {counted(level['bad_chunks'], 'bad chunk')} quarantined.", "red")
    for name in {"memory", "burst"} - facts["levels"].keys():
        _say(out, f"{name} is off; `swingby doctor` says why.", "yellow")
    for name, base in facts["bases"].items():
        if base["requests"]:
            _say(out, _of_base(shown(name), base), "red" if base["failures"] else "")
    delivered, spill = facts["delivered"], facts["spill"]
    _say(
        out,
        f"Delivered {size(delivered['bytes'])} in {objects(delivered['samples'])}; "
        f"read {size(facts['base_bytes'])} from bases; saved them {size(facts['saved_bytes'])} "
        f"({share(facts['byte_hit_ratio'])}).",
    )
    for pin in facts["pins"]:
        _say(out, _of_pin(pin))
    if more := facts["pin_count"] - len(facts["pins"]):
        _say(out, f"… and {counted(more, 'more pin')}.")
    if spill["waiting_segments"]:
        _say(out, f"Still to be copied to the burst level: {counted(spill['waiting_segments'], 'segment')}.")


def _say(out: Console, text: str, style: str = "") -> None:
    out.print(text, style=style, soft_wrap=True)


def _levels(levels: dict[str, Any], width: int) -> Table:
    """A row for every level; on a narrow terminal less of it."""
    names = ("Level", "Used", "Budget", "Hit rate", "Segments", "Evicted")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    columns = len(names) if width >= WIDE else names.index("Segments")
    for name in names[:columns]:
        table.add_column(name, justify="left" if name == "Level" else "right", no_wrap=True)
    for name, level in levels.items():
        cells = (
            name,
            size(level["used_bytes"]),
            size(level["budget_bytes"]),
            "—" if level["hit_ratio"] is None else share(level["hit_ratio"]),
            number(level["segments"]),
            number(level["evicted_segments"]),
        )
        table.add_row(*cells[:columns])
    return table


def _of_pin(pin: dict[str, Any]) -> str:
    how_long = until(pin["process"], pin["seconds_left"]) if pin["leased"] else "while its connection lives"
    return f"Pinned on the {pin['level']} level: {shown(pin['name'])}, {size(pin['bytes'])}, {how_long}."


def _of_base(name: str, base: dict[str, Any]) -> str:
    latency = f", {duration(base['latency_seconds'])} each" if base["latency_seconds"] else ""
    copied = "as near as the burst level: not copied there" if base["near"] else "copied to the burst level"
    failed = f", {number(base['failures'])} failed" if base["failures"] else ""
    return f"{name}: {counted(base['requests'], 'request')}{latency}{failed}, {size(base['bytes'])} read; {copied}."
