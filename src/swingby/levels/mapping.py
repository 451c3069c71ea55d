"""Read-only maps of files that keep no descriptor.

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

_FAILED = ctypes.c_void_p(-1).value


def map_read_only(descriptor: int, size: int) -> memoryview:
    """The first `size` bytes of a file. The descriptor may be closed afterwards.

    Raises:
        OSError: the file cannot be mapped.
    """
    if size == 0:
        return memoryview(b"")
    address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    memory = (ctypes.c_ubyte * size).from_address(address)
    weakref.finalize(memory, _unmap, address, size).atexit = False
    return memoryview(memory).cast("B").toreadonly()


def _unmap(address: int, size: int) -> None:
    if not sys.is_finalizing():
        _libc.munmap(address, size)
