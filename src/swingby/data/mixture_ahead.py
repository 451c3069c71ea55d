"""Read-ahead of a mixture: each dataset's keeper is told which of its samples come next, a bounded stretch at a time."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from swingby.data.ahead import ADVANCE_SECONDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from swingby.data.ahead import Following
    from swingby.data.epoch import Steps
    from swingby.data.loadable import Reading
    from swingby.data.mixture import Mixture

TOLD_SAMPLES_MAX = 1 << 16  # announced and not yet consumed
TOLD_TOGETHER_SAMPLES, TOLD_TOGETHER_STEPS = 1 << 13, 256  # announced at once


class Stretch(NamedTuple):
    """Steps that were announced.

    Attributes:
        first: of them.
        before: int64[steps, d], samples of each dataset announced before each step.
    """

    first: int
    before: NDArray[np.int64]


class MixtureAhead:
    """See the module's text, and `ReadAhead`.

    Args:
        mixture: to read.
    """

    def __init__(self, mixture: Mixture) -> None:
        self._mixture = mixture
        self._plans = 0
        self._followings: list[Following | None] = []
        self._told_at = 0.0
        self._steps: Steps | None = None
        self._next = self._stop = 0  # steps to announce
        self._told = self._consumed = np.zeros(0, np.int64)  # samples of each dataset
        self._stretches: deque[Stretch] = deque()

    def begin(self, reading: Reading, steps: Steps) -> int:
        """See `ReadAhead`."""
        self._plans += 1
        self._told_at = 0.0
        self._next, self._stop = 0, steps.count
        self._steps = steps if reading.ahead_bytes_max else None
        if self._steps is None or not np.array_equal(self._told, self._consumed) or not self._followings:
            self._follow(reading.ahead_bytes_max)  # what was announced is not what comes
        self._stretches.clear()
        self._announce()
        return self._plans

    def advance(self, plan: int, mark: int, *, at_once: bool = False) -> None:
        """See `ReadAhead`."""
        now = time.monotonic()
        if plan != self._plans or self._steps is None or (now - self._told_at < ADVANCE_SECONDS and not at_once):
            return
        self._told_at = now
        while self._stretches and mark >= self._stretches[0].first + len(self._stretches[0].before):
            self._stretches.popleft()
        first, before = self._stretches[0] if self._stretches else (mark, self._told[None])
        self._consumed = before[max(0, mark - first)]
        for following, count in zip(self._followings, self._consumed.tolist(), strict=True):
            if following:
                following.consumed(count)
        self._next = max(self._next, mark)  # a reader that overtook it
        self._announce()

    def _follow(self, ahead_bytes_max: int) -> None:
        """Follow each dataset anew, with its part of the bytes."""
        old = self._followings
        mixture = self._mixture
        parts = mixture.shares * [one.mean_bytes for one in mixture.datasets]
        budgets = (ahead_bytes_max * parts / max(parts.sum(), 1e-9)).astype(np.int64).tolist()
        self._followings = [
            dataset.following(max(1, budget)) if share and ahead_bytes_max else None
            for dataset, share, budget in zip(mixture.datasets, mixture.shares.tolist(), budgets, strict=True)
        ]
        self._told = self._consumed = np.zeros(len(mixture.names), np.int64)
        for one in old:
            if one:
                one.close()

    def _announce(self) -> None:
        """Tell of the next steps, if there is room."""
        if self._steps is None or self._next >= self._stop:
            return
        if int((self._told - self._consumed).sum()) > TOLD_SAMPLES_MAX - TOLD_TOGETHER_SAMPLES:
            return
        first, parts, samples = self._next, [], 0
        while self._next < min(self._stop, first + TOLD_TOGETHER_STEPS) and samples < TOLD_TOGETHER_SAMPLES:
            parts.append(self._steps.indices(self._next))
            samples += len(parts[-1])
            self._next += 1
        indices = np.concatenate(parts)
        sources = self._mixture.source_of(indices)
        width = len(self._mixture.names)
        of_steps = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        counts = np.bincount(of_steps * width + sources, minlength=len(parts) * width).reshape(len(parts), width)
        self._stretches.append(Stretch(first, self._told + np.cumsum(counts, axis=0) - counts))
        self._told = self._told + counts.sum(axis=0)
        for source in np.flatnonzero(counts.sum(axis=0)).tolist():
            if following := self._followings[source]:
                following.upcoming(indices[sources == source] - self._mixture.first_of(source))
