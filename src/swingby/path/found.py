"""What a read of several objects found: views of them, and copies.

Objects that all lie on the memory level are found by arithmetic. If they are small and of one size, numpy copies them by one
compiled loop, as fast as C can; no view is made until somebody wants one.
"""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from swingby.core.manifest.packs import ROW_OFFSET, ROW_PACK, ROW_SIZE
from swingby.path.deliver import JOIN_BYTES_MAX, packed, writable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from swingby.path.tables import Tables

LINE_BYTES = 64  # objects in a pack begin at multiples of it
ADDRESS_BITS = 48

Packed = tuple["NDArray[np.uint8]", "NDArray[np.int64]"]


class Found(Protocol):
    """Objects that were read.

    Attributes:
        sizes: in bytes.
    """

    sizes: NDArray[np.integer[Any]]

    def views(self) -> list[memoryview]:
        """Their bytes, read-only."""
        ...

    def packed(self, out: NDArray[np.uint8] | None) -> Packed:
        """See `deliver.packed`."""
        ...

    def records(self) -> NDArray[np.int64] | None:
        """Numbers of the objects, as `everywhere` counts, where all are mapped and of one size above 0; None otherwise.

        They hold for as long as this is held.
        """
        ...


class Fetched:
    """Objects of which there are views.

    Args:
        views: of them.
    """

    __slots__ = ("_views", "sizes")

    def __init__(self, views: list[memoryview]) -> None:
        self._views = views
        self.sizes: NDArray[np.integer[Any]] = np.fromiter(map(len, views), np.int64, len(views))

    def views(self) -> list[memoryview]:
        """See `Found`."""
        return self._views

    def packed(self, out: NDArray[np.uint8] | None) -> Packed:
        """See `Found`."""
        return packed(self._views, self.sizes, out)

    def records(self) -> NDArray[np.int64] | None:
        """See `Found`."""
        return None


class Located:
    """Objects of packs that are mapped and complete.

    Args:
        rows: of the objects.
        tables: in which their packs are mapped; held, so that they stay so.
    """

    __slots__ = ("_rows", "_tables", "sizes")

    def __init__(self, rows: NDArray[np.uint32], tables: Tables) -> None:
        self._rows = rows
        self._tables = tables
        self.sizes: NDArray[np.integer[Any]] = rows[:, ROW_SIZE]

    def views(self) -> list[memoryview]:
        """See `Found`."""
        views = self._tables.views
        starts = self._rows[:, ROW_OFFSET]
        parts = zip(self._rows[:, ROW_PACK].tolist(), starts.tolist(), (starts + self.sizes).tolist(), strict=True)
        return [views[pack][start:stop] for pack, start, stop in parts]  # complete packs are mapped

    def packed(self, out: NDArray[np.uint8] | None) -> Packed:
        """See `Found`."""
        return packed_records(self, out)

    def records(self) -> NDArray[np.int64] | None:
        """See `Found`."""
        rows = self._rows
        if not even_size(self.sizes):
            return None
        found: NDArray[np.int64] = self._tables.lines[rows[:, ROW_PACK]] + (rows[:, ROW_OFFSET] // LINE_BYTES)
        return found


def packed_records(found: Found, out: NDArray[np.uint8] | None) -> Packed:
    """See `deliver.packed`; objects that have records are copied by them."""
    size = int(found.sizes[0]) if len(found.sizes) else 0
    total = size * len(found.sizes)
    records = found.records() if total <= JOIN_BYTES_MAX else None
    if records is None:
        return packed(found.views(), found.sizes, out)
    copied = everywhere(size)[records].view(np.uint8)
    offsets = np.arange(0, total + 1, size)
    if out is None:
        return copied, offsets
    writable(out, total)
    out[:total] = copied
    return out[:total], offsets


def even_size(sizes: NDArray[np.integer[Any]]) -> int:
    """The size that all objects have; 0 where there is none."""
    return int(sizes[0]) if len(sizes) and (sizes == sizes[0]).all() else 0


@functools.lru_cache(64)
def everywhere(size: int) -> NDArray[np.void]:
    """This process's memory as overlapping records of so many bytes, one at every 64th byte; number n begins at byte 64 n + 64.

    Only numbers of mapped records may be used.
    """
    found = np.asarray(memory_records((), np.dtype(f"V{size}")))
    found.flags.writeable = False
    return found


def line_of(address: int) -> int:
    """The number of the record at an address."""
    return address // LINE_BYTES - 1


def memory_records(shape: tuple[int, ...], item: np.dtype[Any]) -> SimpleNamespace:
    """What numpy's array interface makes `everywhere` of, with records of this shape and these items."""
    count = 1 << (ADDRESS_BITS - LINE_BYTES.bit_length() + 1)
    return SimpleNamespace(
        __array_interface__={
            "shape": (count - 1, *shape),
            "strides": (LINE_BYTES, *[item.itemsize for _ in shape]),
            "typestr": item.str,
            "data": (LINE_BYTES, False),
            "version": 3,
        }
    )
