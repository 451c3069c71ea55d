"""How many samples of each dataset the first x positions of a mixture hold: a pure function of x and the shares.

Positions are split along a tree: at each node the left side gets its share of the node's count, rounded, the right side the rest.
So counts add up to x, never fall as x grows, and stay within two of the exact share for ever. (The tree is Huffman's. A split is
off by half a sample at most, which a dataset inherits by its part of the node: at worst 1, 1, 1/2, 1/3, 1/5 … of the nodes above
it, or 1.7 samples in all; with up to three datasets it is one.) All in integers. Format: docs/formats/order.md.
"""

from __future__ import annotations

import heapq
import math
import operator
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TEMPERED = 1 << 60  # the largest share of a tempered mixture; powers are rounded to it, so that machines agree
POSITIONS_MAX = 1 << 56  # of an epoch


def shares_of(weights: Sequence[float], temperature: float) -> list[int]:
    """Integers in proportion to weights ** (1 / temperature), without a common divisor; exact at temperature 1.

    Raises:
        ValueError: a weight is negative or not finite, or all are 0; temperature is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: it is above 0; 1 takes weights as they are, more evens them out")
    for weight in weights:
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"weight {weight}: weights are finite and not negative")
    largest = max(weights, default=0)
    if not largest:
        raise ValueError("a mixture needs a weight above 0")
    if temperature == 1:
        exact = [Fraction(weight) for weight in weights]
        scale = math.lcm(*(one.denominator for one in exact))
        whole = [int(one * scale) for one in exact]
    else:
        whole = [_tempered(weight, largest, temperature) for weight in weights]
    divisor = math.gcd(*whole)
    return [one // divisor for one in whole]


def _tempered(weight: float, largest: float, temperature: float) -> int:
    if not weight:
        return 0
    share: int = round((weight / largest) ** (1 / temperature) * TEMPERED)
    if not share:
        raise ValueError(f"weight {weight} at temperature {temperature} is less than 1e-18 of the largest")
    return share


class Quotas:
    """See the module's text.

    Args:
        shares: from `shares_of`, at least one above 0.
    """

    def __init__(self, shares: Sequence[int]) -> None:
        self._shares = shares
        heap = [(share, number) for number, share in enumerate(shares) if share]
        heapq.heapify(heap)
        splits = []
        for node in range(len(shares), len(shares) + len(heap) - 1):
            left, right = heapq.heappop(heap), heapq.heappop(heap)
            splits.append((node, left[1], right[1], left[0], left[0] + right[0]))
            heapq.heappush(heap, (left[0] + right[0], node))
        self._root = heap[0][1]
        self._splits = splits[::-1]  # from the root down

    def before(self, position: int) -> list[int]:
        """Samples of each dataset at positions below this one."""
        counts = [0] * (len(self._shares) + len(self._splits))
        counts[self._root] = position
        for node, left, right, share, whole in self._splits:
            counts[left] = (2 * counts[node] * share + whole) // (2 * whole)
            counts[right] = counts[node] - counts[left]
        return counts[: len(self._shares)]

    def until_all(self, sizes: Sequence[int]) -> int:
        """The fewest positions that hold so many samples of every dataset with a share.

        Raises:
            ValueError: they are too many for an epoch.
        """
        return self._first(lambda counts: all(map(self._is_full, counts, sizes, self._shares)))

    def until_first(self, sizes: Sequence[int]) -> int:
        """The most positions that hold no more than so many samples of any dataset.

        Raises:
            ValueError: they are too many for an epoch.
        """
        return self._first(lambda counts: any(map(operator.gt, counts, sizes))) - 1

    @staticmethod
    def _is_full(count: int, size: int, share: int) -> bool:
        return count >= size or not share

    def _first(self, holds: Callable[[list[int]], bool]) -> int:
        """The first position of which something holds that goes on to hold."""
        low, high = 0, POSITIONS_MAX + 1
        while low < high:
            middle = (low + high) // 2
            if holds(self.before(middle)):
                high = middle
            else:
                low = middle + 1
        if low > POSITIONS_MAX:
            raise ValueError("the weights are so far apart that an epoch has no end: say how many samples it has")
        return low
