"""What the demo loads, and how a program without Swingby would load it."""

from __future__ import annotations

import glob
import os
import sysconfig
import time
from typing import TYPE_CHECKING, NamedTuple

from swingby import assemble
from swingby.core.object import key_bytes, key_text
from swingby.core.selection import select
from swingby.core.url import parse
from swingby.doors.cli.quantities import size
from swingby.doors.cli.terminal import shown
from swingby.errors import AccessDeniedError, ConfigError, EmptyDatasetError
from swingby.keeper.protocol import Location

if TYPE_CHECKING:
    from collections.abc import Callable

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


class Objects(NamedTuple):
    """What there is.

    Attributes:
        keys: relative to the URL, in byte order.
        sizes: in bytes.
        unreadable: keys that this user may not read; they are left out.
        listed: how many were found, before patterns left any out.
    """

    keys: list[str]
    sizes: list[int]
    unreadable: list[str]
    listed: int


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
        credentials = settings.s3 if address.scheme == "s3" else None
        location = Location(address.scheme, address.container, key_bytes(address.prefix), credentials)
        self._choice = choice
        self._record = record
        self._prefix = location.path
        self._is_files = address.scheme == "file"
        self.base: Base = assemble.make_base(location, settings, hooks)[0]

    @property
    def directory(self) -> str:
        """Of files; empty for a remote base."""
        return "/" + key_text(self._prefix) if self._is_files else ""

    def find(self) -> Objects:
        """List what there is.

        Raises:
            EmptyDatasetError: nothing, or nothing that the patterns leave.
            ConfigError: more than `bytes_max`.
            AccessDeniedError: too many files may not be read.
        """
        keys: list[bytes] = []
        sizes: list[int] = []
        for page in self.base.list(self._prefix):
            keys += [key[len(self._prefix) :] for key in page.keys]
            sizes += page.sizes.tolist()
        chosen = select(keys, self._choice.include, self._choice.exclude)
        numbers = range(len(keys)) if chosen is None else chosen.tolist()
        texts = {number: key_text(keys[number]) for number in numbers}
        unreadable = [text for text in texts.values() if self._is_files and not os.access(self._path(text), os.R_OK)]
        self._check(len(texts), sum(sizes[number] for number in numbers), len(unreadable))
        forbidden = set(unreadable)
        numbers = [number for number in numbers if texts[number] not in forbidden]
        chosen_keys = [texts[number] for number in numbers]
        return Objects(chosen_keys, [sizes[number] for number in numbers], unreadable, len(keys))

    def listing_seconds(self) -> float:
        """What a plain listing takes; the first one, `find`, has filled the caches of the base."""
        started = time.perf_counter()
        for page in self.base.list(self._prefix):
            [key[len(self._prefix) :] for key in page.keys]
        return time.perf_counter() - started

    def exclusions(self, objects: Objects) -> list[str]:
        """Patterns that leave out of a Swingby dataset what `find` left out."""
        return [*self._choice.exclude, *map(glob.escape, objects.unreadable)]

    def reader(self, latency_seconds: float) -> Callable[[str], Buffer]:
        """Reads one object by its key as a user's program would: files by open and read, remote objects by one request."""
        if not self._is_files:
            prefix = self._prefix
            return lambda key: self.base.read(prefix + key_bytes(key)).data
        record = self._record

        def read(key: str) -> bytes:
            started = time.perf_counter()
            if latency_seconds:
                time.sleep(latency_seconds)
            with open(self._path(key), "rb") as file:
                data = file.read()
            record.add(started, time.perf_counter(), len(data))
            return data

        return read

    def _path(self, key: str) -> str:
        return "/" + key_text(self._prefix) + key

    def _check(self, count: int, total: int, unreadable: int) -> None:
        url = shown(self._choice.url)
        if count == unreadable:
            raise EmptyDatasetError(f"there is nothing to load in {url}", remedy="Check the URL and the patterns")
        if unreadable > UNREADABLE_MAX:
            raise AccessDeniedError(
                f"{unreadable} files of {url} may not be read by this user", remedy="Choose a part with --include"
            )
        if self._choice.bytes_max and total > self._choice.bytes_max:
            raise ConfigError(
                f"{url} holds {size(total)}, and the demo reads all of it several times",
                remedy="Choose a part with --include, or raise --bytes-max",
            )
