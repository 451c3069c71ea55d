"""Eviction by what live plans foretell (Belady, 1966), with bypass. No I/O, no thread.

What no plan needs leaves first, in the order of `Sieve`. Then goes what is needed furthest from now, if it is needed later than
what comes. Of a dataset that is read in random order every pack is needed at any moment: none of them is better than another, so
they stay and what comes is not admitted; a level of half a dataset then saves half of its reads in every epoch, where any
replacement would save less. Datasets that do not fit together share the level evenly.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from swingby.levels.sieve import Sieve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

RANKING_SECONDS = 0.02  # that a ranking is used for, at least
RANKING_COST_RATIO = 20  # and so many times as long as it took to make
UNFORESEEN_SHARE = 1 / 16  # of the level, which reads without a plan may take from those with one
NOBODY = -1


class Forecast(Protocol):
    """What live plans say of segments."""

    def needs(self, identities: Sequence[bytes]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Seconds until each is needed next, inf where no plan needs it; and a number of the dataset that needs it, or -1."""
        ...


class Foreseen:
    """See the module's text; without a forecast it is a `Sieve`.

    Args:
        budget_bytes: of the level.

    Attributes:
        forecast: what live plans say; None: there are none.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.forecast: Callable[[], Forecast | None] = lambda: None
        self._budget_bytes = budget_bytes
        self._sieve = Sieve()
        self._ranking: _Ranking | None = None

    def add(self, identity: bytes) -> None:
        """A segment came."""
        self._sieve.add(identity)

    def touch(self, identity: bytes) -> None:
        """A segment was used."""
        self._sieve.touch(identity)

    def demote(self, identity: bytes) -> None:
        """A segment is needed no more, unless by a plan: the next to leave."""
        self._sieve.demote(identity)

    def remove(self, identity: bytes) -> None:
        """A segment left."""
        self._sieve.remove(identity)
        if self._ranking:
            self._ranking.remove(identity)

    def by_use(self, may_leave: Callable[[bytes], bool]) -> bytes | None:
        """Who would leave if nothing were foretold."""
        return self._sieve.next(may_leave)

    def victim(self, incoming: bytes, sizes: Mapping[bytes, int], may_leave: Callable[[bytes], bool]) -> bytes | None:
        """The segment to evict next among those that may leave; None: what comes is not to be admitted.

        Args:
            incoming: segment that room is made for.
            sizes: in bytes, of the level's segments.
            may_leave: whether a segment is free to go.
        """
        forecast = self.forecast()
        if forecast is None:
            self._ranking = None
            return self._sieve.next(may_leave)
        ranking = self._ranking
        if ranking is None or ranking.forecast is not forecast or time.monotonic() > ranking.good_until:
            ranking = self._ranking = _Ranking(forecast, sizes)
        if ranking.unforeseen:
            found = self._sieve.next(lambda one: one in ranking.unforeseen and may_leave(one))
            if found:
                return found
        seconds, dataset = ranking.need(incoming)
        if dataset == NOBODY:
            if ranking.used[NOBODY] > UNFORESEEN_SHARE * self._budget_bytes:
                return None
            found = ranking.furthest(max(ranking.used, key=ranking.used.__getitem__), -1.0, may_leave)
            ranking.used[NOBODY] += sizes.get(found or b"", 0)  # it is to take that room
            return found
        share = self._budget_bytes / max(1, len(ranking.datasets | {dataset}))
        if ranking.used.get(dataset, 0) < share:
            over = max(ranking.datasets - {dataset}, key=ranking.used.__getitem__, default=NOBODY)
            if over != NOBODY and ranking.used[over] > share:
                return ranking.furthest(over, -1.0, may_leave)
        return ranking.furthest(dataset, seconds, may_leave)


class _Entry(NamedTuple):
    seconds: float
    identity: bytes


class _Ranking:
    """The segments of a level by when they are needed, as of one moment."""

    def __init__(self, forecast: Forecast, sizes: Mapping[bytes, int]) -> None:
        began = time.monotonic()
        self.forecast = forecast
        identities = list(sizes)
        seconds, datasets = forecast.needs(identities)
        self._sizes = dict(sizes)
        self._dataset = dict(zip(identities, datasets.tolist(), strict=True))
        self.unforeseen = {one for one, dataset in self._dataset.items() if dataset == NOBODY}
        self.used: dict[int, int] = {NOBODY: 0}
        self._queues: dict[int, list[_Entry]] = {}  # of each dataset, the furthest last
        for place in np.argsort(seconds, kind="stable").tolist():
            one, dataset = identities[place], int(datasets[place])
            self.used[dataset] = self.used.get(dataset, 0) + self._sizes[one]
            self._queues.setdefault(dataset, []).append(_Entry(float(seconds[place]), one))
        self._needs: dict[bytes, tuple[float, int]] = {}
        now = time.monotonic()
        self.good_until = now + max(RANKING_SECONDS, RANKING_COST_RATIO * (now - began))

    @property
    def datasets(self) -> set[int]:
        """That live plans read."""
        return self.used.keys() - {NOBODY}

    def need(self, identity: bytes) -> tuple[float, int]:
        """When a segment that comes is needed, and by which dataset."""
        found = self._needs.get(identity)
        if found is None:
            seconds, datasets = self.forecast.needs([identity])
            found = self._needs[identity] = float(seconds[0]), int(datasets[0])
        return found

    def furthest(self, dataset: int, seconds: float, may_leave: Callable[[bytes], bool]) -> bytes | None:
        """The segment of a dataset that is needed furthest from now, if later than so."""
        queue = self._queues.get(dataset, [])
        while queue and queue[-1].identity not in self._dataset:
            queue.pop()
        for entry in reversed(queue):
            if entry.seconds <= seconds:
                return None
            if entry.identity in self._dataset and may_leave(entry.identity):
                return entry.identity
        return None

    def remove(self, identity: bytes) -> None:
        """A segment left."""
        dataset = self._dataset.pop(identity, None)
        if dataset is not None:
            self.used[dataset] -= self._sizes[identity]
            self.unforeseen.discard(identity)
