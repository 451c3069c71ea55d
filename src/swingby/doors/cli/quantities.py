"""Numbers as people read them. Sizes are decimal, as on disks and networks: 1 MB is 10⁶ bytes."""

from __future__ import annotations

_SIZES = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
DIGITS = 3
MINUTE_SECONDS, HOUR_SECONDS = 60, 3600
SMALL_RATIO = 1e-4  # smaller ones are as good as 0
LONG_SECONDS = 120  # from here on minutes are easier to read


def size(count: float) -> str:
    """Bytes: "512 B", "1.25 MB"."""
    for unit, name in _SIZES:
        if abs(count) >= unit:
            return f"{digits(count / unit)} {name}"
    return f"{count:.0f} B"


def rate(bytes_a_second: float) -> str:
    """Bytes a second: "1.25 GB/s"."""
    return f"{size(bytes_a_second)}/s"


def number(value: float) -> str:
    """A count: "33,878"."""
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """A time: "85 µs", "1.25 s", "4 min 05 s", "2 h 10 min"."""
    if seconds >= HOUR_SECONDS:
        return f"{int(seconds // HOUR_SECONDS)} h {int(seconds % HOUR_SECONDS // MINUTE_SECONDS):02d} min"
    if seconds >= LONG_SECONDS:
        return f"{int(seconds // MINUTE_SECONDS)} min {int(seconds % MINUTE_SECONDS):02d} s"
    for unit, name in _TIMES:
        if seconds >= unit:
            return f"{digits(seconds / unit)} {name}"
    return "0 s" if seconds <= 0 else f"{digits(seconds / _TIMES[-1][0])} µs"


def factor(ratio: float) -> str:
    """A ratio: "0.0016×", "0.16×", "12.3×", "431×"."""
    return f"{ratio:.2g}×" if SMALL_RATIO < ratio < 1 else f"{digits(ratio)}×"


def share(ratio: float) -> str:
    """A part of a whole: "97.2 %"."""
    return f"{100 * ratio:.1f} %"


def counted(count: int, noun: str) -> str:
    """So many of something: "1 segment", "12 segments"."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def objects(count: int) -> str:
    """So many objects: "1 object", "33,878 objects"."""
    return counted(count, "object")


def digits(value: float) -> str:
    """About three digits, thousands set apart."""
    if round(float(value), 2 * DIGITS).is_integer():
        return f"{value:,.0f}"
    before = len(str(int(abs(value))))
    return f"{value:,.{max(0, DIGITS - before)}f}"
