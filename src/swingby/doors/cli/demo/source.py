"""What the demo loads, and how a program without Swingby would load it."""

from __future__ import annotations

import os
import sysconfig
import time
from typing import TYPE_CHECKING, NamedTuple

from swingby import assemble
from swingby.core.object import key_bytes
from swingby.core.url import parse
from swingby.doors.cli.quantities import number, objects, size
from swingby.doors.cli.terminal import shown
from swingby.errors import AccessDeniedError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer

    from swingby.assemble import Hooks
    from swingby.base.contract import Base
    from swingby.config import Settings
    from swingby.doors.cli.demo.far import Record

UNREADABLE_MAX = 200
LEFT_OUT_OF_PYTHON = ["__pycache__/*", "*/__pycache__/*", "site-packages/*", "dist-packages/*"]


class Choice(NamedTuple):
    """What to load.

    Attributes:
        url: of it.
        include, exclude: patterns of keys.
        bytes_max: of the dataset; the demo reads it several times.
    """

    url: str
    include: list[str]
    exclude: list[str]
    bytes_max: int


def installed_python(choice: Choice) -> Choice:
    """The library tree of the Python that runs this, without what others installed into it: the same files everywhere."""
    return choice._replace(url=sysconfig.get_path("stdlib"), exclude=[*LEFT_OUT_OF_PYTHON, *choice.exclude])


class Source:
    """The base of the demo, without levels.

    Args:
        choice: what to load.
        settings: with credentials.
        hooks: that make the base far.
        record: where plain reads are noted, as those of the base are.
    """

    def __init__(self, choice: Choice, settings: Settings, hooks: Hooks, record: Record) -> None:
        address = parse(choice.url)
        location = assemble.locate(address, settings, folder=True)
        self._choice = choice
        self._record = record
        self._prefix = location.path
        self._is_files = address.scheme == "file"
        self.base: Base = assemble.make_base(location, settings, hooks)[0]

    @property
    def directory(self) -> str:
        """Of files; empty for a remote base."""
        return os.fsdecode(b"/" + self._prefix) if self._is_files else ""

    def unreadable(self, keys: Sequence[str]) -> list[str]:
        """Keys of files that this user may not read.

        Raises:
            AccessDeniedError: too many are.
        """
        if not self._is_files:
            return []
        found = [key for key in keys if not os.access(self._path(key), os.R_OK)]
        if len(found) > UNREADABLE_MAX or len(found) == len(keys):
            raise AccessDeniedError(
                f"{number(len(found))} of {objects(len(keys))} under {shown(self._choice.url)} may not be read by this user",
                remedy="Choose a part with --include, or run it as another user",
            )
        return found

    def check_size(self, total: int) -> None:
        """Refuse what is too much for a demo.

        Raises:
            ConfigError: it is.
        """
        if total > self._choice.bytes_max:
            raise ConfigError(
                f"{shown(self._choice.url)} holds {size(total)}, and the demo reads all of it several times",
                remedy="Choose a part with --include, or raise --bytes-max",
            )

    def reader(self, latency_seconds: float) -> Callable[[str], Buffer]:
        """Reads one object by its key as a user's program would: files by open and read, remote objects by one request."""
        if not self._is_files:
            prefix = self._prefix
            return lambda key: self.base.read(prefix + key_bytes(key)).data
        record = self._record

        def read(key: str) -> bytes:
            started = arrived = time.perf_counter()
            if latency_seconds:
                time.sleep(latency_seconds)
                arrived = time.perf_counter()
            with open(self._path(key), "rb") as file:
                data = file.read()
            record.add(started, arrived, time.perf_counter(), len(data))
            return data

        return read

    def _path(self, key: str) -> bytes:
        return b"/" + self._prefix + key_bytes(key)
