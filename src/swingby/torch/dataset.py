"""The map-style dataset: samples by index, a whole batch by one read.

Processes: it may be used in DataLoader's workers, however they are started; they map the same memory.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.utils.data

import swingby
from swingby.data.work import Work
from swingby.torch.reports import READS
from swingby.torch.samples import Samples, rows

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from swingby.core.epoch import Draw


class Step(list[int]):
    """The indices of a batch on their way to whoever reads it.

    Attributes:
        draw: what stands for bad samples is drawn from it; None: they raise.
    """

    def __init__(self, indices: Sequence[int], draw: Draw | None) -> None:
        super().__init__(indices)
        self.draw = draw


class Dataset(torch.utils.data.Dataset[Any]):
    """A snapshot of everything under a URL, as a map-style dataset.

    Without `transform` a sample is the object's bytes: a writable tensor uint8[n] of its own. A batch of objects of one size then
    is uint8[k, n]; `collate_fn=list` takes objects of any size.

    Args:
        source: a URL, opened by `swingby.open`, or what that returned; or a `swingby.Mixture`.
        transform: called with each `swingby.Sample`: its key, and its bytes as a read-only memoryview of shared memory, without a
            copy. What it returns is the sample; it must not be a view of that memory unless nobody writes into it.
        open_arguments: of `swingby.open`.

    Attributes:
        source: the `swingby.Dataset` or `Mixture`.
        transform: as given.

    Raises:
        SwingbyError: as `swingby.open`.
        TypeError: arguments for an open dataset.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | swingby.Dataset | swingby.Mixture,
        transform: Callable[[swingby.Sample], Any] | None = None,
        **open_arguments: Any,
    ) -> None:
        self.source = opened(source, open_arguments)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> Samples:
        """The samples of a batch, by one read. PyTorch calls it.

        Raises:
            IndexError: one is out of range.
            SwingbyError: the first that cannot be read.
        """
        draw = indices.draw if isinstance(indices, Step) else None
        work = Work(self.source, self.transform, draw)
        batch, bad, span = work.read_timed(numbers_of(indices, len(self)))
        if self.transform is None:
            samples = rows(batch)
            span = span._replace(ended=time.perf_counter())  # copying is reading
        elif draw is None:
            samples = Samples(map(self._transformed, batch))
        else:
            samples = Samples()
            for number, sample in zip(batch.indices.tolist(), batch, strict=True):
                value, more = work.decode(number, sample)
                samples.append(value)
                bad += more
        samples.bad = bad
        READS.spans.append(span)
        return samples

    def _transformed(self, sample: swingby.Sample) -> Any:
        assert self.transform is not None  # asked only where there is one
        try:
            return self.transform(sample)
        except Exception as error:
            error.add_note(f"while {sample.key} was transformed")
            raise


def opened(
    source: str | os.PathLike[str] | swingby.Dataset | swingby.Mixture, arguments: dict[str, Any]
) -> swingby.Dataset | swingby.Mixture:
    """What is to be read, open.

    Raises:
        TypeError: arguments for an open dataset.
    """
    if not isinstance(source, swingby.Dataset | swingby.Mixture):
        return swingby.open(source, **arguments)
    if arguments:
        raise TypeError(f"{', '.join(arguments)}: for a URL; this dataset is open already")
    return source


def numbers_of(indices: Sequence[int] | NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Indices as int64; negative ones count from the end.

    Raises:
        IndexError: one is out of range.
    """
    numbers = np.asarray(indices, np.int64)
    if not len(numbers):
        return numbers
    least = int(numbers.min())
    if least < -count or int(numbers.max()) >= count:
        raise IndexError(f"an index is out of range for {count} objects")
    return numbers if least >= 0 else np.where(numbers < 0, numbers + count, numbers)
