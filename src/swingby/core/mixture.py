"""The order of a mixture: which sample of which dataset stands at a position, a pure function of (seed, epoch, mixture).

A mixture is one endless sequence of positions, and each epoch the next stretch of it. Quotas (`core/quotas.py`) say how many
samples of each dataset a block of positions holds, a keyed permutation where they stand in it. The n-th sample of a dataset is
number n mod size of its pass n div size, in the order that the dataset by itself has in that epoch: nothing of it is repeated
before all of it was given, and any position is found without those before it. Format: docs/formats/order.md.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from swingby.core.order import Permutation, permutations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from swingby.core.epoch import Draw, Order
    from swingby.core.quotas import Quotas

BLOCK_POSITIONS = 1 << 13
BLOCKS_KEPT = 8
PASSES_KEPT = 2
TABLE_NUMBERS_MAX = 1 << 20
NUMBERS_MAX = 1 << 62  # of positions, over all epochs


class Passes(Protocol):
    """The passes over one dataset, which begin one after another."""

    def take(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Indices of samples, counted from the first of pass 0 on."""
        ...


class LongPasses:
    """Passes whose orders are made one by one.

    Args:
        count: of samples.
        order: of a pass; None: as listed.
    """

    def __init__(self, count: int, order: Callable[[int], Order | None]) -> None:
        self._count = count
        self._order = order
        self._orders: OrderedDict[int, Order | None] = OrderedDict()

    def take(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `Passes`."""
        first, last = int(numbers.min()) // self._count, int(numbers.max()) // self._count
        if first == last:
            return self._one(first, numbers - first * self._count)
        passes, places = np.divmod(numbers, self._count)
        found = np.empty(len(numbers), np.int64)
        for number in np.unique(passes).tolist():
            here = passes == number
            found[here] = self._one(number, places[here])
        return found

    def _one(self, number: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        if number not in self._orders:
            self._orders[number] = self._order(number)
            if len(self._orders) > PASSES_KEPT:
                self._orders.popitem(last=False)
        order = self._orders[number]
        return places if order is None else order.take(places)


class ShortPasses:
    """Passes in key order, or of few samples in global order, all at once.

    Args:
        count: of samples.
        draw: of pass 0; None: as listed.
    """

    def __init__(self, count: int, draw: Draw | None) -> None:
        self._count = count
        self._draw = draw

    def take(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `Passes`."""
        passes, places = np.divmod(numbers, self._count)
        if self._draw is None or self._count == 1:
            return places
        seed, first, digest = self._draw
        wanted, which = np.unique(passes, return_inverse=True)
        together = max(1, TABLE_NUMBERS_MAX // self._count)
        found = np.empty(len(numbers), np.int64)
        for start in range(0, len(wanted), together):
            table = permutations(self._count, seed, (first + wanted[start : start + together]).tolist(), digest)
            here = slice(None) if together >= len(wanted) else which // together == start // together
            found[here] = table[which[here] - start, places[here]]
        return found


class Block(NamedTuple):
    """Part of the sequence.

    Attributes:
        datasets: uint16[n], which stands at each position.
        numbers: int64[n], which of its samples, counted from the first ever.
    """

    datasets: NDArray[np.uint16]
    numbers: NDArray[np.int64]


class MixtureOrder:
    """See the module's text. About 0.1 µs a position in blocks of 64 Ki.

    Args:
        quotas: of the mixture.
        samples: of an epoch.
        draw: seed, epoch, digest.
        passes: of each dataset.
        firsts: int64[d], index of the first sample of each dataset in the mixture.

    Raises:
        ValueError: an epoch that far away cannot be counted.
    """

    def __init__(
        self, quotas: Quotas, samples: int, draw: Draw, passes: Sequence[Passes], firsts: NDArray[np.int64]
    ) -> None:
        if samples * (abs(draw.epoch) + 1) > NUMBERS_MAX:
            raise ValueError(f"epoch {draw.epoch} of {samples} samples lies beyond what can be counted")
        self._quotas = quotas
        self._samples = samples
        self._draw = draw
        self._passes = passes
        self._firsts = firsts
        self._blocks: OrderedDict[int, Block] = OrderedDict()

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `Order`."""
        datasets, numbers = self.where(positions)
        grouped = np.argsort(datasets, kind="stable")
        bounds = np.searchsorted(datasets[grouped], np.arange(len(self._passes) + 1)).tolist()
        found = np.empty(len(positions), np.int64)
        for dataset, passes in enumerate(self._passes):
            here = grouped[bounds[dataset] : bounds[dataset + 1]]
            if len(here):
                found[here] = self._firsts[dataset] + passes.take(numbers[here])
        return found

    def where(self, positions: NDArray[np.int64]) -> Block:
        """Dataset and number of the sample at these positions of the epoch."""
        blocks = positions // BLOCK_POSITIONS
        datasets, numbers = np.empty(len(positions), np.uint16), np.empty(len(positions), np.int64)
        changes = np.flatnonzero(blocks[1:] != blocks[:-1]) + 1
        for start, stop in itertools.pairwise([0, *changes.tolist(), len(positions)] if len(positions) else [0]):
            number = int(blocks[start])
            block = self._block(number)
            places = positions[start:stop] - number * BLOCK_POSITIONS
            datasets[start:stop] = block.datasets[places]
            numbers[start:stop] = block.numbers[places]
        return Block(datasets, numbers)

    def _block(self, number: int) -> Block:
        found = self._blocks.get(number)
        if found is None:
            found = self._blocks[number] = self._make(number)
            if len(self._blocks) > BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        return found

    def _make(self, number: int) -> Block:
        seed, epoch, digest = self._draw
        start = number * BLOCK_POSITIONS
        count = min(BLOCK_POSITIONS, self._samples - start)
        first = epoch * self._samples + start
        before = np.array(self._quotas.before(first))
        quotas = np.array(self._quotas.before(first + count)) - before
        sorted_ones = np.repeat(np.arange(len(quotas), dtype=np.uint16), quotas)
        datasets = sorted_ones[Permutation(count, seed, epoch, f"{digest}/block/{number}").take(np.arange(count))]
        numbers = np.empty(count, np.int64)
        numbers[np.argsort(datasets, kind="stable")] = np.arange(count) + np.repeat(
            before - (np.cumsum(quotas) - quotas), quotas
        )
        return Block(datasets, numbers)
