"""Files of any POSIX mount as a base, by plain system calls.

A version is a file's modification time in nanoseconds, beside its size. A file rewritten within the time stamp's resolution, or in
place while it is read, can go unnoticed; files are meant to be replaced by rename.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, NoReturn

from swingby.base.posix_walk import walk
from swingby.core.object import ObjectInfo, Payload, key_text, version_of_mtime
from swingby.errors import (
    AccessDeniedError,
    BaseNotFoundError,
    BaseUnavailableError,
    CorruptDataError,
    LevelError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    SwingbyError,
    TruncatedReadError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

    from swingby.core.object import Page

_ERRORS: dict[int, tuple[type[SwingbyError], str]] = {
    errno.ENOENT: (ObjectNotFoundError, "no such file"),
    errno.ENOTDIR: (ObjectNotFoundError, "no such file: a part of its path is no directory"),
    errno.EISDIR: (ObjectNotFoundError, "it is a directory"),
    errno.ENAMETOOLONG: (ObjectNotFoundError, "its name is longer than the file system allows"),
    errno.ELOOP: (ObjectNotFoundError, "its symbolic links go in a circle"),
    errno.EACCES: (AccessDeniedError, "permission denied"),
    errno.EPERM: (AccessDeniedError, "permission denied"),
    errno.EROFS: (AccessDeniedError, "the file system is read-only"),
    errno.EEXIST: (ObjectExistsError, "it exists"),
    errno.ENOSPC: (LevelError, "the file system is full"),
    errno.EDQUOT: (LevelError, "the quota is used up"),
    errno.EIO: (CorruptDataError, "the disk reports an input/output error"),
}


def translate(error: OSError, key: bytes) -> NoReturn:
    """Raise our error for one of the operating system's."""
    text = key_text(key)
    kind, what = _ERRORS.get(error.errno or 0, (BaseUnavailableError, error.strerror or str(error)))
    raise kind(f"/{text}: {what}", key=text, base="file") from None


class PosixBase:
    """Files below `/` of this node; keys are absolute paths without the first slash.

    Args:
        base_id: identity; a node-local one, unless an administrator names a shared mount.
        threads_max: for listing a slow file system.
    """

    local = True

    def __init__(self, base_id: str, threads_max: int) -> None:
        self._id = base_id
        self._threads_max = threads_max

    @property
    def id(self) -> str:
        """Identity of the storage."""
        return self._id

    def list(self, prefix: bytes, after: bytes = b"") -> Iterator[Page]:
        """Every regular file below a directory, symbolic links followed; see `Base.list`."""
        try:
            info = os.stat(b"/" + prefix.rstrip(b"/"))
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR}:
                raise BaseNotFoundError(f"/{key_text(prefix)}: no such directory", key=key_text(prefix)) from None
            translate(error, prefix)
        if not stat.S_ISDIR(info.st_mode):
            raise BaseNotFoundError(
                f"/{key_text(prefix.rstrip(b'/'))} is a single file",
                key=key_text(prefix),
                remedy="Open the directory that holds it, or use swingby.read",
            )
        try:
            yield from walk(b"/" + prefix, b"/" + after, self._threads_max)
        except OSError as error:
            translate(error, os.fsencode(error.filename or b"").lstrip(b"/") or prefix)

    def stat(self, key: bytes) -> ObjectInfo:
        """See `Base.stat`."""
        try:
            return _info(os.stat(_path(key)), key)
        except OSError as error:
            translate(error, key)

    def read(self, key: bytes, start: int = 0, size: int | None = None, version: bytes | None = None) -> Payload:
        """See `Base.read`."""
        try:
            descriptor = os.open(_path(key), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            translate(error, key)
        try:
            info = _info(os.fstat(descriptor), key)
            if version is not None and info.version != version:
                raise _changed(key)
            wanted = max(0, min(info.size - start, info.size if size is None else size))
            data = os.pread(descriptor, wanted, start)
            if len(data) < wanted:
                data = _read_rest(descriptor, data, start, wanted)
            if _info(os.fstat(descriptor), key) != info:
                raise _changed(key)
            if len(data) < wanted:
                raise TruncatedReadError(f"/{key_text(key)} ended early", key=key_text(key))
            return Payload(data, info)
        except SwingbyError:
            raise
        except OSError as error:
            translate(error, key)
        finally:
            os.close(descriptor)

    def write(self, key: bytes, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        """See `Base.write`: temporary file, fsync, rename (or link), fsync of the directory."""
        path = _path(key)
        folder = os.path.dirname(path)
        temporary = os.path.join(folder, b".%s.%d.tmp" % (os.path.basename(path)[:200], os.getpid()))
        try:
            os.makedirs(folder, exist_ok=True)
            _write_durably(temporary, data)
            if if_absent:
                os.link(temporary, path)
                os.unlink(temporary)
            else:
                os.rename(temporary, path)
            _sync_directory(folder)
            return _info(os.stat(path), key)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            translate(error, key)

    def delete(self, key: bytes) -> None:
        """See `Base.delete`."""
        try:
            os.unlink(_path(key))
        except FileNotFoundError:
            return
        except OSError as error:
            translate(error, key)

    def close(self) -> None:
        """Nothing is held."""


def _path(key: bytes) -> bytes:
    if b".." in key and b".." in key.split(b"/"):
        raise ObjectNotFoundError(
            f"/{key_text(key)}: a path with '..' is no key", key=key_text(key), remedy="Give the resolved path"
        )
    return b"/" + key


def _info(result: os.stat_result, key: bytes) -> ObjectInfo:
    if not stat.S_ISREG(result.st_mode):
        raise ObjectNotFoundError(f"/{key_text(key)} is no regular file", key=key_text(key))
    return ObjectInfo(result.st_size, version_of_mtime(result.st_mtime_ns))


def _changed(key: bytes) -> ObjectChangedError:
    return ObjectChangedError(
        f"/{key_text(key)} has changed since it was listed",
        key=key_text(key),
        base="file",
        remedy="Open the dataset again, with refresh='always'",
    )


def _read_rest(descriptor: int, data: bytes, start: int, wanted: int) -> bytes:
    """One read returns 2 GiB at most, and less when a signal comes."""
    parts = [data]
    done = len(data)
    while done < wanted and parts[-1]:
        parts.append(os.pread(descriptor, wanted - done, start + done))
        done += len(parts[-1])
    return b"".join(parts)


def _write_durably(path: bytes, data: Buffer) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        view = memoryview(data).cast("B")
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(path: bytes) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
