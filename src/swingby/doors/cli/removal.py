"""What Swingby wrote on this machine for a home, and its removal without a keeper."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from swingby import assemble
from swingby.errors import KeeperUnavailableError
from swingby.keeper.place import place_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swingby.config import Settings
    from swingby.keeper.place import KeeperPlace

DEMO_PREFIX = "demo-"  # homes of demos lie in the user's; one that was killed leaves its own behind


class Written(NamedTuple):
    """A directory that Swingby wrote, and the bytes it takes on its file system."""

    path: str
    bytes: int


def written(settings: Settings) -> list[Written]:
    """Everything of a home that is there, demos left behind included."""
    found = []
    for one in (settings, *abandoned_demos(settings)):
        paths = assemble.written_directories(one, place_of(one))
        outermost = [path for path in paths if not any(path.startswith(other + "/") for other in paths)]
        found += [Written(path, _used(path)) for path in outermost if os.path.isdir(path)]
    return found


def remove(settings: Settings) -> None:
    """Remove all of it.

    Raises:
        KeeperUnavailableError: a keeper holds the home.
        OSError: something cannot be removed.
    """
    for one in (*abandoned_demos(settings), settings):
        remove_home(one)


def remove_home(settings: Settings) -> None:
    """Remove what was written for one home that no process holds. Errors as `remove`."""
    with _held(place_of(settings)):
        remove_directories(settings)


def remove_directories(settings: Settings) -> None:
    """Remove what was written for one home, held or not, and the folders above that are empty then."""
    place = place_of(settings)
    for path in assemble.written_directories(settings, place):
        if os.path.isdir(path):
            shutil.rmtree(path)
    for folder in (os.path.dirname(place.runtime), settings.home):
        with contextlib.suppress(OSError):
            os.rmdir(folder)  # unless there is more in it: another home's sockets, another machine's levels


def abandoned_demos(settings: Settings) -> list[Settings]:
    """Settings of the demo homes that no demo holds."""
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(settings.home) if name.startswith(DEMO_PREFIX)]
        homes = [msgspec.structs.replace(settings, home=os.path.join(settings.home, name)) for name in names]
        return [one for one in homes if not _is_held(place_of(one))]
    return []


def _is_held(place: KeeperPlace) -> bool:
    try:
        with _held(place):
            return False
    except KeeperUnavailableError:
        return True


@contextlib.contextmanager
def _held(place: KeeperPlace) -> Iterator[None]:
    """The home's lock, where there is one, so that no keeper starts meanwhile."""
    descriptors = []
    try:
        for folder in (place.state, place.runtime):
            with contextlib.suppress(FileNotFoundError):
                descriptors.append(os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CLOEXEC))
                fcntl.flock(descriptors[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise KeeperUnavailableError(
            f"a process that is its own keeper holds {place.state}", remedy="End it, then run the command again"
        ) from None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _used(path: str) -> int:
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total
