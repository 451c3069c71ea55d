"""Memory directories of homes that are gone. Nobody else would ever give that memory back before the next boot.

Each memory directory has a link to the state directory it belongs to. One whose link leads nowhere and whose lock nobody holds is
removed; whoever has its files mapped keeps right bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swingby.keeper.place import KeeperPlace

LINK = "state"
LOCK = "lock"


def claim(place: KeeperPlace) -> None:
    """Note in the memory directory which home it belongs to."""
    link = os.path.join(place.memory, LINK)
    with contextlib.suppress(OSError):
        if os.path.lexists(link) and os.readlink(link) != place.state:
            os.unlink(link)
        if not os.path.lexists(link):
            os.symlink(place.state, link)


def remove_orphans(place: KeeperPlace) -> list[str]:
    """Remove memory directories beside this home's own whose home is gone; their paths."""
    removed = []
    root, mine = os.path.split(place.memory)
    family = mine.rpartition("-")[0] + "-"
    with contextlib.suppress(OSError):
        for entry in os.scandir(root):
            is_ours = entry.name.startswith(family) and entry.name != mine and entry.is_dir(follow_symlinks=False)
            if is_ours and entry.stat().st_uid == os.getuid() and _is_orphan(entry.path):
                shutil.rmtree(entry.path, ignore_errors=True)
                removed.append(entry.path)
    return removed


def _is_orphan(directory: str) -> bool:
    try:
        if os.path.lexists(os.readlink(os.path.join(directory, LINK))):
            return False
        descriptor = os.open(os.path.join(directory, LOCK), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
