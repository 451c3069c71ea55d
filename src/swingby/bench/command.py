"""`swingby bench`: runs rows, prints every figure beside its promise, and keeps them as JSON."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
import time
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from swingby.bench.context import Context
from swingby.levels.room import usable_memory_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swingby.bench.figures import Figure

ROWS = {
    "level1": "warm random batches against a compiled gather, one and two processes",
    "cold": "16 KiB and 64 MiB objects from Ceph against obstore's threads (needs Ceph)",
    "far": "16 KiB objects from 50 ms away against DataLoader with boto3, and s3fs (needs Ceph; peers in swingby[bench])",
    "epochs": "the second epoch, one cold object, four processes on one dataset (needs Ceph)",
    "short": "a memory level of half the dataset, one job and two (needs Ceph)",
    "files": "100,000 files of 4 to 16 KiB in random order against DataLoader, and WebDataset in sequence (swingby[bench])",
    "step": "a cold epoch under steps that take 0.9 of what the base can give (needs Ceph)",
    "containers": "tars cold and warm against WebDataset's own reading (on Ceph too, where it is; peer in swingby[bench])",
    "startup": "import, first use in a new process, start of a keeper that finds 10,000 segments",
    "torch": "our DataLoader with 2 workers against level 1 and PyTorch's over files, and its memory (needs swingby[bench])",
    "resume": "going on in the middle of an epoch of ten million samples, and of a mixture",
    "manifests": "listing a million files, ten million rows, what a refresh keeps",
}
NEEDS_CEPH = {"cold", "far", "epochs", "short", "step"}
REPETITIONS, PAIRS = 5, 20

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Measure Swingby beside the limit and its peers.")


@app.command("list")
def list_rows() -> None:
    """Say what can be measured."""
    for name, text in ROWS.items():
        print(f"{name:10} {text}")


@app.command()
def run(
    rows: Annotated[list[str] | None, typer.Argument(help="Which; all by default.")] = None,
    *,
    toy: Annotated[
        bool, typer.Option(help="Small sizes, once: shows that nothing has rotted, measures nothing.")
    ] = False,
    repetitions: Annotated[int, typer.Option(help="Of what is repeated.")] = REPETITIONS,
    pairs: Annotated[int, typer.Option(help="Of what is measured in alternating pairs.")] = PAIRS,
    folder: Annotated[str, typer.Option(help="For data, on a disk; made once and kept.")] = "bench-results/data",
    json: Annotated[str | None, typer.Option(help="Write the figures there.")] = None,
    markdown: Annotated[str | None, typer.Option(help="Write them there as a table for people.")] = None,
) -> None:
    """Measure; exit code 1 when a promise is not kept."""
    wanted = rows or list(ROWS)
    if unknown := [name for name in wanted if name not in ROWS]:
        raise typer.BadParameter(f"{', '.join(unknown)}; there are {', '.join(ROWS)}")
    context = Context(toy, 1 if toy else repetitions, 2 if toy else pairs, os.path.abspath(folder))
    os.makedirs(context.folder, exist_ok=True)
    console = Console()
    console.print(describe_machine())
    figures: list[Figure] = []
    for name in wanted:
        figures.extend(_row(name, context, console))
    console.print(_table(figures))
    if json:
        with open(json, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode({"machine": describe_machine(), "figures": figures})))
    if markdown:
        with open(markdown, "w") as text:
            text.write(f"{describe_machine()}\n\n{_markdown(figures)}")
    if not toy and any(figure.holds is False for figure in figures):
        raise typer.Exit(1)


def _row(name: str, context: Context, console: Console) -> Iterator[Figure]:
    if name in NEEDS_CEPH:
        from swingby.testing import ceph

        if absent := ceph.missing():
            console.print(f"{name}: not run; not installed: {absent}")
            return
    if name == "torch" and not importlib.util.find_spec("torch"):
        console.print("torch: not run; not installed: torch")
        return
    started = time.monotonic()
    yield from importlib.import_module(f"swingby.bench.{name}").run(context)
    console.print(f"{name}: {time.monotonic() - started:.0f} s")


def describe_machine() -> str:
    """Processor, cores, memory, kernel, Python."""
    model = platform.machine()
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    memory = usable_memory_bytes() / 2**30
    return (
        f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}, Python {sys.version.split()[0]}, "
        f"{time.strftime('%Y-%m-%d')}"
    )


def _table(figures: list[Figure]) -> Table:
    table = Table()
    for column in ("row", "figure", "measured", "promise", ""):
        table.add_column(column)
    for one in figures:
        mark = {True: "[green]kept[/]", False: "[red]not kept[/]", None: ""}[one.holds]
        table.add_row(one.row, one.name, _measured(one), _promise(one), mark)
        for name, note in _notes(one):
            table.add_row("", f"  [dim]{name}[/]", f"[dim]{note}[/]", "", "")
    return table


def _markdown(figures: list[Figure]) -> str:
    lines = ["| Row | Figure | Measured | Promise | Beside it |", "|---|---|---|---|---|"]
    for one in figures:
        notes = "; ".join(f"{name} {note}" for name, note in _notes(one))
        promise = _promise(one) + ("" if one.holds is not False else " **not kept**")
        lines.append(f"| {one.row} | {one.name} | {_measured(one)} | {promise} | {notes} |")
    return "\n".join(lines) + "\n"


def _measured(one: Figure) -> str:
    interval = f" [{one.interval[0]:.3g} to {one.interval[1]:.3g}]" if one.interval else ""
    return f"{one.value:.4g} {one.unit}{interval}"


def _promise(one: Figure) -> str:
    if one.at_least is not None:
        return f"≥ {one.at_least:g}"
    return f"≤ {one.at_most:g}" if one.at_most is not None else ""


def _notes(one: Figure) -> Iterator[tuple[str, str]]:
    for name, note in one.notes.items():
        yield name.replace("_", " "), f"{note:.4g}" if isinstance(note, float) else str(note)


if __name__ == "__main__":
    app()
