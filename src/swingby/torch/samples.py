"""The samples of a batch, their bytes as tensors, and how they become one.

Objects of one size that are all mapped are copied by one call of PyTorch's, outside the interpreter's lock and by as many threads
as PyTorch uses for one operation.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.utils.data

from swingby.path.deliver import JOIN_BYTES_MAX, touched
from swingby.path.found import even_size, memory_records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    import swingby
    from swingby.data.work import BadSample

WORD_BYTES = 16  # copied as one element
SPLIT_ELEMENTS = (
    1 << 15
)  # from here on PyTorch uses several threads, which wait for each other: 16 GB/s or, on a busy machine, 1


class Samples(list[Any]):
    """The samples of a batch.

    Attributes:
        together: uint8[k, n] that they are the rows of; None where they are not of one size, or transformed.
        bad: those that were replaced.
    """

    together: torch.Tensor | None = None
    bad: Sequence[BadSample] = ()


def rows(batch: swingby.Batch, *, is_pinned: bool = False) -> Samples:
    """The objects of a batch as tensors over one piece of memory that nobody else has."""
    size = even_size(batch.sizes)
    if not size:
        memory = _joined(batch, is_pinned=is_pinned)
        return Samples(torch.split_with_sizes(memory, batch.sizes.tolist()))
    samples = Samples()
    samples.together = _copied(batch, size, is_pinned=is_pinned)
    samples += samples.together.unbind()
    return samples


def together(batch: swingby.Batch, *, is_pinned: bool) -> Samples:
    """The objects of a batch as the rows of one tensor, and no others.

    Args:
        batch: that was read.
        is_pinned: whether the tensor is page-locked, for copies to a GPU.

    Raises:
        ValueError: they are of different sizes.
    """
    size = even_size(batch.sizes)
    if not size:
        raise _uneven(batch.sizes.tolist())
    samples = Samples()
    samples.together = _copied(batch, size, is_pinned=is_pinned)
    return samples


def stacked(samples: Sequence[Any]) -> Any:
    """What PyTorch's `default_collate` makes of samples; of bytes without another copy.

    Raises:
        ValueError: bytes of different sizes.
    """
    whole = getattr(samples, "together", None)
    if whole is not None:
        return whole
    if all(isinstance(one, torch.Tensor) and one.dtype == torch.uint8 and one.ndim == 1 for one in samples):
        sizes = [len(one) for one in samples]
        if len(set(sizes)) > 1:
            raise _uneven(sizes)
    return torch.utils.data.default_collate(list(samples))


def _joined(batch: swingby.Batch, *, is_pinned: bool) -> torch.Tensor:
    """The bytes of all objects one after another: uint8[n]. The interpreter's lock is held meanwhile."""
    total = int(batch.sizes.sum())
    if 0 < total <= JOIN_BYTES_MAX and not is_pinned:
        return torch.frombuffer(bytearray().join(batch.views), dtype=torch.uint8)
    memory = _memory(total, is_pinned=is_pinned)
    batch.packed(out=memory.numpy())
    return memory


def _copied(batch: swingby.Batch, size: int, *, is_pinned: bool) -> torch.Tensor:
    """The bytes of objects of one size: uint8[k, size]. Those that are mapped are copied outside the interpreter's lock."""
    memory = _memory(len(batch) * size, is_pinned=is_pinned)
    records = batch.found.records()
    if records is None or not _copy_records(size, records, memory):
        batch.packed(out=memory.numpy())
    return memory.view(len(batch), size)


def _memory(size: int, *, is_pinned: bool) -> torch.Tensor:
    if is_pinned or size <= JOIN_BYTES_MAX:
        return torch.empty(size, dtype=torch.uint8, pin_memory=is_pinned)
    return torch.from_numpy(touched(size))  # it is touched already, and is used again once the tensor is gone


def _copy_records(size: int, records: NDArray[np.int64], memory: torch.Tensor) -> bool:
    """Copy records of one size, outside the interpreter's lock; False where PyTorch would split the copy of a single one."""
    everywhere = _everywhere(size)
    if everywhere.shape[1] >= SPLIT_ELEMENTS:
        return False
    target, wanted = memory.view(len(records), size).view(everywhere.dtype), torch.from_numpy(records)
    together = SPLIT_ELEMENTS // everywhere.shape[1]
    for start in range(0, len(records), together):
        part = slice(start, start + together)
        torch.index_select(everywhere, 0, wanted[part], out=target[part])
    return True


def _uneven(sizes: list[int]) -> ValueError:
    return ValueError(
        f"objects of {min(sizes)} to {max(sizes)} bytes make no tensor: decode them by Dataset(…, transform=…), "
        "or take them as a list by DataLoader(…, collate_fn=list)"
    )


@functools.lru_cache(64)
def _everywhere(size: int) -> torch.Tensor:
    """`found.everywhere` as a tensor; of 16-byte elements where the size allows it."""
    word = np.dtype(np.complex128 if size % WORD_BYTES == 0 else np.uint8)
    return torch.from_numpy(np.asarray(memory_records((size // word.itemsize,), word)))
