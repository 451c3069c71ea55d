"""`swingby status`."""

import json
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from swingby.doors.cli.command import Invocation
from swingby.doors.cli.quantities import duration, number, share, size
from swingby.doors.cli.running import Running
from swingby.doors.cli.terminal import shown

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
    out.print(f"Keeper {facts['process']} of {shown(facts['home'])}, for {alive}.")
    out.print(f"{number(facts['clients'] - 1)} other connections, {number(facts['plans'])} plans.\n", soft_wrap=True)
    out.print(_levels(facts["levels"]))
    if facts["bases"]:
        out.print(_bases(facts["bases"]))
    delivered, spill = facts["delivered"], facts["spill"]
    out.print(
        f"Delivered {size(delivered['bytes'])} in {number(delivered['samples'])} objects; "
        f"read {size(facts['base_bytes'])} from bases; saved them {size(facts['saved_bytes'])} "
        f"({share(facts['byte_hit_ratio'])}).",
        soft_wrap=True,
    )
    if spill["waiting_segments"]:
        out.print(f"{number(spill['waiting_segments'])} segments wait to be copied to the burst level.")


def _levels(levels: dict[str, Any]) -> Table:
    table = _table("Level", "Used", "Budget", "Segments", "Hit rate", "Evicted", "Bad chunks", "Where")
    for name, level in levels.items():
        table.add_row(
            name,
            size(level["used_bytes"]),
            size(level["budget_bytes"]),
            number(level["segments"]),
            "—" if level["hit_ratio"] is None else share(level["hit_ratio"]),
            number(level["evicted_segments"]),
            number(level["bad_chunks"]),
            shown(level["directory"]),
        )
    for name in {"memory", "burst"} - levels.keys():
        table.add_row(name, "off", "", "", "", "", "", "see `swingby doctor`")
    return table


def _bases(bases: dict[str, Any]) -> Table:
    table = _table("Base", "Requests", "Read", "Failed", "Latency", "Copied to burst")
    for name, base in bases.items():
        table.add_row(
            shown(name),
            number(base["requests"]),
            size(base["bytes"]),
            number(base["failures"]),
            duration(base["latency_seconds"]) if base["latency_seconds"] else "—",
            "no, it is as near" if base["near"] else "yes",
        )
    return table


def _table(*columns: str) -> Table:
    """Text to the left in the first and last columns, numbers to the right between them."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        is_text = name in {columns[0], columns[-1]}
        table.add_column(name, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
    return table
