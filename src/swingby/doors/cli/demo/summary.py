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

COLUMNS = ("Epoch", "Time", "Objects/s", "Rate", "Base requests", "Base bytes", "Speed-up")
NARROW = {"Epoch", "Time", "Speed-up"}
WIDE = 90  # columns of a terminal that shows all of them


def show(out: Console, results: Results) -> None:
    """Print it."""
    far = f", {results.latency_ms:g} ms a request" if results.latency_ms else ""
    out.print(
        Text(f"{objects(results.objects)}, {size(results.bytes)}, from {shown(results.url)}{far}\n", style="bold"),
        soft_wrap=True,
    )
    out.print(_table(results, out.width))
    for verdict in results.verdicts:
        is_loss = verdict.startswith((SLOWER, WRONG))
        out.print(Text(f"• {shown(verdict)}", style="red" if is_loss else "green" if "as fast" in verdict else ""))


def _table(results: Results, width: int) -> Table:
    """All columns where they fit, else those that matter."""
    plain = typical(results.epochs, "file by file").seconds
    shown_columns = [column for column in COLUMNS if width >= WIDE or column in NARROW]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in shown_columns:
        table.add_column(name, justify="left" if name == "Epoch" else "right", no_wrap=True)
    for one in results.epochs:
        ratio = plain / one.seconds
        is_plain = one.way == "file by file"
        cells: dict[str, str | Text] = {
            "Epoch": f"{WAY_NAMES[one.way]} {one.number}",
            "Time": duration(one.seconds),
            "Objects/s": number(one.objects_per_second),
            "Rate": rate(one.bytes_per_second),
            "Base requests": number(one.base_requests),
            "Base bytes": size(one.base_bytes),
            "Speed-up": Text("" if is_plain else factor(ratio), style="green" if ratio >= 1 else "red"),
        }
        table.add_row(*(cells[name] for name in shown_columns))
    return table
