"""Tables of the row groups of Parquet files: pyarrow reads them as parts of their file, and every byte comes from the dataset.

Needs pyarrow, which `pip install swingby[parquet]` brings.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from swingby.core.containers.layouts import FOOTER
from swingby.core.object import key_bytes
from swingby.errors import ConfigError, ObjectNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swingby.path.read import DatasetReader

FOOTERS_MAX = 64  # parsed and kept


class _Group(NamedTuple):
    """One row group.

    Attributes:
        number: in its file.
        start, size: its bytes in the file.
        file_bytes: of the file.
    """

    number: int
    start: int
    size: int
    file_bytes: int


class RowGroups:
    """See the module's text.

    Args:
        reader: of a dataset of layout "parquet".
    """

    def __init__(self, reader: DatasetReader) -> None:
        self._reader = reader
        self._footers: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def table(self, key: str, columns: Sequence[str] | None, data: memoryview | None) -> Any:
        """The `pyarrow.Table` of a row group.

        Args:
            key: of the sample.
            columns: names of those to read; None: all.
            data: the sample's bytes; None: only what the columns need is read.

        Raises:
            ConfigError: pyarrow is not installed.
            SwingbyError: it cannot be read.
        """
        pq = _pyarrow()
        manifest = self._reader.manifest
        index = self._index(key)
        where = manifest.where(index)
        file, _, name = key.rpartition("/")
        group = _Group(int(name), where.start, where.stored_bytes, where.object_size)

        def read(start: int, stop: int) -> memoryview:
            return data[start:stop] if data is not None else self._reader.part(index, start, stop)

        source = _Part(group, read)
        opened = pq.ParquetFile(source, metadata=self._footer(file, pq), pre_buffer=True)
        try:
            return opened.read_row_group(group.number, columns=None if columns is None else list(columns))
        finally:
            opened.close()

    def _footer(self, file: str, pq: Any) -> Any:
        """A file's parsed footer, which is an entry of the manifest beside its row groups."""
        with self._lock:
            found = self._footers.get(file)
        if found is None:
            index = self._index(f"{file}/{FOOTER.decode()}")
            found = pq.read_metadata(io.BytesIO(self._reader.find(np.array([index])).views()[0]))
            with self._lock:
                self._footers[file] = found
                if len(self._footers) > FOOTERS_MAX:
                    self._footers.popitem(last=False)
        return found

    def _index(self, key: str) -> int:
        index = self._reader.manifest.find(key_bytes(key))
        if index is None:
            raise ObjectNotFoundError(f"{key} is not in the dataset", key=key)
        return index


class _Part(io.RawIOBase):
    """A file of which one stretch can be read.

    Args:
        group: the stretch.
        read: bytes [start, stop) of it.
    """

    def __init__(self, group: _Group, read: Callable[[int, int], memoryview]) -> None:
        self._group = group
        self._read = read
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See `io.IOBase.seek`."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._group.file_bytes}[whence]
        return self._at

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """See `io.RawIOBase.read`; bytes outside of the row group are zeros, which nobody needs."""
        stop = self._group.file_bytes if size < 0 else min(self._group.file_bytes, self._at + size)
        start, end = self._group.start, self._group.start + self._group.size
        first, last = max(self._at, start), min(stop, end)
        inside = bytes(self._read(first - start, last - start)) if first < last else b""
        before = max(0, min(stop, first) - self._at)
        found = bytes(before) + inside
        found += bytes(max(0, stop - self._at - len(found)))
        self._at = stop
        return found


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise ConfigError("tables need pyarrow", remedy="Run `pip install 'swingby[parquet]'`") from None
    return pq
