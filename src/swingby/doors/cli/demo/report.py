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
    wrong = sum(one.wrong_objects for one in results.epochs)
    checked = sum(one.bytes for one in results.epochs)
    requests = f"{number(plain.base_requests)} file by file"
    cards = [
        _speed_card("Warm epoch", ratios.warm, (plain.seconds, warm.seconds)),
        _speed_card("Cold epoch", ratios.cold, (plain.seconds, cold.seconds)),
    ]
    if ratios.job is not None:
        what = f", for listing and {_epochs(results.epochs_wanted)}"
        cards.append(_speed_card("Whole job", ratios.job, _totals(results), what))
    cards += [
        _card("Warm requests", number(warm.base_requests), requests, not warm.base_requests),
        _card("Wrong objects", number(wrong), f"{size(checked)} hashed and compared", not wrong),
    ]
    return f'<div class="cards">{"".join(cards)}</div>'


def _totals(results: Results) -> tuple[float, float]:
    """Seconds of the whole job, file by file and through Swingby."""
    listing, plain, ours = results.listing, of_way(results.epochs, "file by file"), job(results.epochs)
    by_file = listing.by_file + sum(one.seconds for one in plain)
    return by_file, listing.by_swingby + sum(one.seconds for one in ours)


def _speed_card(title: str, ratio: float, seconds: tuple[float, float], what: str = "") -> str:
    """How many times as fast, or as long; seconds file by file and through Swingby."""
    plain, ours = (duration(one) for one in seconds)
    if ratio >= 1:
        return _card(title, factor(ratio), f"as fast: {ours}, not {plain}{what}", True)
    return _card(title, factor(1 / ratio), f"as long: {ours}, not {plain}{what}", False)


def _card(what: str, value: str, text: str, is_good: bool) -> str:
    style = "good" if is_good else "bad"
    return f'<div class="card {style}"><span class="what">{what}</span><b>{value}</b><span>{text}</span></div>'


def _story(results: Results) -> str:
    items = []
    for verdict in results.verdicts:
        style = "loss" if verdict.startswith((SLOWER, WRONG)) else "gain" if "as fast" in verdict else "fact"
        items.append(f'<li class="{style}">{_text(verdict)}</li>')
    return f'<section><h2>In words</h2><ul class="story">{"".join(items)}</ul></section>'


def _course(results: Results) -> str:
    plain, ours, listing = of_way(results.epochs, "file by file"), job(results.epochs), results.listing
    by_file, by_swingby = (duration(seconds) for seconds in _totals(results))
    lines = [
        charts.Line("plain", f"file by file, {_epochs(len(plain))}", charts.joined(plain, listing.by_file)),
        charts.Line("warm", f"through Swingby, {_epochs(len(ours))}", charts.joined(ours, listing.by_swingby)),
    ]
    entries = [("plain", f"{lines[0].name}: {by_file}"), ("warm", f"{lines[1].name}, the first one cold: {by_swingby}")]
    text = (
        f"Objects loaded over time. Before the first one lies the listing: {duration(listing.by_file)} for the base's answers, "
        f"{duration(listing.by_swingby)} with saving them."
    )
    return _section("Epoch after epoch", text, charts.course(lines, results.objects) + charts.legend(entries))


def _bars(results: Results) -> str:
    fastest = typical(results.epochs, "file by file").seconds
    ordered = [one for way in WAYS for one in of_way(results.epochs, way)]
    text = "How long it took, and how many times as fast as the fastest epoch file by file."
    return _section("Every epoch", text, charts.epochs(ordered, fastest))


def _splits(results: Results) -> str:
    found = [typical(results.epochs, way) for way in WAYS if of_way(results.epochs, way)]
    used = [part for part in charts.PARTS if any(getattr(one.split, part[0]) for one in found)]
    rows = "".join(
        f"<tr><td>{charts.WAY_NAMES[one.way]}</td>"
        + "".join(f"<td>{duration(getattr(one.split, name))}</td>" for name, _ in used)
        + "</tr>"
        for one in found
    )
    head = "<th>Epoch</th>" + "".join(f"<th>{label}</th>" for _, label in used)
    text = "Each bar is one epoch, whole. Hashing is part of every epoch, so that all bytes are touched."
    inside = charts.splits([(one.way, one.split, one.seconds) for one in found]) + charts.legend(used)
    return _section("Where the time went", text, f"{inside}{_rows(head, rows)}")


def _rows(head: str, rows: str) -> str:
    return f'<div class="wide"><table><tr>{head}</tr>{rows}</table></div>'


def _table(results: Results) -> str:
    fastest = typical(results.epochs, "file by file").seconds
    names = ("Epoch", "Time", "Objects/s", "MB/s", "Base requests", "Base bytes", "Burst bytes", "Speed-up")
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
    return _section("Figures", "An epoch's time holds reading and hashing.", _rows(head, "".join(rows)))


def _levels(results: Results) -> str:
    rows = "".join(
        f"<tr><td>{level.name}</td><td>{size(level.used_bytes)}</td><td>{size(level.budget_bytes)}</td>"
        f'<td class="text">{_text(level.directory)}</td></tr>'
        for level in results.levels
    )
    head = '<th>Level</th><th>Held</th><th>Budget</th><th class="text">Where</th>'
    near = "" if not results.is_near else " The burst level is left out for files that lie as near as it."
    text = f"After the warm epochs; all of it is removed again.{near}"
    return _section("Levels", text, _rows(head, rows))


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
    settled = duration(results.settle_seconds)
    return (
        "<footer><h2>How it was measured</h2>"
        "<p>One process. File by file means one open and read, or one request, after the other. It goes first: from its second "
        "epoch on files come from the page cache, and so they do for Swingby's cold epoch. Epoch n has the same random order on "
        f"both sides. Swingby reads batches of {results.batch_size} with its loader; its keeper runs as threads of the same "
        f"process, with levels that are empty before the cold epoch.{far}{unreadable} Between the cold and the warm epochs "
        f"{settled} passed for copies to the burst level; they are in no epoch. Speed-ups are against the fastest epoch file by "
        "file; of Swingby's warm epochs the middle one counts, of two the slower.</p>"
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
