"""When live plans need each segment next: what eviction goes by.

A plan is looked at by segments: between which positions of this epoch, and of the next one, each is in use. In an order by key or
by segments that is a short while; large objects have a moment even in a global order, which is a permutation that can be inverted.
A pack in a global order, and whatever a client gives index by index, is in use all the time.

Threads: safe. What is costly is made in a thread of its own, at the first pressure; until then nothing is foretold.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from swingby.core.epoch import use_windows
from swingby.core.order import Permutation
from swingby.keeper.plans import EpochPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from swingby.core.epoch import WindowedOrder
    from swingby.core.manifest.view import Manifest
    from swingby.keeper.plans import Walk

INVERTED_OBJECTS_MAX = (
    1 << 25
)  # of a global order; 8 bytes each, twice. Above, large objects are in use all the time too
CAST_MAX = 16  # datasets whose segments are remembered
ALWAYS = np.int64(1) << np.int64(62)


class Cast(NamedTuple):
    """The segments of a dataset or a part of it.

    Attributes:
        places: of each segment id.
        of_objects: the segment of each object, int64[n].
        is_pack: of each segment.
    """

    places: dict[bytes, int]
    of_objects: NDArray[np.int64]
    is_pack: NDArray[np.bool_]


class Schedule(NamedTuple):
    """Positions of an epoch between which each segment is in use, and where the next epoch begins with it: int64[segments]."""

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    again: NDArray[np.int64]


class Outlook:
    """See the module's text; a `Forecast`.

    Args:
        later: runs something in another thread.
    """

    def __init__(self, later: Callable[[Callable[[], None]], object]) -> None:
        self._later = later
        self._lock = threading.Lock()
        self._plans: dict[int, Walk] = {}
        self._views: dict[int, _View] = {}  # by owner, of plans that were looked at
        self._casts: OrderedDict[tuple[str, bytes], Cast] = OrderedDict()
        self._datasets: dict[str, int] = {}
        self._is_looking = False

    def set(self, owner: int, plan: Walk) -> None:
        """A plan is live, in place of the owner's last one."""
        with self._lock:
            self._plans[owner] = plan
            self._datasets.setdefault(plan.source.manifest.digest, len(self._datasets))

    def drop(self, owner: int) -> None:
        """The owner is gone."""
        with self._lock:
            self._plans.pop(owner, None)
            self._views.pop(owner, None)

    def forecast(self) -> Outlook | None:
        """This, once the live plans were looked at; asking for it has that done."""
        self.prepare()
        return self if self._views else None

    def prepare(self) -> None:
        """Have the live plans looked at, where there may be pressure."""
        with self._lock:
            is_known = self._views.keys() == self._plans.keys() and all(
                view.plan is self._plans[owner] for owner, view in self._views.items()
            )
            if is_known or self._is_looking:
                return
            self._is_looking = True
        self._later(self._look)

    def needs(self, identities: Sequence[bytes]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """See `Forecast.needs`."""
        with self._lock:
            views = list(self._views.values())
        seconds = np.full(len(identities), np.inf)
        datasets = np.full(len(identities), -1, np.int64)
        for view in views:
            found = np.fromiter((view.cast.places.get(one, -1) for one in identities), np.int64, len(identities))
            mine = np.flatnonzero(found >= 0)
            until = view.seconds_until(found[mine])
            sooner = until < seconds[mine]
            seconds[mine[sooner]] = until[sooner]
            datasets[mine[sooner]] = view.dataset
        return seconds, datasets

    def _look(self) -> None:
        """Look at all plans that were not looked at yet."""
        try:
            for owner, plan in list(self._plans.items()):
                view = self._views.get(owner)
                if view is None or view.plan is not plan:
                    made = _View(plan, self._cast(plan), self._datasets[plan.source.manifest.digest])
                    with self._lock:
                        if self._plans.get(owner) is plan:
                            self._views[owner] = made
        finally:
            self._is_looking = False

    def _cast(self, plan: Walk) -> Cast:
        key = (plan.source.manifest.digest, plan.selection_name)
        with self._lock:
            found = self._casts.get(key)
        if found is None:
            found = cast_of(plan.source.manifest, plan.selection)
            with self._lock:
                self._casts[key] = found
                if len(self._casts) > CAST_MAX:
                    self._casts.popitem(last=False)
        return found


class _View:
    """A plan, by segments."""

    def __init__(self, plan: Walk, cast: Cast, dataset: int) -> None:
        self.plan = plan
        self.cast = cast
        self.dataset = dataset
        self._count = len(cast.of_objects)
        self._schedule: Schedule | None = None
        if isinstance(plan, EpochPlan):
            self._schedule = schedule(cast, plan.order, plan.next_order())

    def seconds_until(self, segments: NDArray[np.int64]) -> NDArray[np.float64]:
        """Until each of these is needed next; 0: it is in use."""
        if self._schedule is None:
            return np.zeros(len(segments))
        position = self.plan.position
        first, last, again = (part[segments] for part in self._schedule)
        ahead = np.where(position <= last, np.maximum(0, first - position), self._count - position + again)
        return ahead * self.plan.seconds_a_position(time.monotonic())


def cast_of(manifest: Manifest, selection: NDArray[np.int64] | None) -> Cast:
    """The segments of the objects of a selection; None: of all."""
    packs, is_large = manifest.packs_of_all()
    if selection is not None:
        packs, is_large = packs[selection], is_large[selection]
    large = np.flatnonzero(is_large)
    is_used = np.bincount(packs, minlength=manifest.pack_ordinals) > 0
    ordinals = np.flatnonzero(is_used)  # large ones share an ordinal, and are put right below
    of_objects = (np.cumsum(is_used) - 1)[packs]
    of_objects[large] = len(ordinals) + np.arange(len(large))
    indices = large if selection is None else selection[large]
    places = {
        manifest.pack(ordinal).id: place
        for place, ordinal in enumerate(ordinals.tolist())
        if not manifest.is_large(ordinal)
    }
    places |= {manifest.large(index).id: len(ordinals) + place for place, index in enumerate(indices.tolist())}
    return Cast(places, of_objects, np.arange(len(ordinals) + len(large)) < len(ordinals))


def schedule(cast: Cast, order: WindowedOrder | None, next_order: WindowedOrder | None) -> Schedule | None:
    """When the segments are in use; None: all of them, all the time."""
    count, segments = len(cast.of_objects), len(cast.is_pack)
    is_mixed = isinstance(order, Permutation)
    if is_mixed and (cast.is_pack.all() or count > INVERTED_OBJECTS_MAX):
        return None
    first, last = np.full(segments, ALWAYS), np.zeros(segments, np.int64)
    again = np.full(segments, ALWAYS)
    firsts, lasts = use_windows(order, count)
    runs = np.flatnonzero(np.append(True, cast.of_objects[1:] != cast.of_objects[:-1]))[:count]
    of_runs = cast.of_objects[runs]  # far fewer than objects
    if count:
        np.minimum.at(first, of_runs, np.minimum.reduceat(firsts, runs))
        np.maximum.at(last, of_runs, np.maximum.reduceat(lasts, runs))
        np.minimum.at(again, of_runs, np.minimum.reduceat(use_windows(next_order, count)[0], runs))
    if is_mixed:
        first[cast.is_pack], last[cast.is_pack] = 0, ALWAYS
    return Schedule(first, last, again)
