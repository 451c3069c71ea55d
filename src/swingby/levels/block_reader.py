"""Reads ranges of files past the page cache where the file system allows it: O_DIRECT into aligned buffers, else plain reads.

Threads: safe; each has a buffer of its own, and what `read` returns is valid until the same thread's next read.
"""

from __future__ import annotations

import errno
import os
import threading

from swingby.levels.mapping import private_memory

BLOCK_BYTES = 4096


class BlockReader:
    """Reads from files by path.

    Args:
        direct: whether to try O_DIRECT.
    """

    def __init__(self, *, direct: bool) -> None:
        self.direct = direct and hasattr(os, "O_DIRECT")
        self._local = threading.local()

    def read(self, path: str, offset: int, size: int) -> memoryview:
        """Bytes [offset, offset + size).

        Raises:
            OSError: the file cannot be read, or is shorter (EIO).
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECT if self.direct else 0))
        try:
            return self.read_open(descriptor, offset, size)
        except OSError as error:
            if not (self.direct and error.errno == errno.EINVAL):
                raise
        finally:
            os.close(descriptor)
        self.direct = False
        return self.read(path, offset, size)

    def read_open(self, descriptor: int, offset: int, size: int) -> memoryview:
        """The same from an open descriptor, which may be O_DIRECT."""
        first = offset // BLOCK_BYTES * BLOCK_BYTES
        length = -(-(offset + size) // BLOCK_BYTES) * BLOCK_BYTES - first
        window = self._buffer(length)[:length]
        done = 0
        while done < offset - first + size:
            count = os.preadv(descriptor, [window[done:]], first + done)
            if count == 0:
                raise OSError(errno.EIO, "the file ends early")
            done += count
        return window[offset - first : offset - first + size]

    def _buffer(self, size: int) -> memoryview:
        held: memoryview | None = getattr(self._local, "buffer", None)
        if held is None or len(held) < size:
            self._local.buffer = held = memoryview(private_memory(max(size, 1 << 20)))
        return held
