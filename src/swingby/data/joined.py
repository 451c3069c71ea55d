"""Several datasets as one: their keys, and what was read from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from swingby.path.found import packed_records

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from swingby.data.dataset import Batch
    from swingby.data.mixture import Mixture

_NOTHING = memoryview(b"")


class MixtureKeys(Sequence[str]):
    """The keys of a mixture, `name/key`, looked up when asked for.

    Args:
        mixture: whose they are.
    """

    def __init__(self, mixture: Mixture) -> None:
        self._mixture = mixture

    def __len__(self) -> int:
        return len(self._mixture)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        mixture = self._mixture
        number = range(len(self))[index]
        source = int(mixture.source_of(number))
        return f"{mixture.names[source]}/{mixture.datasets[source].keys[number - mixture.first_of(source)]}"

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._find(key) is not None

    def index(self, value: str, start: int = 0, stop: int | None = None) -> int:
        """The index of a key, by bisection.

        Raises:
            ValueError: no such key.
        """
        found = self._find(value)
        if found is None or not start <= found < (len(self) if stop is None else stop):
            raise ValueError(f"no key {value!r} in the mixture")
        return found

    def _find(self, key: str) -> int | None:
        name, _, rest = key.partition("/")
        mixture = self._mixture
        if name not in mixture.names:
            return None
        source = mixture.names.index(name)
        keys = mixture.datasets[source].keys
        return mixture.first_of(source) + keys.index(rest) if rest in keys else None


class Joined:
    """Samples read from several datasets, in the order they were asked for. See `Found`.

    Args:
        parts: places in the whole, and what stands there.
        count: of samples.
    """

    def __init__(self, parts: list[tuple[NDArray[np.int64], Batch]], count: int) -> None:
        self._parts = parts
        self.sizes: NDArray[np.integer[Any]] = np.zeros(count, np.int64)
        for places, batch in parts:
            self.sizes[places] = batch.sizes

    def views(self) -> list[memoryview]:
        """See `Found`."""
        if len(self._parts) == 1:
            return self._parts[0][1].views
        found = [_NOTHING] * len(self.sizes)
        for places, batch in self._parts:
            for place, view in zip(places.tolist(), batch.views, strict=True):
                found[place] = view
        return found

    def packed(self, out: NDArray[np.uint8] | None) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """See `Found`."""
        return packed_records(self, out)

    def records(self) -> NDArray[np.int64] | None:
        """See `Found`."""
        if not len(self.sizes) or (self.sizes != self.sizes[0]).any():
            return None
        found = np.empty(len(self.sizes), np.int64)
        for places, batch in self._parts:
            records = batch.found.records()
            if records is None:
                return None
            found[places] = records
        return found
