"""The report's charts: SVG inside the page, coloured by its style sheet.

Lengths are shares of the width and heights are pixels, so that bars fit a telephone and texts keep their size everywhere.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from swingby.doors.cli.quantities import duration, factor, number, share

if TYPE_CHECKING:
    from swingby.doors.cli.demo.results import Epoch, Split, Way

TICKS = 5
ROW, TEXT, BAR_TOP, BAR = 52, 15, 23, 16  # of a bar: its row, the baseline of the text above it, its top, its height
PART = 26  # height of a bar of parts
THIN = 0.2  # the shortest bar that is seen
NARROW = 0.12  # a part too narrow for its label
COURSE_TOP, COURSE_HEIGHT, COURSE_BOTTOM = 22, 230, 26

WAY_CLASSES: dict[Way, str] = {"file by file": "plain", "cold": "cold", "burst": "burst", "warm": "warm"}
WAY_NAMES: dict[Way, str] = {
    "file by file": "File by file",
    "cold": "Swingby, cold",
    "burst": "Swingby, from burst",
    "warm": "Swingby, warm",
}
PARTS = (
    ("latency", "on the way to the base"),
    ("base", "base, network included"),
    ("keeper", "burst level and keeper"),
    ("process", "memory level and loop"),
    ("check", "hashing every byte"),
)


class Line(NamedTuple):
    """A line of the course: its class, what it stands for, and points of seconds and objects."""

    style: str
    name: str
    points: list[tuple[float, float]]


def course(lines: list[Line], objects: int) -> str:
    """Objects loaded over time, all epochs one after the other."""
    seconds = max(line.points[-1][0] for line in lines)
    most = max(line.points[-1][1] for line in lines)
    parts = []
    for epoch in range(round(most / objects) + 1):
        y = COURSE_TOP + COURSE_HEIGHT * (1 - epoch * objects / most)
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts += [_label("tick", 0, y - 6, f"{epoch} epoch{'' if epoch == 1 else 's'}")] if epoch else []
    bottom = COURSE_TOP + COURSE_HEIGHT + 18
    for tick in ticks(seconds):
        anchor = "start" if not tick else "end" if tick > 0.95 * seconds else "middle"
        parts.append(_label("tick", 100 * tick / seconds, bottom, duration(tick), anchor))
    parts.append(
        f'<svg y="{COURSE_TOP}" width="100%" height="{COURSE_HEIGHT}" viewBox="0 0 100 100" preserveAspectRatio="none">'
    )
    for line in lines:
        path = " ".join(f"{100 * at / seconds:.2f},{100 * (1 - count / most):.2f}" for at, count in line.points)
        parts.append(f'<polyline class="line {line.style}" points="{path}"/>')
    parts.append("</svg>")
    told = "; ".join(f"{line.name} in {duration(line.points[-1][0])}" for line in lines)
    return _drawing(COURSE_TOP + COURSE_HEIGHT + COURSE_BOTTOM, ("Objects loaded over time", told), parts)


def epochs(found: list[Epoch], fastest_seconds: float) -> str:
    """A bar for every epoch, as long as it took."""
    longest = max(one.seconds for one in found)
    parts, told = [], []
    for row, one in enumerate(found):
        is_plain = one.way == "file by file"
        name = f"{WAY_NAMES[one.way]}, epoch {number(one.number)}"
        value = duration(one.seconds) + ("" if is_plain else f" · {factor(fastest_seconds / one.seconds)}")
        style = "value loss" if not is_plain and one.seconds > fastest_seconds else "value"
        parts += _named(row * ROW, name, value, style)
        width = max(THIN, 100 * one.seconds / longest)
        parts.append(_box(f"bar {WAY_CLASSES[one.way]}", (0, row * ROW + BAR_TOP, width, BAR)))
        told.append(f"{name}: {value}")
    return _drawing(ROW * len(found), ("Seconds of every epoch", "; ".join(told)), parts)


def splits(found: list[tuple[Way, Split, float]]) -> str:
    """For each way of loading a bar of where the time went, all of the same length."""
    parts, told = [], []
    for row, (way, split, seconds) in enumerate(found):
        top, left = row * (ROW + PART - BAR), 0.0
        parts += _named(top, WAY_NAMES[way], duration(seconds))
        for name, label in PARTS:
            ratio = getattr(split, name) / seconds
            text = f"{label}: {duration(getattr(split, name))}, {share(ratio)}"
            parts.append(_box(f"part {name}", (left, top + BAR_TOP, 100 * ratio, PART), text))
            if ratio > NARROW:
                middle = left + 50 * ratio
                parts.append(_label("inside", middle, top + BAR_TOP + 18, f"{100 * ratio:.0f} %", "middle"))
            left += 100 * ratio
            told.append(f"{WAY_NAMES[way]}, {text}")
    return _drawing((ROW + PART - BAR) * len(found), ("Where the time went", "; ".join(told)), parts)


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


def _named(top: float, name: str, value: str, style: str = "value") -> list[str]:
    """The line of text above a bar."""
    return [_label("name", 0, top + TEXT, name), _label(style, 100, top + TEXT, value, "end")]


def _label(style: str, x: float, y: float, text: str, anchor: str = "start") -> str:
    """A text at x percent and y pixels."""
    return f'<text class="{style}" x="{x:.2f}%" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _box(style: str, area: tuple[float, float, float, float], told: str = "") -> str:
    """A rectangle at x percent and y pixels, so many percent wide and pixels high, which says something when pointed at."""
    x, y, width, height = area
    title = f"<title>{escape(told)}</title>" if told else ""
    return f'<rect class="{style}" x="{x:.2f}%" y="{y:.1f}" width="{width:.2f}%" height="{height:.0f}">{title}</rect>'


def _drawing(height: float, told: tuple[str, str], parts: list[str]) -> str:
    """A drawing with a title and a description, for those who cannot see it."""
    title, description = (escape(text) for text in told)
    inside = "\n".join(parts)
    return (
        f'<svg class="chart" width="100%" height="{height:.0f}" role="img" aria-label="{title}">'
        f"<title>{title}</title><desc>{description}</desc>\n{inside}\n</svg>"
    )
