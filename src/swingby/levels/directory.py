"""A level's directory: which pairs lie in it, and which of another format are kept aside."""

from __future__ import annotations

import contextlib
import os
import re

from swingby.levels import segment_file
from swingby.levels.segment_file import file_name

ASIDE = "aside"

_NAME = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{16})(\.seg|\.map|\.was|\.map\.tmp)")


def scan(directory: str) -> tuple[dict[bytes, str], list[str]]:
    """Common parts of the names of all pairs by segment id, and names of files that make no pair."""
    suffixes: dict[tuple[str, str], list[str]] = {}
    names: dict[bytes, str] = {}
    strays = []
    for name in os.listdir(directory):
        match = _NAME.fullmatch(name)
        if match:
            suffixes.setdefault((match[1], match[2]), []).append(match[3])
        elif name.endswith(segment_file.TEMPORARY_SUFFIX):
            strays.append(name)
    for (identity, generation), found in suffixes.items():
        key = bytes.fromhex(identity)
        is_pair = ".seg" in found and ".map" in found
        if is_pair and key not in names:
            names[key] = file_name(key, int(generation, 16))
            strays += [f"{identity}.{generation}{one}" for one in found if one == ".map.tmp"]
        else:
            strays += [f"{identity}.{generation}{one}" for one in found]
    return names, strays


class Aside:
    """Pairs of another format, which another release may read, for as long as their room is not needed.

    Args:
        directory: the level's.

    Attributes:
        used_bytes: of them.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._sizes: dict[str, int] = {}
        self.used_bytes = 0
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(os.path.join(directory, ASIDE)):
                self._count(entry.name.rpartition(".")[0], entry.stat())

    def put(self, name: str) -> None:
        """Set a pair aside."""
        folder = os.path.join(self._directory, ASIDE)
        self._sizes[name] = 0
        with contextlib.suppress(OSError):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            for suffix in (segment_file.SEGMENT_SUFFIX, segment_file.MAP_SUFFIX):
                os.rename(os.path.join(self._directory, name + suffix), os.path.join(folder, name + suffix))
                self._count(name, os.stat(os.path.join(folder, name + suffix)))

    def drop(self) -> bool:
        """Remove what was set aside first; False where there is nothing."""
        if not self._sizes:
            return False
        name = next(iter(self._sizes))
        self.used_bytes -= self._sizes.pop(name)
        segment_file.unlink_pair(os.path.join(self._directory, ASIDE, name))
        return True

    def _count(self, name: str, status: os.stat_result) -> None:
        size = status.st_blocks * 512
        self._sizes[name] = self._sizes.get(name, 0) + size
        self.used_bytes += size
