"""Copies views into one buffer, as fast as Python can.

Small batches are joined into fresh bytes, which is one compiled loop; larger ones are copied slice by slice into memory that has
been touched before: a fresh page costs more than copying it (1.5 against 10 GB/s here), so buffers come back when their last view
is gone.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from typing import TYPE_CHECKING

import numpy as np

from swingby.core import forks
from swingby.levels.mapping import private_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

JOIN_BYTES_MAX = 1 << 20  # measured: from here on a recycled buffer is quicker than fresh bytes
KEPT_BYTES_MAX = 512 << 20
KEPT_COUNT_MAX = 8


def packed(
    views: Sequence[memoryview], sizes: NDArray[np.integer], out: NDArray[np.uint8] | None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All bytes one after another: uint8[n], and where each object begins: int64[k + 1].

    Args:
        views: of the objects.
        sizes: of the objects, in bytes.
        out: a writable, contiguous uint8 array to copy into, at least as long; None: a new, read-only or recycled one.

    Raises:
        ValueError: `out` is of another type, or too short.
    """
    offsets = np.zeros(len(views) + 1, np.int64)
    np.add.accumulate(sizes, out=offsets[1:], dtype=np.int64)
    total = int(offsets[-1])
    if out is None:
        if total <= JOIN_BYTES_MAX:
            return np.frombuffer(b"".join(views), np.uint8), offsets
        out = touched(total)
    target = writable(out, total)
    start = 0
    for view in views:
        stop = start + len(view)
        target[start:stop] = view
        start = stop
    return out[:total], offsets


def touched(size: int) -> NDArray[np.uint8]:
    """A writable uint8[size] in memory that was touched before, where there is some; it is used again once nothing refers to it."""
    return _buffers.take(size)


def writable(out: NDArray[np.uint8], total: int) -> memoryview:
    """The buffer of a caller, checked; see `packed`."""
    if out.dtype != np.uint8 or out.ndim != 1 or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError("out must be a writable, contiguous array of uint8 with one dimension")
    if len(out) < total:
        raise ValueError(f"out holds {len(out)} bytes; the batch has {total}")
    return memoryview(out)


class _Buffers:
    """Memory that was touched before, waiting to be used again."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a collection while it is held may give another buffer back
        self._free: list[mmap.mmap] = []
        forks.register(self)

    def take(self, size: int) -> NDArray[np.uint8]:
        """A writable array that gives its memory back when nothing refers to it any more."""
        with self._lock:
            fitting = [one for one in self._free if size <= len(one) <= 2 * size]
            memory = min(reversed(fitting), key=len, default=None)  # the last one given back is still in the caches
            if memory is not None:
                self._free.remove(memory)
        if memory is None:
            memory = private_memory(max(size, 1))
            if hasattr(mmap, "MADV_HUGEPAGE"):
                memory.madvise(mmap.MADV_HUGEPAGE)
        lease = _Lease(memory)
        weakref.finalize(lease, self._give_back, memory).atexit = False
        return np.asarray(lease)[:size]

    def after_fork(self) -> None:
        """See `forks`."""
        self._lock = threading.RLock()

    def _give_back(self, memory: mmap.mmap) -> None:
        with self._lock:
            self._free.append(memory)
            while len(self._free) > KEPT_COUNT_MAX or sum(map(len, self._free)) > KEPT_BYTES_MAX:
                self._free.pop(0)


class _Lease:
    """What arrays over a buffer refer to, by numpy's array interface."""

    def __init__(self, memory: mmap.mmap) -> None:
        address = np.frombuffer(memory, np.uint8).ctypes.data
        self._memory = memory
        self.__array_interface__ = {"shape": (len(memory),), "typestr": "|u1", "data": (address, False), "version": 3}


_buffers = _Buffers()
