"""The demo's report: one HTML file with everything in it. It is well-formed XML too, and asks no server for anything."""

from __future__ import annotations

import os
from html import escape
from typing import TYPE_CHECKING

from swingby.doors.cli.demo import charts
from swingby.doors.cli.demo.results import job, of_way, typical
from swingby.doors.cli.demo.story import SLOWER, WRONG
from swingby.doors.cli.quantities import duration, factor, number, objects, size
from swingby.doors.cli.terminal import shown

if TYPE_CHECKING:
    from swingby.doors.cli.demo.results import Results, Way

STYLE = os.path.join(os.path.dirname(__file__), "style.css")
WAYS: tuple[Way, ...] = ("file by file", "cold", "warm", "burst")

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>Swingby demo</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def render(results: Results) -> str:
    """The page."""
    with open(STYLE, encoding="utf-8") as file:
        style = file.read()
    parts = [_header(results), _cards(results), _story(results), _course(results), _bars(results), _splits(results)]
    parts += [_table(results), _levels(results), _footer(results)]
    return _PAGE.format(style=style, body="\n".join(parts))


def _text(text: str) -> str:
    return escape(shown(text))


def _header(results: Results) -> str:
    far = f", at {results.latency_ms:g} ms a request" if results.latency_ms else ""
    return (
        "<header><h1>Swingby demo</h1>"
        f"<p>{objects(results.objects)}, {size(results.bytes)}, from {_text(results.url)}{far}, "
        "loaded in random order: file by file, then through Swingby.</p></header>"
    )


def _cards(results: Results) -> str:
    plain, cold, warm = (typical(results.epochs, way) for way in ("file by file", "cold", "warm"))
    ratios = results.speedups
    after = number(warm.base_requests)
    wrong = sum(one.wrong_objects for one in results.epochs)
    checked = sum(one.bytes for one in results.epochs)
    cards = [
        _speed_card("Warm epoch", ratios.warm, plain.seconds, warm.seconds),
        _speed_card("Cold epoch", ratios.cold, plain.seconds, cold.seconds),
        _card(
            "Base requests, warm", after, f"{number(plain.base_requests)} an epoch file by file", not warm.base_requests
        ),
        _card("Wrong bytes", number(wrong), f"{size(checked)} hashed and compared", not wrong),
    ]
    return f'<div class="cards">{"".join(cards)}</div>'


def _speed_card(what: str, ratio: float, plain: float, ours: float) -> str:
    if ratio >= 1:
        return _card(what, factor(ratio), f"as fast as file by file: {duration(ours)}, not {duration(plain)}", True)
    return _card(what, factor(1 / ratio), f"as long as file by file: {duration(ours)}, not {duration(plain)}", False)


def _card(what: str, value: str, text: str, is_good: bool) -> str:
    style = "good" if is_good else "bad"
    return f'<div class="card {style}"><span class="what">{what}</span><b>{value}</b><span>{text}</span></div>'


def _story(results: Results) -> str:
    items = []
    for verdict in results.verdicts:
        style = "loss" if verdict.startswith((SLOWER, WRONG)) else "gain" if "as fast" in verdict else "fact"
        items.append(f'<li class="{style}">{_text(verdict)}</li>')
    return f'<section><h2>What it says</h2><ul class="story">{"".join(items)}</ul></section>'


def _course(results: Results) -> str:
    plain = of_way(results.epochs, "file by file")
    ours, listing = job(results.epochs, results.epochs_wanted), results.listing
    totals = [
        duration(seconds + sum(one.seconds for one in found))
        for seconds, found in ((listing.by_file, plain), (listing.by_swingby, ours))
    ]
    lines = [
        charts.Line("plain", charts.joined(plain, listing.by_file)),
        charts.Line("warm", charts.joined(ours, listing.by_swingby)),
    ]
    entries = [
        ("plain", f"file by file: {totals[0]} for {_epochs(len(plain))}"),
        ("warm", f"through Swingby: {totals[1]} for {_epochs(len(ours))}, the first one cold"),
    ]
    return _section(
        "Epoch after epoch",
        "Objects loaded over time, listing included.",
        charts.course(lines, results.objects) + charts.legend(entries),
    )


def _bars(results: Results) -> str:
    fastest = typical(results.epochs, "file by file").seconds
    ordered = [one for way in WAYS for one in of_way(results.epochs, way)]
    text = "In brackets: how many times as fast as the fastest epoch file by file."
    return _section("Every epoch", text, charts.epochs(ordered, fastest))


def _splits(results: Results) -> str:
    found = [typical(results.epochs, way) for way in WAYS if of_way(results.epochs, way)]
    text = "Each bar is one epoch, whole; beside it what it took. Hashing is part of every epoch, so that all bytes are touched."
    return _section(
        "Where the time went",
        text,
        charts.splits([(one.way, one.split, one.seconds) for one in found]) + charts.legend(list(charts.PARTS)),
    )


def _table(results: Results) -> str:
    fastest = typical(results.epochs, "file by file").seconds
    names = ("Epoch", "Time", "Objects/s", "MB/s", "Base requests", "Base bytes", "Burst bytes", "Against file by file")
    rows = []
    for one in results.epochs:
        is_plain = one.way == "file by file"
        ratio = "" if is_plain else factor(fastest / one.seconds)
        style = "" if is_plain or one.seconds <= fastest else ' class="loss"'
        cells = [
            f"{charts.WAY_NAMES[one.way]} {number(one.number)}",
            duration(one.seconds),
            number(one.objects_per_second),
            f"{one.bytes_per_second / 1e6:,.1f}",
            number(one.base_requests),
            size(one.base_bytes),
            size(one.burst_bytes),
        ]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + f"<td{style}>{ratio}</td></tr>")
    head = "".join(f"<th>{name}</th>" for name in names)
    text = (
        f"An epoch's time holds reading and hashing. Listing came before: {duration(results.listing.by_file)} file by file, "
        f"{duration(results.listing.by_swingby)} through Swingby, of {objects(results.listing.objects)}."
    )
    return _section("Figures", text, f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>')


def _levels(results: Results) -> str:
    rows = "".join(
        f"<tr><td>{level.name}</td><td>{size(level.used_bytes)}</td><td>{size(level.budget_bytes)}</td>"
        f'<td class="text">{_text(level.directory)}</td></tr>'
        for level in results.levels
    )
    head = '<th>Level</th><th>Held</th><th>Budget</th><th class="text">Where</th>'
    near = "" if not results.is_near else " The burst level is left out for files that lie as near as it."
    text = f"After the warm epochs; all of it is removed again.{near}"
    return _section("Levels", text, f'<div class="wide"><table><tr>{head}</tr>{rows}</table></div>')


def _footer(results: Results) -> str:
    machine = results.machine
    far = (
        f" Every request to the base waits {results.latency_ms:g} ms first, to stand for storage that is far away; "
        "file by file waits as long for each file."
        if results.latency_ms
        else ""
    )
    unreadable = (
        f" {objects(len(results.unreadable))} could not be read by this user and are left out."
        if results.unreadable
        else ""
    )
    settled = f"Between the cold and the warm epochs {duration(results.settle_seconds)} passed for copies to the burst level; "
    return (
        "<footer>"
        f"<p>How it was measured: one process; file by file means one open and read, or one request, after the other. "
        f"Swingby reads batches of {results.batch_size} with its loader; its keeper runs as threads of the same process, in a home "
        f"of its own that is empty before the cold epoch.{far}{unreadable} {settled}they are in no epoch. "
        "Speed-ups are against the fastest epoch file by file.</p>"
        f"<p>{_text(str(machine['processor']))}, {number(int(machine['cores']))} cores, "
        f"{size(int(machine['memory_bytes']))} of memory, {_text(str(machine['system']))}, {_text(str(machine['python']))}, "
        f"files on {_text(str(machine['file_system']) or 'remote storage')}. Swingby {_text(results.version)}, "
        f"{_text(results.taken_at)}.</p>"
        "</footer>"
    )


def _section(title: str, text: str, inside: str) -> str:
    return f"<section><h2>{title}</h2><p>{text}</p>{inside}</section>"


def _epochs(count: int) -> str:
    return f"{number(count)} epoch{'' if count == 1 else 's'}"
