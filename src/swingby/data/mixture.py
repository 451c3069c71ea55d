"""A mixture: several datasets, of any bases, read as one in stated proportions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from swingby.core.checksum import name_digest
from swingby.core.epoch import Draw
from swingby.core.mixture import LongPasses, MixtureOrder, ShortPasses
from swingby.core.quotas import POSITIONS_MAX, Quotas, shares_of
from swingby.data.dataset import Batch, Dataset, Sample
from swingby.data.joined import Joined, MixtureKeys
from swingby.data.mixture_ahead import MixtureAhead
from swingby.errors import SwingbyError, from_facts

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from swingby.core.mixture import Passes

DATASETS_MAX = 1 << 16
SHORT_COUNT_MAX = 1024  # below it many passes are ordered at once
SAME_APART = 1 << 32  # passes between the orders of a dataset that is there twice


class Mixture:
    """Several datasets as one, for a `Loader`: each has its share of the samples, exactly and for ever.

    Shares are weights ** (1 / temperature) over their sum. After any 8,192 samples each dataset has given its share within two
    samples, whatever came before. A dataset gives all its samples before it repeats one, also from one epoch to the next, and is
    shuffled anew for each pass. Position and order are functions of seed and epoch: a resume costs nothing.

    Samples are numbered one dataset after another; keys are `name/key`.

    Args:
        datasets: by name, or a sequence, whose names are their numbers. The same one may be there twice.
        weights: by name, or in order: finite, not negative; 0 leaves a dataset out. None: its number of samples.
        temperature: above 0. 1: weights as they are; more evens them out (2: their square roots), `math.inf` makes them equal.
        samples: of an epoch: "all", until every dataset was given wholly at least once (with weights by size: each sample once);
            "first", until the first would be repeated; or how many. Both are counted from the beginning of epoch 0.

    Attributes:
        names: of the datasets.
        datasets: in the order of the names.
        shares: float64[d], the part of the samples that each gives.

    Raises:
        ValueError: no datasets, or weights, a temperature, names or samples that make no sense.
        TypeError: something else than a dataset.
    """

    def __init__(
        self,
        datasets: Mapping[str, Dataset] | Sequence[Dataset],
        *,
        weights: Mapping[str, float] | Sequence[float] | None = None,
        temperature: float = 1.0,
        samples: int | str = "all",
    ) -> None:
        named = datasets if isinstance(datasets, Mapping) else {str(number): one for number, one in enumerate(datasets)}
        self.names = tuple(named)
        self.datasets = tuple(named.values())
        self._arguments = (dict(named), weights, temperature, samples)
        _check(named)
        sizes = [len(one) for one in self.datasets]
        units = shares_of(sizes if weights is None else _in_order(self.names, weights), temperature)
        self.shares = np.array([unit / sum(units) for unit in units])
        self._firsts = np.cumsum([0, *sizes])
        self._quotas = Quotas(units)
        self.epoch_samples = _epoch_samples(samples, self._quotas, sizes)
        self._keys = MixtureKeys(self)
        self._digest = _digest(self, units)

    def __len__(self) -> int:
        """Samples of all datasets together; an epoch has `epoch_samples`."""
        return int(self._firsts[-1])

    def __getitem__(self, index: int) -> Sample:
        """Sample number `index`; negative ones count from the end.

        Raises:
            IndexError: out of range.
            SwingbyError: it cannot be read.
        """
        number = range(len(self))[index]
        return self.batch([number]).sample(0)

    def __iter__(self) -> Iterator[Sample]:
        """All samples, one dataset after another, read ahead. For a mixed epoch, iterate a `Loader`."""
        for name, dataset in zip(self.names, self.datasets, strict=True):
            for sample in dataset:
                yield Sample(f"{name}/{sample.key}", sample.data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_again, self._arguments

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {share:.3g}" for name, share in zip(self.names, self.shares.tolist(), strict=True))
        return f"<swingby.Mixture of {len(self.names)}: {self.epoch_samples} samples an epoch; {parts[:200]}>"

    @property
    def keys(self) -> MixtureKeys:
        """Keys of all samples, `name/key`: a lazy sequence; `keys.index(key)` bisects."""
        return self._keys

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Sizes in bytes: int64[n]."""
        return np.concatenate([one.sizes for one in self.datasets])

    @property
    def digest(self) -> str:
        """What names the datasets' snapshots, their names and shares, and the samples of an epoch."""
        return self._digest

    def source_of(self, indices: ArrayLike) -> NDArray[np.int64]:
        """Which dataset samples belong to, as a number in `names`: int64[k]."""
        return np.searchsorted(self._firsts, np.asarray(indices, np.int64), "right") - 1

    def first_of(self, source: int) -> int:
        """The index of a dataset's first sample."""
        return int(self._firsts[source])

    def alike(self, index: int) -> range:
        """Indices of the samples that may stand for a bad one: those of its dataset."""
        source = int(self.source_of(index))
        return range(int(self._firsts[source]), int(self._firsts[source + 1]))

    def order(self, kind: str, seed: int, epoch: int) -> MixtureOrder:
        """The order of an epoch; `kind` is that of each dataset's passes. See `core/mixture.py`."""
        passes = [self._passes(source, kind, seed) for source in range(len(self.datasets))]
        draw = Draw(seed, epoch, self._digest)
        return MixtureOrder(self._quotas, self.epoch_samples, draw, passes, self._firsts)

    def ahead(self) -> MixtureAhead:
        """Read-ahead for one loader."""
        return MixtureAhead(self)

    def batch(self, indices: ArrayLike) -> Batch:
        """Several samples at once, of any of the datasets; each dataset is read once.

        Args:
            indices: integers, in any order, also repeated.

        Raises:
            IndexError: one is out of range.
            ClosedError: after `close`.
            SwingbyError: the first that cannot be read; the message names its dataset.
        """
        wanted = np.asarray(indices, np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"an index is out of range for {len(self)} samples")
        sources = self.source_of(wanted)
        parts = []
        for source in np.unique(sources).tolist():
            places = np.flatnonzero(sources == source)
            parts.append((places, self._read(source, wanted[places] - self._firsts[source])))
        return Batch(wanted, Joined(parts, len(wanted)), self._keys)

    def close(self) -> None:
        """Close all datasets."""
        for one in self.datasets:
            one.close()

    def _read(self, source: int, indices: NDArray[np.int64]) -> Batch:
        try:
            return self.datasets[source].batch(indices)
        except SwingbyError as error:
            facts = error.facts() | {"message": f"dataset {self.names[source]!r}: {error.message}"}
            raise from_facts(type(error).__name__, facts) from error

    def _passes(self, source: int, kind: str, seed: int) -> Passes:
        dataset = self.datasets[source]
        count, digest = len(dataset), dataset.digest
        apart = SAME_APART * [one.digest for one in self.datasets[:source]].count(digest)
        if kind == "key":
            return ShortPasses(count, None)
        if kind == "global" and count <= SHORT_COUNT_MAX:
            return ShortPasses(count, Draw(seed, apart, digest))
        return LongPasses(count, lambda number: dataset.order(kind, seed, apart + number))


def _check(named: Mapping[str, Dataset]) -> None:
    if not 0 < len(named) <= DATASETS_MAX:
        raise ValueError(f"{len(named)} datasets: a mixture is made of at least one, and at most {DATASETS_MAX}")
    for name, dataset in named.items():
        if not isinstance(name, str) or not name or "/" in name:
            raise ValueError(f"name {name!r}: names are texts without a slash")
        if not isinstance(dataset, Dataset):
            raise TypeError(f"{name}: a mixture is made of what swingby.open returns, not of {type(dataset).__name__}")


def _in_order(names: Sequence[str], weights: Mapping[str, float] | Sequence[float]) -> list[float]:
    """The weights as a list, one a dataset."""
    if isinstance(weights, Mapping):
        if set(weights) != set(names):
            raise ValueError(f"weights of {sorted(weights)}, but datasets {sorted(names)}: give one for each")
        weights = [weights[name] for name in names]
    if len(weights) != len(names):
        raise ValueError(f"{len(weights)} weights for {len(names)} datasets: give one for each")
    return [float(weight) if not isinstance(weight, int) else weight for weight in weights]


def _epoch_samples(samples: int | str, quotas: Quotas, sizes: Sequence[int]) -> int:
    if samples == "all":
        return quotas.until_all(sizes)
    if samples == "first":
        return quotas.until_first(sizes)
    if isinstance(samples, bool | str) or not 0 < samples <= POSITIONS_MAX:
        raise ValueError(f"samples={samples!r}: it is 'all', 'first', or a number from 1 on")
    return int(samples)


def _digest(mixture: Mixture, units: Sequence[int]) -> str:
    parts = ["mixture.1", str(mixture.epoch_samples)]
    for name, dataset, unit in zip(mixture.names, mixture.datasets, units, strict=True):
        parts += [name, dataset.digest, str(unit)]
    return name_digest(*(part.encode("utf-8", "surrogateescape") for part in parts)).hex()


def _make_again(datasets: Mapping[str, Dataset], weights: Any, temperature: float, samples: int | str) -> Mixture:
    """What a pickled mixture becomes."""
    return Mixture(datasets, weights=weights, temperature=temperature, samples=samples)
