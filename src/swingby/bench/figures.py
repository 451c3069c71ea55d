"""What a benchmark says, and the statistics of it."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

UNSURE = 0.05


@dataclass(frozen=True)
class Figure:
    """One measured figure against its promise.

    Attributes:
        row, name: of the benchmark and of the figure in it.
        value: what was measured: a median where there are samples.
        unit: of the value.
        at_least, at_most: the promise, where there is one.
        samples: behind the value.
        interval: 95 % confidence interval of a median.
        notes: what stood beside it: limit, peers, sizes.
    """

    row: str
    name: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    samples: Sequence[float] = ()
    interval: tuple[float, float] | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool | None:
        """Whether the promise is kept; None where none is made."""
        if self.at_least is None and self.at_most is None:
            return None
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )


def median_interval(samples: Sequence[float]) -> tuple[float, float]:
    """A 95 % interval of the median by order statistics; the whole range where there are fewer than six samples."""
    ordered = sorted(samples)
    count = len(ordered)
    reach = 0
    while reach + 1 < count / 2 and 2 * _binomial_below(count, reach + 1) <= UNSURE:
        reach += 1
    return ordered[reach], ordered[count - 1 - reach]


def _binomial_below(count: int, successes: int) -> float:
    """Chance of at most `successes` of `count` fair coins."""
    return float(sum(math.comb(count, number) for number in range(successes + 1)) / 2**count)


def ratio_figure(row: str, name: str, pairs: Sequence[tuple[float, float]], **fields: Any) -> Figure:
    """The median of ours / theirs over pairs taken in turn."""
    ratios = [ours / theirs for ours, theirs in pairs]
    return Figure(row, name, statistics.median(ratios), "×", samples=ratios, interval=median_interval(ratios), **fields)
