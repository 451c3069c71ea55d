"""The map-style dataset: samples by index, a whole batch by one read.

Processes: it may be used in DataLoader's workers, however they are started; they map the same memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch.utils.data

import swingby
from swingby.data.work import Work
from swingby.path.deliver import JOIN_BYTES_MAX

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from swingby.core.epoch import Draw
    from swingby.data.work import BadSample


class Step(list[int]):
    """The indices of a batch on their way to whoever reads it.

    Attributes:
        draw: what stands for bad samples is drawn from it; None: they raise.
    """

    def __init__(self, indices: Sequence[int], draw: Draw | None) -> None:
        super().__init__(indices)
        self.draw = draw


class Samples(list[Any]):
    """The samples of a batch.

    Attributes:
        together: uint8[k, n] that they are the rows of; None where they are not of one size, or transformed.
        bad: those that were replaced.
    """

    together: torch.Tensor | None = None
    bad: Sequence[BadSample] = ()


class Dataset(torch.utils.data.Dataset[Any]):
    """A snapshot of everything under a URL, as a map-style dataset.

    Without `transform` a sample is the object's bytes: a writable tensor uint8[n] of its own. A batch of objects of one size then
    is uint8[k, n]; `collate_fn=list` takes objects of any size.

    Args:
        source: a URL, opened by `swingby.open`, or what that returned.
        transform: called with each `swingby.Sample`: its key, and its bytes as a read-only memoryview of shared memory, without a
            copy. What it returns is the sample; it must not be a view of that memory unless nobody writes into it.
        open_arguments: of `swingby.open`.

    Attributes:
        source: the `swingby.Dataset`.
        transform: as given.

    Raises:
        SwingbyError: as `swingby.open`.
        TypeError: arguments for an open dataset.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | swingby.Dataset,
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
        return self.samples(indices, is_pinned=False)

    def samples(self, indices: Sequence[int], *, is_pinned: bool) -> Samples:
        """The samples of a batch; bytes in page-locked memory, if asked. See `__getitems__`."""
        draw = indices.draw if isinstance(indices, Step) else None
        work = Work(self.source, self.transform, draw)
        batch, bad = work.read(_numbers(indices, len(self)))
        if self.transform is None:
            samples = rows(batch, is_pinned=is_pinned)
        elif draw is None:
            samples = Samples(map(self._transformed, batch))
        else:
            samples = Samples()
            for number, sample in zip(batch.indices.tolist(), batch, strict=True):
                value, more = work.decode(number, sample)
                samples.append(value)
                bad += more
        samples.bad = bad
        return samples

    def _transformed(self, sample: swingby.Sample) -> Any:
        assert self.transform is not None  # asked only where there is one
        try:
            return self.transform(sample)
        except Exception as error:
            error.add_note(f"while {sample.key} was transformed")
            raise


def opened(source: str | os.PathLike[str] | swingby.Dataset, arguments: dict[str, Any]) -> swingby.Dataset:
    """What is to be read, open.

    Raises:
        TypeError: arguments for an open dataset.
    """
    if not isinstance(source, swingby.Dataset):
        return swingby.open(source, **arguments)
    if arguments:
        raise TypeError(f"{', '.join(arguments)}: for a URL; this dataset is open already")
    return source


def rows(batch: swingby.Batch, *, is_pinned: bool) -> Samples:
    """The objects of a batch as tensors over one piece of memory that nobody else has.

    Args:
        batch: that was read.
        is_pinned: whether that memory is page-locked, for copies to a GPU.
    """
    sizes = batch.sizes
    total = int(sizes.sum())
    if is_pinned or total <= JOIN_BYTES_MAX:
        memory = torch.empty(total, dtype=torch.uint8, pin_memory=is_pinned)
        batch.packed(out=memory.numpy())
    else:  # memory of ours is touched already, and is used again once the tensor is gone
        memory = torch.from_numpy(batch.packed()[0])
    if len(sizes) and (sizes == sizes[0]).all():
        together = memory.view(len(sizes), int(sizes[0]))
        samples = Samples(together.unbind())
        samples.together = together
        return samples
    return Samples(memory.split(sizes.tolist()))


def stacked(samples: Sequence[Any]) -> Any:
    """What PyTorch's `default_collate` makes of samples; of bytes without another copy.

    Raises:
        ValueError: bytes of different sizes.
    """
    together = getattr(samples, "together", None)
    if together is not None:
        return together
    if all(isinstance(one, torch.Tensor) and one.dtype == torch.uint8 and one.ndim == 1 for one in samples):
        sizes = {len(one) for one in samples}
        if len(sizes) > 1:
            raise ValueError(
                f"objects of {min(sizes)} to {max(sizes)} bytes make no tensor: decode them by Dataset(…, transform=…), "
                "or take them as a list by DataLoader(…, collate_fn=list)"
            )
    return torch.utils.data.default_collate(list(samples))


def _numbers(indices: Sequence[int], count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Indices as int64; negative ones count from the end."""
    numbers = np.asarray(indices, np.int64)
    if len(numbers) and not (-count <= numbers.min() and numbers.max() < count):
        raise IndexError(f"an index is out of range for {count} objects")
    return np.where(numbers < 0, numbers + count, numbers)
