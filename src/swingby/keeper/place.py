"""Where a keeper lives: its directories, its lock, its socket. All of it is this machine's and this user's own."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from typing import NamedTuple

from swingby.config import Settings, runtime_directory
from swingby.core.checksum import name_digest
from swingby.errors import KeeperUnavailableError

SOCKET_PATH_BYTES_MAX = 107


class KeeperPlace(NamedTuple):
    """The paths of one home on this machine.

    Attributes:
        state: inside home; levels, manifests, lock and log.
        runtime: for the socket.
        memory: on a tmpfs, for level 1; empty where there is none.
    """

    state: str
    runtime: str
    memory: str

    @property
    def socket(self) -> str:
        """Path of the socket."""
        return os.path.join(self.runtime, "socket")

    @property
    def log(self) -> str:
        """Path of the log."""
        return os.path.join(self.state, "keeper.log")


def machine_key() -> str:
    """Names this machine in paths of homes that several machines share."""
    try:
        with open("/etc/machine-id") as file:
            identity = file.read().strip()
    except OSError:
        identity = ""
    return name_digest((identity or socket.gethostname()).encode()).hex()[:12]


def place_of(settings: Settings) -> KeeperPlace:
    """The paths for these settings.

    Raises:
        KeeperUnavailableError: the socket's path would be too long.
    """
    machine = machine_key()
    key = name_digest(machine.encode(), os.fsencode(settings.home)).hex()[:12]
    runtime = os.path.join(runtime_directory(), key)
    place = KeeperPlace(os.path.join(settings.home, machine), runtime, _memory_directory(settings, key))
    if len(os.fsencode(place.socket)) > SOCKET_PATH_BYTES_MAX:
        raise KeeperUnavailableError(
            f"the socket's path is too long: {place.socket}", remedy="Set SWINGBY_RUNTIME_DIR to a shorter directory"
        )
    return place


def _memory_directory(settings: Settings, key: str) -> str:
    root = settings.memory.directory or "/dev/shm"
    return os.path.join(root, f"swingby-{os.getuid()}-{key}") if os.path.isdir(root) else ""


def make_private(path: str) -> None:
    """Make a directory that only this user may enter, or check that it is one.

    Raises:
        KeeperUnavailableError: somebody else's, or a link.
        OSError: it cannot be made.
    """
    parent = os.path.dirname(path)
    os.makedirs(parent, mode=0o700, exist_ok=True)
    _check_owner(parent, {os.getuid(), 0})  # whoever owns it could put another directory in our place
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if _check_owner(path, {os.getuid()}).st_mode & 0o077:
            os.chmod(path, 0o700)


def _check_owner(path: str, users: set[int]) -> os.stat_result:
    found = os.lstat(path)
    is_sound = stat.S_ISDIR(found.st_mode) or (stat.S_ISLNK(found.st_mode) and os.path.isdir(path))
    if not is_sound or found.st_uid not in users:
        raise KeeperUnavailableError(
            f"{path} is not a directory of this user", remedy="Remove it, or set SWINGBY_HOME and SWINGBY_RUNTIME_DIR"
        )
    return found


def lock(place: KeeperPlace) -> int | None:
    """Take the home's lock for life: in its state directory, or where that cannot be written beside the socket.

    Returns:
        The descriptor that holds it; None when another keeper does.
    """
    for folder in (place.state, place.runtime):
        try:
            make_private(folder)
            descriptor = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:  # a file system without locks
            os.close(descriptor)
            continue
        return descriptor
    raise KeeperUnavailableError(f"neither {place.state} nor {place.runtime} can be written")
