"""An open file: one version of one object, read-only, buffered where lines are read."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

from swingby.errors import ClosedError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from swingby.doors.fsspec.filesystem import SwingbyFileSystem
    from swingby.path.object_reader import ObjectReader

LINE_BLOCK_BYTES = 256 << 10
READ1_BYTES = 128 << 10  # given at once to a reader who leaves it to us


class SwingbyFile(io.BufferedIOBase):
    """Made by `SwingbyFileSystem.open`. Sees the version it was opened at, or raises ObjectChangedError.

    Pickling keeps version and position. Threads: as any file, one at a time; `read_at` any number.

    Attributes:
        fs, path, mode: as in fsspec.
        details: what `info` said at opening.
        size: bytes.
    """

    mode = "rb"

    def __init__(self, fs: SwingbyFileSystem, details: dict[str, Any], reader: ObjectReader) -> None:
        self.fs = fs
        self.path: str = details["name"]
        self.details = details
        self.size: int = details["size"]
        self._reader = reader
        self._at = 0
        self._lines = b""
        self._lines_at = 0

    @property
    def name(self) -> str:
        """The path."""
        return self.path

    @property
    def full_name(self) -> str:
        """The path with its protocol."""
        return self.fs.unstrip_protocol(self.path)

    def info(self) -> dict[str, Any]:
        """What `info` said at opening."""
        return self.details

    def readable(self) -> bool:
        """True."""
        return not self.closed or self._refuse()

    def seekable(self) -> bool:
        """True."""
        return not self.closed or self._refuse()

    def tell(self) -> int:
        """The position."""
        return self._at if not self.closed else self._refuse()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position; behind the end is allowed, and reads nothing.

        Raises:
            ValueError: before the beginning, or an unknown `whence`.
        """
        if self.closed:
            self._refuse()
        origins = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}
        if whence not in origins or origins[whence] + offset < 0:
            raise ValueError(f"seek({offset}, {whence}) leads nowhere")
        self._at = origins[whence] + offset
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """So many bytes, or all that are left."""
        data = self.read_at(self._at, self.size if size is None or size < 0 else self._at + size)
        self._at += len(data)
        return data

    def read_at(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop), without moving the position."""
        if self.closed:
            self._refuse()
        stop = min(stop, self.size)
        return self._reader.read(start, stop) if start < stop else b""

    def read1(self, size: int = -1, /) -> bytes:
        """Some bytes, at most `size`."""
        return self.read(READ1_BYTES if size < 0 else size)

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill a buffer, without another copy; how many bytes."""
        if self.closed:
            self._refuse()
        view = memoryview(buffer).cast("B")
        done = self._reader.read_into(view, self._at) if self._at < self.size and view else 0
        self._at += done
        return done

    def readinto1(self, buffer: Buffer, /) -> int:
        """The same."""
        return self.readinto(buffer)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Up to and with the next newline, at most `size` bytes."""
        parts: list[bytes] = []
        left = self.size if size is None or size < 0 else size
        while left > 0:
            first = self._at - self._lines_at
            if not 0 <= first < len(self._lines):
                self._lines, self._lines_at = self.read_at(self._at, self._at + LINE_BLOCK_BYTES), self._at
                first = 0
                if not self._lines:
                    break
            end = self._lines.find(b"\n", first, first + left) + 1
            part = self._lines[first : end or first + left]
            parts.append(part)
            self._at += len(part)
            left -= len(part)
            if end:
                break
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Let go of what is held."""
        if not self.closed:
            self._reader.close()
            self._lines = b""
        super().close()

    def _refuse(self) -> Any:
        raise ClosedError(f"{self.path} is closed")

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.fs, self.details, self.tell())

    def __repr__(self) -> str:
        return f"<SwingbyFile {self.full_name}>"


def _reopened(fs: SwingbyFileSystem, details: dict[str, Any], at: int) -> SwingbyFile:
    """What a pickled file becomes: the same version, at the same position."""
    file = fs.open_version(details)
    file.seek(at)
    return file
