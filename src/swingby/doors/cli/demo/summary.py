"""The demo's summary on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from swingby.doors.cli.demo.charts import WAY_NAMES
from swingby.doors.cli.demo.results import typical
from swingby.doors.cli.demo.story import SLOWER, WRONG
from swingby.doors.cli.quantities import duration, factor, number, objects, rate, size
from swingby.doors.cli.terminal import shown

if TYPE_CHECKING:
    from rich.console import Console

    from swingby.doors.cli.demo.results import Results


def show(out: Console, results: Results) -> None:
    """Print it."""
    far = f", {results.latency_ms:g} ms a request" if results.latency_ms else ""
    out.print(
        Text(f"{objects(results.objects)}, {size(results.bytes)}, from {shown(results.url)}{far}\n", style="bold"),
        soft_wrap=True,
    )
    out.print(_table(results))
    for verdict in results.verdicts:
        is_loss = verdict.startswith((SLOWER, WRONG))
        out.print(Text(f"• {shown(verdict)}", style="red" if is_loss else "green" if "as fast" in verdict else ""))


def _table(results: Results) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("Epoch", "Time", "Objects/s", "Rate", "Base requests", "Base bytes", "Against file by file"):
        table.add_column(name, justify="left" if name == "Epoch" else "right", no_wrap=True)
    plain = typical(results.epochs, "file by file")
    for one in results.epochs:
        is_plain = one.way == "file by file"
        ratio = plain.seconds / one.seconds
        table.add_row(
            f"{WAY_NAMES[one.way]} {one.number}",
            duration(one.seconds),
            number(one.objects_per_second),
            rate(one.bytes_per_second),
            number(one.base_requests),
            size(one.base_bytes),
            "" if is_plain else Text(factor(ratio), style="green" if ratio >= 1 else "red"),
        )
    return table
