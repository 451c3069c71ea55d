"""What a DataLoader hands to its workers: batches of indices, of Swingby's order or of a sampler that is looked into ahead."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np

import swingby
from swingby.torch.dataset import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sized

    from numpy.typing import NDArray

    from swingby.core.epoch import Draw
    from swingby.data.epoch import Epoch
    from swingby.data.loader import Loader
    from swingby.torch.iterable import IterableDataset

LOOKED_AHEAD_MAX = 1 << 16  # samples


class Indices(Protocol):
    """Where batches of indices come from. PyTorch's iterators iterate it, lazily and more than once at the start."""

    @property
    def epoch(self) -> int:
        """Number of the latest iteration."""
        ...

    def __len__(self) -> int:
        """Batches of the next iteration."""
        ...

    def __iter__(self) -> Iterator[Any]: ...

    def begun(self) -> contextlib.AbstractContextManager[Callable[[int], None]]:
        """An iteration: what it reads is announced to the keeper, and the callable is told the number of each batch given out."""
        ...


class OwnOrder:
    """Batches of Swingby's order.

    Args:
        course: the loader whose epochs and position these are.
        is_single: indices one by one, for a DataLoader that makes no batches.
        replaces: whether bad samples are replaced.
    """

    def __init__(self, course: Loader, *, is_single: bool, replaces: bool) -> None:
        self._course = course
        self._is_single = is_single
        self._replaces = replaces
        self._epoch: Epoch | None = None

    @property
    def epoch(self) -> int:
        """See `Indices`."""
        return self._epoch.number if self._epoch else 0

    def __len__(self) -> int:
        return len(self._course)

    def __iter__(self) -> Iterator[Any]:
        assert self._epoch is not None  # the loader begins before PyTorch iterates
        return self._batches(self._epoch)

    def _batches(self, epoch: Epoch) -> Iterator[Any]:
        for number in epoch.steps:
            indices = epoch.indices(number).tolist() or [epoch.stand_in(number)]
            yield indices[0] if self._is_single else Step(indices, epoch.draw if self._replaces else None)

    @contextlib.contextmanager
    def begun(self) -> Iterator[Callable[[int], None]]:
        """See `Indices`."""
        with self._course.begin() as self._epoch:
            yield self._epoch.gave


class Looked(NamedTuple):
    """A batch of a sampler that is announced and not given out yet."""

    samples: int
    size_bytes: int


class Foreign:
    """Batches of a sampler of somebody else's, which is looked into ahead so that the keeper can fetch.

    Args:
        sampler: of batches, or of indices for a DataLoader that makes none.
        dataset: that is read.
        where: turns the sampler's indices into the dataset's.
        draw: what stands for bad samples is drawn from it; None: they raise.
        ahead_bytes_max: how far to look, also at most 65,536 samples; 0: not at all, and not into a mixture.

    Attributes:
        epoch: number of the latest iteration.
    """

    def __init__(
        self,
        sampler: Iterable[Any],
        dataset: swingby.Dataset | swingby.Mixture,
        where: Callable[[NDArray[np.int64]], NDArray[np.int64]],
        draw: Draw | None,
        ahead_bytes_max: int,
    ) -> None:
        self._sampler = sampler
        self._dataset = dataset
        self._where = where
        self._draw = draw
        self._ahead_bytes_max = ahead_bytes_max
        self.epoch = 0
        self._epoch_next = 0
        self._following: Any = None
        self._looked: deque[Looked] = deque()
        self._looked_bytes = self._looked_samples = self._given = 0

    def set_epoch(self, epoch: int) -> None:
        """Count iterations from this one on."""
        self._epoch_next = epoch

    def __len__(self) -> int:
        return len(cast("Sized", self._sampler))  # as PyTorch: TypeError where it has no length

    def __iter__(self) -> Iterator[Any]:
        waiting: deque[Any] = deque()
        for indices in self._sampler:
            self._look(indices)
            waiting.append(indices)
            while waiting and not self._has_room:
                yield self._step(waiting.popleft())
        yield from map(self._step, waiting)

    @contextlib.contextmanager
    def begun(self) -> Iterator[Callable[[int], None]]:
        """See `Indices`."""
        self.epoch, self._epoch_next = self._epoch_next, self._epoch_next + 1
        self._looked.clear()
        self._looked_bytes = self._looked_samples = self._given = 0
        if not self._ahead_bytes_max or isinstance(self._dataset, swingby.Mixture):
            yield _ignore
            return
        self._following = self._dataset.following(self._ahead_bytes_max)
        try:
            yield self._gave
        finally:
            self._following.close()
            self._following = None

    @property
    def _has_room(self) -> bool:
        return (
            self._following is not None
            and self._looked_bytes < self._ahead_bytes_max
            and self._looked_samples < LOOKED_AHEAD_MAX
        )

    def _look(self, indices: Any) -> None:
        """Announce a batch."""
        if self._following is None:
            return
        numbers = self._where(np.asarray(indices, np.int64).reshape(-1)) % len(self._dataset)  # -1 is the last
        self._following.upcoming(numbers)
        looked = Looked(len(numbers), int(self._dataset.sizes[numbers].sum()))
        self._looked.append(looked)
        self._looked_bytes += looked.size_bytes
        self._looked_samples += looked.samples

    def _gave(self, _: int) -> None:
        """A batch is given out."""
        if self._looked and self._following is not None:
            looked = self._looked.popleft()
            self._looked_bytes -= looked.size_bytes
            self._looked_samples -= looked.samples
            self._given += looked.samples
            self._following.consumed(self._given)

    def _step(self, indices: Any) -> Any:
        return Step(indices, self._draw) if self._draw else indices


class Streamed:
    """Of an iterable dataset, which reads its own order: no more than how many samples make a batch.

    Args:
        sampler: PyTorch's.
        dataset: that is read.
    """

    def __init__(self, sampler: Iterable[Any], dataset: IterableDataset) -> None:
        self._sampler = sampler
        self._dataset = dataset

    @property
    def epoch(self) -> int:
        """See `Indices`."""
        return self._dataset.epoch

    def __len__(self) -> int:
        return len(cast("Sized", self._sampler))  # as PyTorch: TypeError where it has no length

    def __iter__(self) -> Iterator[Any]:
        return iter(self._sampler)

    @contextlib.contextmanager
    def begun(self) -> Iterator[Callable[[int], None]]:
        """See `Indices`."""
        yield _ignore


def _ignore(_: int) -> None:
    """Nothing is announced."""
