"""The report's charts: SVG inside the page, coloured by the page's style sheet."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from swingby.doors.cli.quantities import duration, factor, number, share

if TYPE_CHECKING:
    from swingby.doors.cli.demo.results import Epoch, Split, Way

WIDTH = 920  # of every drawing, in its own units
TICKS = 5
ROW, BAR, GAP = 34, 20, 6  # heights of a row, of the bar in it, and between thick bars
BASELINE = 4.5  # of a text below the middle of its row
THIN = 1.5  # the shortest bar that is seen
LABEL_WIDTH, VALUE_WIDTH = 190, 190
COURSE_HEIGHT, COURSE_LEFT, COURSE_RIGHT, COURSE_TOP, COURSE_BOTTOM = 300, 64, 24, 18, 46
NARROW_RATIO = 0.045  # of the width: a part of a bar too narrow for its label

WAY_CLASSES: dict[Way, str] = {"file by file": "plain", "cold": "cold", "burst": "burst", "warm": "warm"}
WAY_NAMES: dict[Way, str] = {
    "file by file": "File by file",
    "cold": "Swingby, cold",
    "burst": "Swingby, from burst",
    "warm": "Swingby, warm",
}
PARTS = (
    ("base", "waiting for the base"),
    ("keeper", "keeper and burst level"),
    ("process", "this process, memory level included"),
    ("check", "hashing every byte"),
)


class Line(NamedTuple):
    """A line of the course: its class, and points of seconds and objects."""

    style: str
    points: list[tuple[float, float]]


def course(lines: list[Line], objects: int) -> str:
    """Objects loaded over time, all epochs one after the other."""
    seconds = max(line.points[-1][0] for line in lines)
    most = max(line.points[-1][1] for line in lines)
    width, height = WIDTH - COURSE_LEFT - COURSE_RIGHT, COURSE_HEIGHT - COURSE_TOP - COURSE_BOTTOM

    def at(second: float, count: float) -> tuple[float, float]:
        return COURSE_LEFT + width * second / seconds, COURSE_TOP + height * (1 - count / most)

    parts = []
    for epoch in range(round(most / objects) + 1):
        x, y = at(0, epoch * objects)
        parts.append(f'<line class="grid" x1="{x}" x2="{x + width}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_label("tick", x - 8, y + 4, f"{epoch} epoch{'' if epoch == 1 else 's'}" if epoch else "0", "end"))
    bottom = COURSE_HEIGHT - COURSE_BOTTOM + 20
    parts += [_label("tick", at(tick, 0)[0], bottom, duration(tick), "middle") for tick in ticks(seconds)]
    for line in lines:
        path = " ".join("{:.1f},{:.1f}".format(*at(*point)) for point in line.points)
        parts.append(f'<polyline class="line {line.style}" points="{path}"/>')
        x, y = at(*line.points[-1])
        parts.append(f'<circle class="dot {line.style}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>')
    return _drawing(COURSE_HEIGHT, "Objects loaded over time", parts)


def epochs(found: list[Epoch], fastest_seconds: float) -> str:
    """A bar for every epoch, as long as it took."""
    longest = max(one.seconds for one in found)
    parts = []
    for row, one in enumerate(found):
        top, middle = row * ROW, row * ROW + ROW / 2 + BASELINE
        width = max(THIN, (WIDTH - LABEL_WIDTH - VALUE_WIDTH) * one.seconds / longest)
        is_plain = one.way == "file by file"
        ratio = "" if is_plain else f"  ({factor(fastest_seconds / one.seconds)})"
        style = "value loss" if not is_plain and one.seconds > fastest_seconds else "value"
        name = WAY_NAMES[one.way] + (f", epoch {number(one.number)}" if one.way in {"file by file", "warm"} else "")
        parts.append(_label("name", LABEL_WIDTH - 12, middle, name, "end"))
        parts.append(_box(f"bar {WAY_CLASSES[one.way]}", (LABEL_WIDTH, top + (ROW - BAR) / 2, width, BAR)))
        parts.append(_label(style, LABEL_WIDTH + width + 10, middle, duration(one.seconds) + ratio))
    return _drawing(ROW * len(found), "Seconds of every epoch", parts)


def splits(found: list[tuple[Way, Split, float]]) -> str:
    """For each way of loading a bar of where the time went, all of the same length."""
    room = WIDTH - LABEL_WIDTH - 90
    parts = []
    for row, (way, split, seconds) in enumerate(found):
        top, left = row * (ROW + GAP), float(LABEL_WIDTH)
        middle = top + ROW / 2 + BASELINE
        parts.append(_label("name", LABEL_WIDTH - 12, middle, WAY_NAMES[way], "end"))
        for name, label in PARTS:
            spent = getattr(split, name)
            ratio = spent / seconds
            told = f"{label}: {duration(spent)}, {share(ratio)}"
            parts.append(_box(f"part {name}", (left, top + 3, room * ratio, ROW - 6), told))
            if ratio > NARROW_RATIO:
                parts.append(_label("inside", left + room * ratio / 2, middle, f"{100 * ratio:.0f} %", "middle"))
            left += room * ratio
        parts.append(_label("value", LABEL_WIDTH + room + 12, middle, duration(seconds)))
    return _drawing((ROW + GAP) * len(found), "Where the time went", parts)


def legend(entries: list[tuple[str, str]]) -> str:
    """Colours and what they mean, from classes and labels."""
    items = "".join(f'<li><span class="swatch {style}"></span>{escape(label)}</li>' for style, label in entries)
    return f'<ul class="legend">{items}</ul>'


def joined(found: list[Epoch], listing_seconds: float) -> list[tuple[float, float]]:
    """The curves of epochs that followed a listing and each other, as one: seconds and objects since the beginning."""
    points: list[tuple[float, float]] = [(0.0, 0.0)]
    seconds, objects = listing_seconds, 0.0
    for one in found:
        points += [(seconds + at, objects + count) for at, count in one.progress]
        seconds, objects = seconds + one.seconds, objects + one.objects
    return points


def ticks(highest: float) -> list[float]:
    """About five round numbers from 0 to the highest."""
    step = 10 ** math.floor(math.log10(highest / TICKS))
    step *= next(factor for factor in (1, 2, 5, 10) if highest / (step * factor) <= TICKS + 1)
    return [step * count for count in range(int(highest / step) + 1)]


def _label(style: str, x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _box(style: str, area: tuple[float, float, float, float], told: str = "") -> str:
    """A rectangle at x, y of some width and height, which says something when pointed at."""
    x, y, width, height = area
    title = f"<title>{escape(told)}</title>" if told else ""
    at = f'x="{x:.2f}" y="{y:.1f}" width="{width:.2f}" height="{height:.0f}"'
    return f'<rect class="{style}" {at} rx="2">{title}</rect>'


def _drawing(height: float, title: str, parts: list[str]) -> str:
    inside = "\n".join(parts)
    drawing = f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">\n{inside}\n</svg>'
    return f'<div class="wide">{drawing}</div>'
