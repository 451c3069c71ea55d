"""How much a level may still take, measured where it lives: the file system, and for memory the cgroup.

A tmpfs counts what is unlinked but still mapped, and a full cgroup kills instead of answering ENOSPC; so both are asked before
bytes are written, not after.
"""

from __future__ import annotations

import os
from typing import Protocol


class Room(Protocol):
    """Free bytes, as far as a level may use them."""

    def free_bytes(self) -> int:
        """What may be written now; 0 or less: nothing."""
        ...


class DiskRoom:
    """A file system of which a share stays free.

    Args:
        directory: on it.
        floor_ratio: of its size, left free.
    """

    def __init__(self, directory: str, floor_ratio: float) -> None:
        self._directory = directory
        self._floor_ratio = floor_ratio

    def free_bytes(self) -> int:
        """See `Room.free_bytes`."""
        status = os.statvfs(self._directory)
        return int(status.f_bavail * status.f_frsize - self._floor_ratio * status.f_blocks * status.f_frsize)


class MemoryRoom:
    """A tmpfs, and the memory limit of the cgroup it is charged to.

    Args:
        directory: on the tmpfs.
        headroom_bytes: left free in the cgroup and on the machine.
    """

    def __init__(self, directory: str, headroom_bytes: int) -> None:
        self._directory = directory
        self._headroom_bytes = headroom_bytes

    def free_bytes(self) -> int:
        """See `Room.free_bytes`."""
        status = os.statvfs(self._directory)
        return min(status.f_bavail * status.f_frsize, available_memory_bytes() - self._headroom_bytes)


def available_memory_bytes() -> int:
    """Memory this process may still take: the least over the machine and every cgroup above it."""
    return min([_meminfo("MemAvailable"), *(limit - used for limit, used in _cgroups())])


def usable_memory_bytes() -> int:
    """Memory this process could take at all: the least over the machine and every cgroup above it."""
    return min([_meminfo("MemTotal"), *(limit for limit, _ in _cgroups())])


def _meminfo(name: str) -> int:
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cgroups() -> list[tuple[int, int]]:
    """Limit and unreclaimable use in bytes of each limiting cgroup, from this process's up (versions 2 and 1)."""
    found = []
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            names, roots = ("memory.max", "memory.current"), ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        elif "memory" in controllers.split(","):
            names, roots = ("memory.limit_in_bytes", "memory.usage_in_bytes"), ["/sys/fs/cgroup/memory"]
        else:
            continue
        for root in roots:
            folder = path
            while True:
                found += _cgroup(root + folder, names)
                if folder in {"/", ""}:
                    break
                folder = os.path.dirname(folder)
    return found


def _cgroup(folder: str, names: tuple[str, str]) -> list[tuple[int, int]]:
    limit, used = (_read(os.path.join(folder, name)).strip() for name in names)
    if not limit.isdigit() or not used.isdigit():
        return []
    lines = (line.partition(" ") for line in _read(os.path.join(folder, "memory.stat")).splitlines())
    counts = {name: int(value) for name, _, value in lines if name.endswith("active_file")}
    whole = "total_" if "total_active_file" in counts else ""  # version 1 counts children apart
    cache = sum(counts.get(f"{whole}{kind}_file", 0) for kind in ("active", "inactive"))
    return [(int(limit), int(used) - cache)]


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
