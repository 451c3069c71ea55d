"""A plugin for nbdkit: a disk with a write cache, which a power cut empties.

    nbdkit python volatile_disk.py image=FILE control=FILE

What a flush has covered is on the disk. When power is cut, a random share of the rest gets there too: sector by sector, in no
order, and of a sector that was written often any of its versions. From then on every request fails.

The control file arms it: "OPERATIONS SEED", writes and flushes until the cut, 0 for at once. `FILE.cut` tells what became of it.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

API_VERSION = 2  # of nbdkit's interface
SECTOR_BYTES = 512
SURVIVING = (0.0, 0.1, 0.5, 0.9, 1.0)  # shares of what was not flushed

_options: dict[str, str] = {}
_disks: list[VolatileDisk] = []


class VolatileDisk:
    """See the module's text.

    Args:
        image: what is durable.
        control: path of the control file.
    """

    def __init__(self, image: str, control: str) -> None:
        self._descriptor = os.open(image, os.O_RDWR)
        self._control = control
        self._cache: dict[int, list[bytes]] = {}  # versions of each sector that no flush has covered
        self._left: int | None = None
        self._random = random.Random()
        self._is_off = False
        self.size_bytes = os.fstat(self._descriptor).st_size

    def read(self, buffer: bytearray, offset: int) -> None:
        """Fill a buffer with what was written last."""
        self._tick(0)
        buffer[:] = os.pread(self._descriptor, len(buffer), offset)
        if self._cache:
            for at in range(0, len(buffer), SECTOR_BYTES):
                versions = self._cache.get((offset + at) // SECTOR_BYTES)
                if versions:
                    buffer[at : at + SECTOR_BYTES] = versions[-1]

    def write(self, data: bytes, offset: int) -> None:
        """Take bytes into the cache."""
        self._tick(1)
        for at in range(0, len(data), SECTOR_BYTES):
            self._cache.setdefault((offset + at) // SECTOR_BYTES, []).append(data[at : at + SECTOR_BYTES])

    def flush(self) -> None:
        """Make everything durable."""
        self._tick(1)
        for sector, versions in self._cache.items():
            os.pwrite(self._descriptor, versions[-1], sector * SECTOR_BYTES)
        self._cache.clear()

    def _tick(self, operations: int) -> None:
        if os.path.exists(self._control):
            left, seed = Path(self._control).read_text().split()
            os.unlink(self._control)
            self._left = int(left)
            self._random.seed(int(seed))
        if self._left is not None and not self._is_off:
            self._left -= operations
            if self._left <= 0:
                self._cut()
        if self._is_off:
            raise OSError("the power is off")

    def _cut(self) -> None:
        self._is_off = True
        share, kept = self._random.choice(SURVIVING), 0
        for sector, versions in self._cache.items():
            if self._random.random() < share:
                os.pwrite(self._descriptor, self._random.choice(versions), sector * SECTOR_BYTES)
                kept += 1
        Path(self._control + ".next").write_text(f"{kept} {len(self._cache) - kept}")
        os.rename(self._control + ".next", self._control + ".cut")
        self._cache.clear()


# -- what nbdkit calls -------------------------------------------------------------------------------------------------


def config(key: str, value: str) -> None:
    """An option of the command line."""
    _options[key] = value


def get_ready() -> None:
    """Before the first connection."""
    _disks.append(VolatileDisk(_options["image"], _options["control"]))


def _open(is_read_only: object) -> VolatileDisk:
    """A connection."""
    del is_read_only
    return _disks[0]


def get_size(disk: VolatileDisk) -> int:
    """Of the disk."""
    return disk.size_bytes


def can_flush(disk: VolatileDisk) -> bool:
    """There is a cache."""
    del disk
    return True


def pread(disk: VolatileDisk, buffer: bytearray, offset: int, flags: int) -> None:
    """Read whole sectors."""
    del flags
    disk.read(buffer, offset)


def pwrite(disk: VolatileDisk, data: bytes, offset: int, flags: int) -> None:
    """Write whole sectors."""
    del flags
    disk.write(bytes(data), offset)


def flush(disk: VolatileDisk, flags: int) -> None:
    """Make everything durable."""
    del flags
    disk.flush()


globals()["open"] = _open  # the interface wants this name, which hides Python's own
