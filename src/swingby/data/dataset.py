"""A dataset: one snapshot of a prefix, read by index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self, overload

import numpy as np

from swingby.core.epoch import Draw, make_order
from swingby.core.object import key_bytes, key_text
from swingby.core.selection import dataset_digest
from swingby.core.url import shown_url
from swingby.data.ahead import EpochsAhead, Following, Job
from swingby.errors import ClosedError, FormatError
from swingby.keeper.protocol import Follow

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import ArrayLike, NDArray

    from swingby.core.epoch import Order
    from swingby.core.manifest.view import Manifest
    from swingby.data.row_groups import RowGroups
    from swingby.keeper.client import KeeperClient
    from swingby.keeper.protocol import Selection
    from swingby.path.found import Found
    from swingby.path.read import DatasetReader


ITERATED_TOGETHER = 64


class Sample(NamedTuple):
    """One object, or one sample of a container.

    Attributes:
        key: relative to the dataset's URL.
        data: its bytes, read-only; valid for as long as it is held, also after `close`.
    """

    key: str
    data: memoryview

    @property
    def parts(self) -> dict[str, Any]:
        """Of layout "webdataset": "__key__", and for each extension in lower case its bytes, views of `data`.

        Raises:
            FormatError: the sample is of another layout.
        """
        from swingby.core.containers.webdataset import parts_of

        return parts_of(self.data, self.key)


class RowGroup(Sample):
    """One row group of a Parquet file."""

    row_groups: RowGroups

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows, of all columns or of those named. Needs pyarrow.

        Raises:
            ConfigError: pyarrow is not installed.
            SwingbyError: the file's footer cannot be read.
        """
        return self.row_groups.table(self.key, columns, self.data)


class Batch:
    """Several objects, read together.

    Attributes:
        indices: int64[k], as asked for.
        found: where they are, for doors that copy them in a way of their own.
    """

    __slots__ = ("_keys", "_make", "_views", "found", "indices")

    def __init__(
        self,
        indices: NDArray[np.int64],
        found: Found,
        keys: Sequence[str],
        make: Callable[[str, memoryview], Sample] = Sample,
    ) -> None:
        self.indices = indices
        self._make = make
        self.found = found
        self._views: list[memoryview] | None = None
        self._keys = keys

    @property
    def views(self) -> list[memoryview]:
        """The bytes of each, read-only; valid for as long as they are held."""
        if self._views is None:
            self._views = self.found.views()
        return self._views

    @property
    def sizes(self) -> NDArray[np.integer[Any]]:
        """In bytes."""
        return self.found.sizes

    def __len__(self) -> int:
        return len(self.indices)

    def sample(self, position: int) -> Sample:
        """One of them."""
        return self._make(self._keys[int(self.indices[position])], self.views[position])

    def __iter__(self) -> Iterator[Sample]:
        return map(self._make, self.keys, self.views)

    @property
    def keys(self) -> list[str]:
        """Keys relative to the dataset's URL; looked up when asked for, about 2 µs each."""
        return [self._keys[index] for index in self.indices.tolist()]

    def packed(self, out: NDArray[np.uint8] | None = None) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """All bytes one after another, and the offsets of the objects in them: (uint8[n], int64[k + 1]).

        Args:
            out: uint8[m] to copy into, m ≥ n; the first n of it are returned. None: memory of ours, which is used again once
                nothing refers to it.

        Raises:
            ValueError: `out` is too short, of another type or not contiguous.
        """
        return self.found.packed(out)


class Keys(Sequence[str]):
    """The keys of a dataset, looked up when asked for.

    Args:
        manifest: that holds them.
        selection: indices, None: all.
    """

    def __init__(self, manifest: Manifest, selection: NDArray[np.int64] | None) -> None:
        self._manifest = manifest
        self._selection = selection

    def __len__(self) -> int:
        return len(self._manifest) if self._selection is None else len(self._selection)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = _checked(index, len(self))
        return key_text(self._manifest.key(number if self._selection is None else int(self._selection[number])))

    def __iter__(self) -> Iterator[str]:
        if self._selection is None:
            return map(key_text, self._manifest.keys())
        return (key_text(self._manifest.key(index)) for index in self._selection.tolist())

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._find(key) is not None

    def index(self, value: str, start: int = 0, stop: int | None = None) -> int:
        """The index of a key, by bisection.

        Raises:
            ValueError: no such key.
        """
        found = self._find(value)
        if found is None or not start <= found < (len(self) if stop is None else stop):
            raise ValueError(f"no key {value!r} in the dataset")
        return found

    def _find(self, key: str) -> int | None:
        found = self._manifest.find(key_bytes(key))
        if found is None or self._selection is None:
            return found
        place = int(np.searchsorted(self._selection, found))
        return place if place < len(self._selection) and self._selection[place] == found else None


class Dataset:
    """A snapshot of everything under a URL. Made by `swingby.open`.

    It sees that snapshot or raises `ObjectChangedError`; it may be used from threads, in forked and in spawned processes (it is
    pickled as its URL and digest).

    Attributes:
        url: as opened.
    """

    def __init__(
        self,
        url: str,
        reader: DatasetReader,
        filters: Selection,
        selection: NDArray[np.int64] | None,
        reopen: tuple[Callable[..., Dataset], tuple[Any, ...]],
    ) -> None:
        self.url = url
        self.filters = filters
        self._reader: DatasetReader | None = reader
        self._manifest = reader.manifest
        self._selection = selection
        self._keys = Keys(reader.manifest, selection)
        self._row_groups = _row_groups(reader) if self.layout == "parquet" else None
        self._sizes: NDArray[np.int64] | None = None
        self._reopen = reopen

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Sample:
        """Object number `index`; negative ones count from the end.

        Raises:
            IndexError: out of range.
            SwingbyError: it cannot be read.
        """
        number = _checked(index, len(self))
        return self.batch([number]).sample(0)

    def __iter__(self) -> Iterator[Sample]:
        """All objects in key order, read ahead."""
        from swingby.data.loader import Loader

        for batch in Loader(self, batch_size=ITERATED_TOGETHER):
            yield from batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return self._reopen

    def __repr__(self) -> str:
        return f"<swingby.Dataset {shown_url(self.url)!r}: {len(self)} objects, manifest {self.manifest[:12]}>"

    @property
    def keys(self) -> Keys:
        """Keys relative to the URL, in byte order: a lazy sequence; `keys.index(key)` bisects."""
        return self._keys

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Sizes in bytes: int64[n], made at first use."""
        if self._sizes is None:
            sizes = self._manifest.sizes()
            self._sizes = sizes if self._selection is None else sizes[self._selection]
        return self._sizes

    @property
    def manifest(self) -> str:
        """The digest that names the snapshot; `swingby.open(url, manifest=…)` opens it again."""
        return self._manifest.digest

    @property
    def layout(self) -> str:
        """Of the containers whose samples these are; "objects" where there are none."""
        return self._manifest.root.layout

    @property
    def bad_containers(self) -> dict[str, str]:
        """Containers that are left out because they are damaged, with the reason; see `swingby.open(…, on_bad="skip")`."""
        contained = self._manifest.root.contained
        return {key_text(key): reason for key, reason in contained.bad} if contained else {}

    @property
    def client(self) -> KeeperClient:
        """The connection to the keeper, for those who register plans.

        Raises:
            ClosedError: after `close`.
        """
        return self._open_reader().client

    @property
    def digest(self) -> str:
        """What names the snapshot and its filters; orders are made from it."""
        return dataset_digest(self.manifest, self.filters.include, self.filters.exclude)

    def order(self, kind: str, seed: int, epoch: int) -> Order | None:
        """The order of an epoch; see `core/epoch.py`."""
        return make_order(kind, self._manifest, self._selection, Draw(seed, epoch, self.digest))

    @property
    def epoch_samples(self) -> int:
        """Samples of an epoch: all."""
        return len(self)

    @property
    def mean_bytes(self) -> float:
        """About how large its objects are: the mean of the snapshot, filters aside."""
        return self._manifest.data_bytes / max(1, len(self._manifest))

    def alike(self, index: int) -> range:
        """Indices of the samples that may stand for a bad one: all."""
        del index
        return range(len(self))

    def ahead(self) -> EpochsAhead:
        """Read-ahead for one loader; see `data/ahead.py`."""
        return EpochsAhead(Job(lambda: self.client), (self.manifest, self.filters), self._open_reader())

    def following(self, ahead_bytes_max: int) -> Following:
        """Read-ahead of indices that somebody else orders; see `data/ahead.py`."""
        return Following(Job(lambda: self.client), Follow(self.manifest, ahead_bytes_max), self._numbers)

    def batch(self, indices: ArrayLike) -> Batch:
        """Several objects at once: the way to read fast.

        Args:
            indices: integers, in any order, also repeated.

        Raises:
            IndexError: one is out of range.
            ClosedError: after `close`.
            SwingbyError: the first that cannot be read.
        """
        reader = self._open_reader()
        wanted = np.asarray(indices, np.int64)
        make = self._row_group if self._row_groups else Sample
        return Batch(wanted, reader.find(self._numbers(wanted)), self._keys, make)

    def table(self, index: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Row group number `index` of a dataset of layout "parquet" as a table; only what the columns need is read. Needs pyarrow.

        Raises:
            IndexError: out of range.
            FormatError: the dataset is of another layout.
            ConfigError: pyarrow is not installed.
            SwingbyError: it cannot be read.
        """
        self._open_reader()
        if self._row_groups is None:
            raise FormatError("tables are of layout 'parquet'", remedy="Open the dataset with layout='parquet'")
        return self._row_groups.table(self._keys[_checked(index, len(self))], columns, None)

    def _row_group(self, key: str, data: memoryview) -> RowGroup:
        assert self._row_groups is not None  # of such a dataset only
        found = RowGroup(key, data)
        found.row_groups = self._row_groups
        return found

    def _numbers(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Indices of the manifest."""
        return indices if self._selection is None else self._selection[indices]

    def _open_reader(self) -> DatasetReader:
        if self._reader is None:
            raise ClosedError(f"the dataset {shown_url(self.url)!r} is closed")
        return self._reader

    def close(self) -> None:
        """Let go of maps. Views that were given out stay valid."""
        reader, self._reader = self._reader, None
        if reader:
            reader.close()


def _row_groups(reader: DatasetReader) -> RowGroups:
    from swingby.data.row_groups import RowGroups

    return RowGroups(reader)


def _checked(index: int, count: int) -> int:
    if not -count <= index < count:
        raise IndexError(f"index {index} is out of range for {count} objects")
    return index % count if count else 0
