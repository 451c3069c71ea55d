"""`swingby` as a file system of fsspec, over a target: files, a bucket, whatever `swingby.open` reads. Read-only.

Nothing of a listing is remembered; what `info` said is, for `max_age_seconds`. Threads: safe. Forks and spawned processes: safe;
there is no event loop and no thread of ours that would be missed. Failure: errors of `swingby.errors`, which are the builtins that
fsspec's users expect; a base that is down is never taken for a file that is not there.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.implementations.chained import ChainedFileSystem
from fsspec.utils import isfilelike

from swingby import config, sessions
from swingby.core.object import ObjectInfo
from swingby.doors.fsspec import options, ranges
from swingby.doors.fsspec.file import SwingbyFile
from swingby.doors.fsspec.folders import Folders
from swingby.doors.fsspec.refusals import Refusals, UnsupportedError
from swingby.errors import ConfigError, ObjectChangedError, ObjectNotFoundError
from swingby.path.object_reader import ObjectReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SEEN_MAX = 100_000  # answers of `info` that are remembered, where max_age_seconds allows it
COPY_BYTES = 4 << 20
ATTEMPTS_MAX = 3  # while an object keeps changing


class SwingbyFileSystem(Refusals, ChainedFileSystem):
    """See the module's text.

    Args:
        target_protocol: what is read: "file", "s3", …
        target_options: as for the target's own file system; where and as whom.
        max_age_seconds: how long an answer of the base counts. 0: every `info` and `open` asks it once; an open file then sees that
            version to its end, or raises ObjectChangedError.
        settings: dotted keys to values; see docs/configuration.md.
        fo: of chained URLs; no matter.
        others: options that say nothing of what is read.

    Raises:
        ConfigError: an option that cannot be honoured, or a wrong setting.
    """

    protocol = options.PROTOCOL
    async_impl = False
    _strip_tokenize_options = ("fo",)

    def __init__(
        self,
        target_protocol: str = "file",
        target_options: Mapping[str, Any] | None = None,
        max_age_seconds: float = 0.0,
        settings: Mapping[str, Any] | None = None,
        fo: str | None = None,
        **others: Any,
    ) -> None:
        del fo
        for name in set(others) - options.WITHOUT_MEANING:
            raise ConfigError(
                f"swingby has no option {name!r}",
                remedy="Options of the target go under its name, as in s3={…} with a chained URL, or into target_options={…}",
            )
        super().__init__(**others)
        self.target_protocol = target_protocol
        self.max_age_seconds = max_age_seconds
        self.scheme = options.scheme_of(target_protocol)
        self.root_marker = "/" if self.scheme == "file" else ""
        self._settings = config.load(options.overrides(self.scheme, target_options or {}, settings))
        self._folders = Folders(self.scheme, self._settings)
        self._seen: dict[str, tuple[float, dict[str, Any]]] = {}
        self.__dict__["_strip_protocol"] = self._stripped  # fsspec calls it on the class and on instances

    # -- names ---------------------------------------------------------------------------------------------------------

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        """Without our prefix and the target's; what else a path needs, only an instance knows."""
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        return options.split(path)[1].rstrip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        """What a URL of the form `swingby://s3://bucket/key` says of the target."""
        scheme = options.split(path)[0]
        return {"target_protocol": scheme} if scheme else {}

    def _stripped(self, path: Any) -> Any:
        """The same for this target: its own form of a path, a URL or a list of them."""
        if isinstance(path, list):
            return [self._stripped(one) for one in path]
        return options.path_of(self.scheme, path)

    def unstrip_protocol(self, name: str) -> str:
        """The URL of a path, which names the target, too: `swingby://s3://bucket/key`."""
        return f"{self.protocol}://{self.scheme}://{self._stripped(name)}"

    @property
    def fsid(self) -> str:
        """Equal for equal targets."""
        where = (self.scheme, self._settings.s3.endpoint if self.scheme == "s3" else None, self._settings.home)
        return f"{self.protocol}_{sha256(repr(where).encode()).hexdigest()[:16]}"

    # -- what is there -------------------------------------------------------------------------------------------------

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name, size, type, mtime, version and, of a bucket, ETag and LastModified.

        One request for a file; one more for a directory.

        Raises:
            FileNotFoundError: neither a file nor a directory.
        """
        path = self._stripped(path)
        seen = self._seen.get(path)
        if seen and time.monotonic() - seen[0] < self.max_age_seconds:
            return dict(seen[1])
        try:
            return self._object(path)
        except ObjectNotFoundError:
            return self._folders.directory(path)

    def _object(self, path: str) -> dict[str, Any]:
        details = self._folders.object(path)
        if self.max_age_seconds > 0:
            if len(self._seen) >= SEEN_MAX:
                self._seen = {}
            self._seen[path] = (time.monotonic(), dict(details))
        return details

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget what `info` said."""
        if path is None:
            self._seen = {}
        else:
            self._seen.pop(self._stripped(path), None)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """What lies in a directory, by name; of a file, itself.

        Raises:
            FileNotFoundError: neither.
        """
        path = self._stripped(path)
        try:
            found = sorted(self._folders.inside(path), key=lambda one: str(one["name"]))
        except ObjectNotFoundError:
            found = [self._object(path)]
        return found if detail else [one["name"] for one in found]

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **_: Any
    ) -> Any:
        """All files below a path, in order of their names.

        Of a bucket without `maxdepth` by one parallel listing, which does not tell modification times.
        """
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth is at least 1")
        path = self._stripped(path)
        try:
            found = self._folders.below(path, maxdepth)
        except ObjectNotFoundError:
            found = {}
        if found and withdirs and path.strip("/"):
            found[path] = {"name": path, "size": 0, "type": "directory"}
        if not found:
            found = {path: self.info(path)} if self.exists(path) else {}
        names = sorted(name for name, one in found.items() if withdirs or one["type"] == "file")
        return {name: found[name] for name in names} if detail else names

    def walk(self, path: str, maxdepth: int | None = None, topdown: bool = True, **more: Any) -> Iterator[Any]:
        """As in fsspec; but a base that fails is an error, not an empty directory."""
        more.setdefault("on_error", _raise_unless_missing)
        yield from super().walk(path, maxdepth, topdown, **more)

    def du(self, path: str, total: bool = True, maxdepth: int | None = None, withdirs: bool = False, **_: Any) -> Any:
        """Bytes below a path, or of each file."""
        sizes = {name: one["size"] for name, one in self.find(path, maxdepth, withdirs, detail=True).items()}
        return sum(sizes.values()) if total else sizes

    def exists(self, path: str, **_: Any) -> bool:
        """Whether there is a file or directory. A base that fails is an error."""
        return self._type(path) != ""

    def isdir(self, path: str) -> bool:
        """Whether it is a directory. A base that fails is an error."""
        return self._type(path) == "directory"

    def isfile(self, path: str) -> bool:
        """Whether it is a file. A base that fails is an error."""
        return self._type(path) == "file"

    def _type(self, path: str) -> str:
        try:
            return str(self.info(path)["type"])
        except FileNotFoundError:
            return ""

    def ukey(self, path: str) -> str:
        """The same for as long as name, size and version are."""
        details = self.info(path)
        identity = (details["name"], details["size"], details.get("version"))
        return sha256(repr(identity).encode()).hexdigest()

    def checksum(self, path: str) -> int:
        """The same as an integer."""
        return int(self.ukey(path), 16)

    def modified(self, path: str) -> datetime:
        """When it was last modified."""
        seconds = self.info(path).get("mtime")
        if seconds is None:
            raise UnsupportedError(f"nobody says when {self.unstrip_protocol(path)} was modified")
        return datetime.fromtimestamp(seconds, UTC)

    # -- what is in it -------------------------------------------------------------------------------------------------

    def _open(self, path: str, mode: str = "rb", **_: Any) -> SwingbyFile:
        if mode not in {"rb", "r"}:
            self._refuse(path)
        path = self._stripped(path)
        seen = self._seen.get(path)
        if seen and time.monotonic() - seen[0] < self.max_age_seconds:
            return self.open_version(seen[1])
        return self.open_version(self._object(path))

    def open_version(self, details: dict[str, Any]) -> SwingbyFile:
        """The file that `info` described, or ObjectChangedError when its bytes are wanted and are there no more."""
        info = ObjectInfo(details["size"], bytes.fromhex(details["version"]))
        return SwingbyFile(self, details, self.reader(details["name"], info))

    def reader(self, path: str, info: ObjectInfo | None = None) -> ObjectReader:
        """Reads one version of an object: this one, or the one that is found first."""
        session = sessions.session(self._settings)
        location = self._folders.location(path)
        seconds = self._settings.client.deadline_seconds
        fallback = session.fallback(location)
        age = self.max_age_seconds
        return ObjectReader(session.client, location, fallback, seconds, max_age_seconds=age, info=info)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Bytes [start, end) of a file, negative ones counted from its end. One version, asked for once."""
        (data,) = self._cat_ranges([(self._stripped(path), start, end)])
        return bytes(data)

    def cat_ranges(
        self,
        paths: list[str],
        starts: int | Sequence[int | None] | None,
        ends: int | Sequence[int | None] | None,
        max_gap: int | None = None,
        on_error: str = "return",
        **_: Any,
    ) -> list[Any]:
        """Many ranges at once: each file's version is asked for once, each chunk fetched once, many at a time."""
        del max_gap
        listed = [[one] * len(paths) if one is None or isinstance(one, int) else list(one) for one in (starts, ends)]
        wanted = list(zip(self._stripped(list(paths)), *listed, strict=True))
        return self._cat_ranges(wanted, on_error)

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **_: Any) -> Any:
        """The bytes of a file; of several a dict by path, many read at a time."""
        paths = self.expand_path(path, recursive=recursive)
        if not isinstance(path, list) and paths == [self._stripped(path)]:
            return self.cat_file(paths[0])
        if recursive:
            paths = [one for one in paths if not self.isdir(one)]
        found = self._cat_ranges([(one, None, None) for one in paths], on_error)
        return {
            one: data
            for one, data in zip(paths, found, strict=True)
            if on_error == "return" or not isinstance(data, Exception)
        }

    def _cat_ranges(self, wanted: list[ranges.Range], on_error: str = "raise") -> list[Any]:
        found = ranges.read(wanted, self.reader)
        for number, data in enumerate(found):
            if isinstance(data, ObjectChangedError):  # once more, as if asked now
                self.invalidate_cache(wanted[number][0])
        changed = [number for number, data in enumerate(found) if isinstance(data, ObjectChangedError)]
        paths = {wanted[number][0] for number in changed}
        again = [number for number, one in enumerate(wanted) if one[0] in paths]
        if again:
            for number, data in zip(again, ranges.read([wanted[n] for n in again], self.reader), strict=True):
                found[number] = data
        if on_error == "raise":
            for data in found:
                if isinstance(data, Exception):
                    raise data
        return found

    def get_file(self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, outfile: Any = None, **_: Any) -> None:
        """Copy a file to a local one, whole or not at all; of a directory, make it."""
        details = self.info(rpath)
        outfile = lpath if outfile is None and isfilelike(lpath) else outfile
        if outfile is not None:
            self._copy(details, outfile, callback)
            return
        if details["type"] == "directory":
            os.makedirs(lpath, exist_ok=True)
            return
        os.makedirs(os.path.dirname(os.path.abspath(lpath)), exist_ok=True)
        try:
            with open(lpath, "wb") as target:
                self._copy(details, target, callback)
        except BaseException:
            if os.path.isfile(lpath):
                os.unlink(lpath)
            raise

    def _copy(self, details: dict[str, Any], target: Any, callback: Any) -> None:
        callback.set_size(details["size"])
        buffer = memoryview(bytearray(min(COPY_BYTES, max(1, details["size"]))))
        with self.open_version(details) as source:
            while count := source.readinto(buffer):
                target.write(buffer[:count])
                callback.relative_update(count)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
