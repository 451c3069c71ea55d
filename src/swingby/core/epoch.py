"""What an epoch reads, in which order: the same function in the keeper, which fetches ahead, and in the reader.

Orders: `key`, as listed; `global`, any object anywhere (`order.Permutation`); `segments`, blocks of objects that share a segment in
random order, mixed within windows of a few blocks, so that a cache smaller than the dataset needs each segment once.
Format: docs/formats/order.md.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from swingby.core.order import Permutation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from swingby.core.manifest.view import Manifest

ORDERS = ("key", "global", "segments")
BLOCKS_TOGETHER = 16  # in a window
BLOCK_OBJECTS_MIN = 16  # a shorter run of a segment's objects goes with its neighbours
LARGE_TOGETHER = 16  # objects with a segment of their own, a block
WINDOWS_KEPT = 4


class Order(Protocol):
    """A permutation of which any part can be computed."""

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """What stands at these positions."""
        ...


class WindowedOrder(Order, Protocol):
    """An order of one dataset, which tells when its objects come without being computed."""

    def windows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Between which positions each object comes, the last included: int64[count] twice."""
        ...


class Draw(NamedTuple):
    """What an order is drawn from."""

    seed: int
    epoch: int
    digest: str


def make_order(kind: str, manifest: Manifest, selection: NDArray[np.int64] | None, draw: Draw) -> WindowedOrder | None:
    """The order of an epoch over the objects of a selection; None: as listed.

    Raises:
        ValueError: there is no such order.
    """
    if kind == "key":
        return None
    if kind == "global":
        return Permutation(len(manifest) if selection is None else len(selection), *draw)
    if kind == "segments":
        return SegmentOrder(block_bounds(manifest, selection), draw)
    raise ValueError(f"order={kind!r}: it is one of {', '.join(ORDERS)}")


def use_windows(order: WindowedOrder | None, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """See `WindowedOrder.windows`; None: as listed."""
    if order is None:
        return np.arange(count), np.arange(count)
    return order.windows()


def block_bounds(manifest: Manifest, selection: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Where blocks begin, as positions in key order, and the count at the end: int64[b + 1]."""
    if selection is None:
        count = len(manifest)
        starts, large = manifest.pack_changes()
    else:
        packs, is_large = (of_all[selection] for of_all in manifest.packs_of_all())
        count = len(packs)
        starts = np.flatnonzero(np.append(True, packs[1:] != packs[:-1]))[:count]
        large = np.flatnonzero(is_large)
    lengths = np.diff(np.append(starts, count))
    starts = starts[(lengths >= BLOCK_OBJECTS_MIN) | (starts == 0)]
    starts = np.union1d(starts, large[::LARGE_TOGETHER])
    return np.append(starts, count).astype(np.int64)


class SegmentOrder:
    """See the module's text.

    Args:
        bounds: of the blocks, from `block_bounds`.
        draw: seed, epoch, digest.
    """

    def __init__(self, bounds: NDArray[np.int64], draw: Draw) -> None:
        blocks = Permutation(len(bounds) - 1, draw.seed, draw.epoch, f"{draw.digest}/blocks")
        order = blocks.take(np.arange(len(bounds) - 1))
        self._draw = draw
        self._firsts = bounds[order]
        self._lengths = bounds[order + 1] - bounds[order]
        self._starts = np.append(0, np.cumsum(self._lengths))[::BLOCKS_TOGETHER]
        self._windows: OrderedDict[int, NDArray[np.int64]] = OrderedDict()

    def window_of(self, position: int) -> int:
        """The number of the window that a position is in."""
        return int(np.searchsorted(self._starts, position, "right")) - 1

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `Order`."""
        windows = np.searchsorted(self._starts, positions, "right") - 1
        found = np.empty(len(positions), np.int64)
        for number in np.unique(windows).tolist():
            here = windows == number
            found[here] = self._window(number)[positions[here] - self._starts[number]]
        return found

    def windows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """See `Order`."""
        count = int(self._lengths.sum())
        starts = self._starts[self._starts < count]
        stops = np.append(starts[1:], count)
        window = np.arange(len(self._firsts)) // BLOCKS_TOGETHER
        in_key_order = np.argsort(self._firsts)
        window, lengths = window[in_key_order], self._lengths[in_key_order]
        return np.repeat(starts[window], lengths), np.repeat(stops[window] - 1, lengths)

    def _window(self, number: int) -> NDArray[np.int64]:
        found: NDArray[np.int64] | None = self._windows.get(number)
        if found is None:
            part = slice(number * BLOCKS_TOGETHER, (number + 1) * BLOCKS_TOGETHER)
            members = _ranges(self._firsts[part], self._lengths[part])
            seed, epoch, digest = self._draw
            mixed = Permutation(len(members), seed, epoch, f"{digest}/window/{number}")
            found = self._windows[number] = members[mixed.take(np.arange(len(members)))]
            if len(self._windows) > WINDOWS_KEPT:
                self._windows.popitem(last=False)
        return found


def _ranges(firsts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of several ranges, one after another."""
    before = np.cumsum(lengths) - lengths
    found: NDArray[np.int64] = np.arange(int(lengths.sum())) + np.repeat(firsts - before, lengths)
    return found
