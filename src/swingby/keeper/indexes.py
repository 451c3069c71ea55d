"""Indexes of single containers, kept so that a later listing, or one after a crash, reads only containers that are new.

    indexes/<place>/<digest of key, size, version, layout>

They can be made again from the base, so that they are not flushed: what a power cut damages does not match its checksum.

Threads: safe.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from typing import TYPE_CHECKING

from swingby.core.checksum import name_digest
from swingby.core.containers.index import decode_index, encode_index
from swingby.core.containers.reading import PARSER
from swingby.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swingby.core.containers.index import ContainerIndex
    from swingby.core.object import ObjectInfo


STALE_SECONDS = 7 * 24 * 3600.0  # a first index that was ended in the middle is gone on with for so long


def remove_stale(directory: str, places: Iterable[str]) -> None:
    """Remove the indexes of places that are not known, once nobody has gone on with them for a week."""
    with contextlib.suppress(OSError):
        for name in set(os.listdir(directory)) - set(places):
            path = os.path.join(directory, name)
            if time.time() - os.stat(path).st_mtime > STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def index_name(key: bytes, info: ObjectInfo, layout: str) -> str:
    """The file name of a container's index."""
    return name_digest(key, info.size.to_bytes(8, "little"), info.version, layout.encode(), bytes([PARSER])).hex()


class IndexFolder:
    """The indexes of one place. What cannot be written is made again the next time.

    Args:
        directory: of them; made when needed.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def load(self, name: str) -> ContainerIndex | None:
        """A kept index; None where there is none, or none that can be used."""
        try:
            with open(os.path.join(self._directory, name), "rb") as file:
                return decode_index(file.read())
        except (OSError, FormatError):
            return None

    def save(self, name: str, index: ContainerIndex) -> None:
        """Keep one."""
        path = os.path.join(self._directory, name)
        temporary = f"{path}.{os.getpid()}.{threading.get_ident()}.tmp"
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(encode_index(index))
            os.rename(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)

    def keep_only(self, names: Iterable[str]) -> None:
        """Remove all others, and what was left half-written."""
        wanted = set(names)
        with contextlib.suppress(OSError):
            for name in set(os.listdir(self._directory)) - wanted:
                os.unlink(os.path.join(self._directory, name))
