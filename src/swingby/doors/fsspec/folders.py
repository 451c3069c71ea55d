"""Folders and objects of a target, as fsspec describes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from swingby import assemble, sessions
from swingby.core.object import key_bytes, key_text
from swingby.core.url import Address
from swingby.errors import ObjectNotFoundError, UrlError
from swingby.keeper.protocol import Location

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swingby.base.browse import Browser, Entry
    from swingby.config import Settings

Details = dict[str, Any]


class Folders:
    """Looks into a target.

    Args:
        scheme: of the target; "file" has paths, all others "container/key".
        settings: in force.
    """

    def __init__(self, scheme: str, settings: Settings) -> None:
        self._scheme = scheme
        self._settings = settings

    def location(self, path: str) -> Location:
        """Where a path lies.

        Raises:
            UrlError: it names no bucket.
        """
        if self._scheme == "file":
            return Location("file", "", key_bytes(path.lstrip("/")))
        container, _, key = path.partition("/")
        if not container:
            raise UrlError(f"{path!r} names no bucket", remedy=f"Write {self._scheme}://bucket/key")
        return assemble.locate(Address(self._scheme, container, key), self._settings, folder=False)

    def object(self, path: str) -> Details:
        """Of one object.

        Raises:
            ObjectNotFoundError: there is none.
        """
        location = self.location(path)
        if not location.path:
            raise ObjectNotFoundError(f"{path!r} is a whole bucket or root", key=path)
        return self._details(location, self._browser(location).object(location.path))

    def directory(self, path: str) -> Details:
        """Of a folder.

        Raises:
            ObjectNotFoundError: there is none.
        """
        location = self.location(path)
        try:
            next(self._browser(location).folder(_prefix(location)), None)
        except ObjectNotFoundError:
            name = f"{self._scheme}://{path}"
            raise ObjectNotFoundError(f"{name}: no such file or directory", key=path) from None
        return _folder(path)

    def inside(self, path: str) -> Iterator[Details]:
        """Of everything directly in a folder.

        Raises:
            ObjectNotFoundError: there is none.
        """
        location = self.location(path)
        for entries in self._browser(location).folder(_prefix(location)):
            yield from (self._details(location, entry) for entry in entries)

    def below(self, path: str, depth_max: int | None) -> dict[str, Details]:
        """Of everything below a folder, folders too, by name.

        Raises:
            ObjectNotFoundError: there is no such folder.
        """
        if self._scheme == "file" or depth_max is not None:
            return self._by_levels(path, depth_max)
        location = self.location(path)
        found: dict[str, Details] = {}
        prefix = _prefix(location)
        for page in self._browser(location).below(prefix):
            for key, size, version in zip(page.keys, page.sizes.tolist(), page.versions, strict=True):
                name = self._name(location, key)
                found[name] = {"name": name, "size": size, "type": "file", "version": version.tobytes().hex()}
                parent = name.rpartition("/")[0]
                while len(parent) > len(path) and parent not in found:
                    found[parent] = _folder(parent)
                    parent = parent.rpartition("/")[0]
        return found

    def _by_levels(self, path: str, depth_max: int | None) -> dict[str, Details]:
        found: dict[str, Details] = {}
        level, depth = [path], 0
        while level and (depth_max is None or depth < depth_max):
            following: list[str] = []
            for folder in level:
                try:
                    inside = {details["name"]: details for details in self.inside(folder)}
                except ObjectNotFoundError:
                    if depth == 0:
                        raise
                    continue  # it went meanwhile
                found |= inside
                following += [name for name, details in inside.items() if details["type"] == "directory"]
            level, depth = following, depth + 1
        return found

    def _browser(self, location: Location) -> Browser:
        return sessions.session(self._settings).browser(location)

    def _name(self, location: Location, key: bytes) -> str:
        return f"{location.container}/{key_text(key)}"

    def _details(self, location: Location, entry: Entry) -> Details:
        name = self._name(location, entry.key)
        if entry.info is None:
            return _folder(name)
        details: Details = {"name": name, "size": entry.info.size, "type": "file", "version": entry.info.version.hex()}
        if entry.modified is not None:
            details["mtime"] = entry.modified
        if entry.etag:
            details["ETag"] = f'"{entry.etag}"'
            if entry.modified is not None:
                details["LastModified"] = datetime.fromtimestamp(entry.modified, UTC)
        return details


def _folder(name: str) -> Details:
    return {"name": name, "size": 0, "type": "directory"}


def _prefix(location: Location) -> bytes:
    return location.path + b"/" if location.path else b""
