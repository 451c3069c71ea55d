"""Memory: read-only maps of files that keep no descriptor, and pages of our own.

Python's mmap duplicates the descriptor for the life of the map, so ten thousand mapped segments would take twenty thousand; libc's
does not. The memory goes back when the last view of it is gone, so views outlive everything else.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import weakref

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

HUGE_PAGE_BYTES = 2 << 20

_MAP_FIXED = 0x10
_FAILED = ctypes.c_void_p(-1).value


def private_memory(size: int) -> mmap.mmap:
    """Fresh, page-aligned, writable memory of this process. A forked child gets a copy; Python's default would share it."""
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def map_read_only(descriptor: int, size: int) -> memoryview:
    """The first `size` bytes of a file. The descriptor may be closed afterwards.

    Raises:
        OSError: the file cannot be mapped.
    """
    if size == 0:
        return memoryview(b"")
    if size < HUGE_PAGE_BYTES:
        address = start = _map(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor)
        length = size
    else:  # huge pages of a file are mapped as such only where address and offset are aligned alike
        length = size + HUGE_PAGE_BYTES
        start = _map(None, length, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1)
        address = -(-start // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
        try:
            _map(address, size, mmap.PROT_READ, mmap.MAP_SHARED | _MAP_FIXED, descriptor)
        except OSError:
            _libc.munmap(start, length)
            raise
    memory = (ctypes.c_ubyte * size).from_address(address)
    weakref.finalize(memory, _unmap, start, length).atexit = False
    return memoryview(memory).cast("B").toreadonly()


def _map(address: int | None, size: int, protection: int, flags: int, descriptor: int) -> int:
    found = _libc.mmap(address, size, protection, flags, descriptor, 0)
    if found == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(found)


def _unmap(address: int, size: int) -> None:
    if not sys.is_finalizing():
        _libc.munmap(address, size)
