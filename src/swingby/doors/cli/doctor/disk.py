"""Checks of the place of level 2, by writing and reading there."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from typing import TYPE_CHECKING, NamedTuple

from swingby import assemble
from swingby.doors.cli.doctor.finding import Finding, State
from swingby.doors.cli.machine import file_system_of
from swingby.doors.cli.quantities import duration, rate, share, size
from swingby.doors.cli.terminal import shown
from swingby.keeper.bases import read_seconds
from swingby.keeper.place import place_of
from swingby.levels.block_reader import BlockReader

if TYPE_CHECKING:
    from swingby.config import Settings

NAME = "burst directory"
PROBE_BYTES = 32 << 20
PIECE_BYTES = 1 << 20
SMALL_READS = 8


class Disk(NamedTuple):
    """What was measured of a directory.

    Attributes:
        is_direct: whether files are read past the page cache.
        small_seconds: median of small reads.
        read_rate, write_rate: bytes a second, one after the other; the write with its fsync.
    """

    is_direct: bool
    small_seconds: float
    read_rate: float
    write_rate: float


def burst(settings: Settings) -> tuple[Finding, Disk | None]:
    """The place of level 2; None where nothing could be measured."""
    directory = assemble.burst_directory(settings, place_of(settings))
    if settings.burst.budget_bytes == 0:
        return Finding(NAME, State.NOTE, "burst.budget_bytes is 0: level 2 is off"), None
    existing = nearest(directory)
    try:
        disk = measure(existing)
    except OSError as error:
        text = f"{shown(existing)} cannot be written ({error.strerror}): level 2 is off, memory and base remain"
        return Finding(NAME, State.PROBLEM, text, "Set burst.directory, or --home, to a directory you may write"), None
    status = os.statvfs(existing)
    free, floor = status.f_bavail * status.f_frsize, settings.burst.free_floor_ratio * status.f_blocks * status.f_frsize
    text = (
        f"{shown(directory)} on {file_system_of(existing) or 'a file system'}: {size(free)} free, of which {size(floor)} "
        f"({share(settings.burst.free_floor_ratio)} of the disk) stay free; {duration(disk.small_seconds)} a small read, "
        f"{rate(disk.read_rate)} reading, {rate(disk.write_rate)} writing"
    )
    if free <= floor:
        return Finding(
            NAME, State.PROBLEM, f"{text}. Level 2 takes nothing more", "Free disk space, or set burst.directory"
        ), disk
    if not disk.is_direct:
        note = f"{text}. It has no O_DIRECT: reads go through the page cache and take memory twice"
        return Finding(NAME, State.NOTE, note, "Set burst.directory to a local disk with ext4 or XFS"), disk
    return Finding(NAME, State.OK, f"{text}, by O_DIRECT"), disk


def measure(directory: str) -> Disk:
    """Write a file there and read it back; it is removed.

    Raises:
        OSError: it cannot be written.
    """
    reader = BlockReader(direct=True)
    descriptor, path = tempfile.mkstemp(".tmp", "swingby-doctor-", directory)
    try:
        data = os.urandom(PIECE_BYTES)
        started = time.perf_counter()
        for at in range(0, PROBE_BYTES, PIECE_BYTES):
            os.pwrite(descriptor, data, at)
        os.fsync(descriptor)
        written = time.perf_counter()
        for at in range(0, PROBE_BYTES, PIECE_BYTES):
            reader.read(path, at, PIECE_BYTES)
        read = time.perf_counter()
        small = read_seconds(reader, [path] * SMALL_READS) or 0.0
        return Disk(reader.direct, small, PROBE_BYTES / (read - written), PROBE_BYTES / (written - started))
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(path)


def nearest(path: str) -> str:
    """The path itself, or the directory that exists nearest above it."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path
