"""The composition root: every stack is put together here, in visible order.

`Hooks` are where tests slip a faulty layer in.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swingby import config
from swingby.config import MIB, Settings
from swingby.core.object import key_bytes
from swingby.core.url import WEB
from swingby.errors import UrlError
from swingby.keeper import place as places

if TYPE_CHECKING:
    from collections.abc import Callable

    from swingby.base.browse import Browser
    from swingby.base.contract import Base
    from swingby.base.meter import MeteredBase
    from swingby.base.retry import RetryingBase
    from swingby.core.url import Address
    from swingby.keeper.place import KeeperPlace
    from swingby.keeper.protocol import Location
    from swingby.keeper.service import Engine, Keeper
    from swingby.levels.level import Level

MEMORY_SHARE = 0.25  # of the memory this process may use
TMPFS_SHARE = 0.8  # of the tmpfs it lies on
BURST_SHARE = 0.5  # of what is free when first used
HEADROOM_BYTES_MAX = 1024 * MIB
MEMORY_BYTES_MIN = 8 * MIB  # a smaller level 1 is not worth its files
PREDECESSOR_SECONDS_MAX = 5.0  # a keeper whose home was deleted leaves within a second
BOARD = "board"


@dataclass(frozen=True)
class Hooks:
    """Layers of tests.

    Attributes:
        make_base: instead of the scheme's own base; None from it means "the usual one".
        wrap_base: around the base, below meter and retries.
    """

    make_base: Callable[[Location], Base | None] = lambda _: None
    wrap_base: Callable[[Base], Base] = lambda base: base


# -- bases -------------------------------------------------------------------------------------------------------------


def make_base(location: Location, settings: Settings, hooks: Hooks) -> tuple[RetryingBase, MeteredBase]:
    """The stack of a base: retry over meter over the base itself.

    Raises:
        UrlError: nobody serves this scheme.
        AuthenticationError: no credentials.
    """
    from swingby.base.meter import MeteredBase
    from swingby.base.retry import RetryingBase, RetryLimits

    base = hooks.make_base(location) or _plain_base(location, settings)
    metered = MeteredBase(hooks.wrap_base(base))
    fetch = settings.fetch
    limits = RetryLimits(fetch.retry_count_max, fetch.retry_delay_seconds_max, fetch.retry_seconds_max)
    return RetryingBase(metered, limits), metered


def make_browser(location: Location, settings: Settings, hooks: Hooks) -> Browser:
    """What looks into a base as into folders.

    Raises:
        SwingbyError: as `make_base`.
    """
    from swingby.base.browse import FlatBrowser

    base, _ = make_base(location, settings, hooks)
    if hooks.make_base(location) is None and location.scheme == "file":
        from swingby.base.posix_browse import PosixBrowser

        return PosixBrowser(base)
    if hooks.make_base(location) is None and location.scheme == "s3":
        from swingby.base import s3
        from swingby.base.credentials import provider_of
        from swingby.base.s3_browse import S3Browser

        options = location.s3 or settings.s3
        http = s3.signed_http(s3.place_of(location.container, options), provider_of(options), settings.fetch)
        return S3Browser(http, base)
    return FlatBrowser(base)


def _plain_base(location: Location, settings: Settings) -> Base:
    if location.scheme == "file":
        from swingby.base.posix import PosixBase

        return PosixBase(f"file:{places.machine_key()}", settings.listing.threads_max)
    if location.scheme == "s3":
        from swingby.base.s3 import S3Base

        return S3Base(location.container, location.s3 or settings.s3, settings.fetch)
    if location.scheme == "az":
        from swingby.base.azure import azure_base

        return azure_base(location.container, location.az or settings.az, settings.fetch)
    if location.scheme == "gs":
        from swingby.base.google import google_base

        return google_base(location.container, location.gs or settings.gs, settings.fetch)
    if location.scheme in WEB:
        from swingby.base.web import WebBase

        return WebBase(location.scheme, location.container, settings.fetch, settings.listing.threads_max)
    raise UrlError(
        f"nothing here reads {location.scheme}://",
        remedy="Use a path, file:///path, s3://bucket/prefix, az://, gs:// or https://",
    )


def locate(address: Address, settings: Settings, *, folder: bool) -> Location:
    """Base and key of an address, or base and prefix where it is a folder, with the credentials to use."""
    from swingby.keeper.protocol import Location

    scheme, container, path = address
    if folder and scheme in WEB:  # a list of files: it is the base, and what stands in it are the keys
        return Location(scheme, f"{container}/{path}", b"")
    credentials = {scheme: getattr(settings, scheme)} if scheme in {"s3", "az", "gs"} else {}
    return Location(scheme, container, key_bytes(address.prefix if folder else path), **credentials)


# -- the keeper --------------------------------------------------------------------------------------------------------


def make_keeper(settings: Settings, place: KeeperPlace, hooks: Hooks) -> Keeper:
    """A keeper with its levels, whose lock the caller holds."""
    from swingby.keeper.service import Keeper

    return Keeper(make_engine(settings, place, hooks))


def make_engine(settings: Settings, place: KeeperPlace, hooks: Hooks) -> Engine:
    """The parts of a keeper. A level that cannot be had is left out, and reads go one level on."""
    from swingby.keeper import orphans
    from swingby.keeper.bases import Bases
    from swingby.keeper.manifests import ManifestStore
    from swingby.keeper.service import Engine
    from swingby.keeper.supply import Levels
    from swingby.levels.unnamed_file import unnamed_file

    memory = burst = lock = None
    board = unnamed_file(BOARD)
    with contextlib.suppress(OSError):
        lock = _lock_memory(place)
    with contextlib.suppress(OSError):
        memory = _memory_level(settings, place) if lock is not None else None
    with contextlib.suppress(OSError):
        burst = _burst_level(settings, place)
    if memory:
        orphans.claim(place)
        with contextlib.suppress(OSError):
            os.close(board)
            board = os.open(os.path.join(place.memory, BOARD), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        memory.on_evict = _Counter(board).add
    os.ftruncate(board, 8)
    store = ManifestStore(os.path.join(place.state, "manifests"), settings.listing.manifests_kept_max)
    bases = Bases(lambda location: make_base(location, settings, hooks), settings.fetch)

    def clean() -> None:
        store.clean_left_over()
        if place.memory:
            orphans.remove_orphans(place)

    def wipe() -> None:
        for path in written_directories(settings, place):
            shutil.rmtree(path, ignore_errors=True)

    return Engine(settings, Levels(memory, burst), bases, store, (board, lock), clean, wipe)


class _Counter:
    """A uint64 in a file that clients have mapped."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        os.ftruncate(descriptor, 8)
        self._value = int.from_bytes(os.pread(descriptor, 8, 0), "little")

    def add(self) -> None:
        self._value += 1
        os.pwrite(self._descriptor, self._value.to_bytes(8, "little"), 0)


def _memory_level(settings: Settings, place: KeeperPlace) -> Level | None:
    from swingby.levels.block_reader import BlockReader
    from swingby.levels.level import Level, LevelOptions
    from swingby.levels.room import MemoryRoom

    budget = memory_budget(settings, place.memory)
    if budget < MEMORY_BYTES_MIN:
        return None
    options = LevelOptions("memory", place.memory, budget, boot_id(settings), is_mapped=True)
    return Level(options, MemoryRoom(place.memory, memory_headroom(settings)), BlockReader(direct=False))


def _burst_level(settings: Settings, place: KeeperPlace) -> Level | None:
    from swingby.levels.block_reader import BlockReader
    from swingby.levels.level import Level, LevelOptions
    from swingby.levels.room import DiskRoom

    directory = burst_directory(settings, place)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    budget = burst_budget(settings, directory)
    if budget <= 0 or not os.access(directory, os.W_OK):
        return None
    options = LevelOptions("burst", directory, budget, boot_id(settings))
    return Level(options, DiskRoom(directory, settings.burst.free_floor_ratio), BlockReader(direct=True))


def burst_directory(settings: Settings, place: KeeperPlace) -> str:
    """Where level 2 keeps its files."""
    if settings.burst.directory:
        return os.path.join(settings.burst.directory, f"swingby-{os.getuid()}-{os.path.basename(place.runtime)}")
    return os.path.join(place.state, "burst")


def written_directories(settings: Settings, place: KeeperPlace) -> list[str]:
    """Every directory a home's keeper writes on this machine; what `clean` removes."""
    found = dict.fromkeys((place.memory, burst_directory(settings, place), place.state, place.runtime))
    return [path for path in found if path]


def memory_budget(settings: Settings, directory: str) -> int:
    """Bytes level 1 may take."""
    from swingby.levels.room import usable_memory_bytes

    status = os.statvfs(directory)
    tmpfs = int(status.f_blocks * status.f_frsize * TMPFS_SHARE)
    if settings.memory.budget_bytes is not None:
        return min(settings.memory.budget_bytes, tmpfs)
    return min(int(usable_memory_bytes() * MEMORY_SHARE), tmpfs)


def memory_headroom(settings: Settings) -> int:
    """Bytes of memory that level 1 leaves free: 1 GiB, in a small container a quarter of what there is."""
    from swingby.levels.room import usable_memory_bytes

    if settings.memory.headroom_bytes is not None:
        return settings.memory.headroom_bytes
    return min(HEADROOM_BYTES_MAX, usable_memory_bytes() // 4)


def burst_budget(settings: Settings, directory: str) -> int:
    """Bytes level 2 may take: what was set, or half of what is free without it."""
    if settings.burst.budget_bytes is not None:
        return settings.burst.budget_bytes
    status = os.statvfs(directory)
    used = sum(entry.stat().st_blocks * 512 for entry in os.scandir(directory) if entry.name.endswith(".seg"))
    return int((status.f_bavail * status.f_frsize + used) * BURST_SHARE)


def boot_id(settings: Settings) -> bytes:
    """16 bytes that change with every boot."""
    text = settings.keeper.boot_id
    if text is None:
        try:
            with open("/proc/sys/kernel/random/boot_id") as file:
                text = file.read().strip()
        except OSError:
            return bytes(16)
    return uuid.UUID(text).bytes


def _lock_memory(place: KeeperPlace) -> int | None:
    """Own the memory level's directory; a predecessor whose home was deleted has a moment to leave."""
    import fcntl

    if not place.memory:
        return None
    places.make_private(place.memory)
    descriptor = os.open(os.path.join(place.memory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + PREDECESSOR_SECONDS_MAX
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(descriptor)
                return None
            time.sleep(0.05)
        else:
            return descriptor


def run_keeper(settings_json: str) -> None:
    """The body of a keeper's process; the last argument of its command line is the descriptor to tell the starter by."""
    from swingby.keeper import process

    settings = config.from_json(settings_json)
    sys.exit(process.main(settings, int(sys.argv[-1]), lambda place: make_keeper(settings, place, Hooks())))
