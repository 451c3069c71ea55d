"""Batches of bytes that nobody transforms: read, and copied into memory of their own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from swingby.data.account import Span
from swingby.data.work import Work
from swingby.torch.dataset import Step, numbers_of
from swingby.torch.reports import Handed
from swingby.torch.samples import rows, together

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from swingby.torch.dataset import Dataset


class Plain:
    """Makes a batch of a step. See `gather.Gather`.

    Args:
        dataset: to read.
        where: turns the sampler's indices into the dataset's.
        collate: what makes a batch of samples: `list`, or what stacks them.
        is_pinned: whether they are copied into page-locked memory.

    Attributes:
        locked_seconds: see `gather.Gather`.
    """

    def __init__(
        self,
        dataset: Dataset,
        where: Callable[[NDArray[np.int64]], NDArray[np.int64]],
        collate: Callable[[Any], Any],
        *,
        is_pinned: bool,
    ) -> None:
        self._dataset = dataset
        self._where = where
        self._collate = collate
        self._copy = rows if collate is list else together
        self._is_pinned = is_pinned
        self.locked_seconds = 0.0

    def __call__(self, step: Any) -> Handed:
        """The batch.

        Raises:
            SwingbyError: as `Work.read`.
        """
        work = Work(self._dataset.source, None, step.draw if isinstance(step, Step) else None)
        batch, bad, span = work.read_timed(numbers_of(self._where(np.asarray(step, np.int64)), len(self._dataset)))
        samples = self._copy(batch, is_pinned=self._is_pinned)
        copied = time.perf_counter()
        is_locked = samples.together is None and not span.base_seconds
        self.locked_seconds = copied - span.began if is_locked else 0.0
        pinned = Span(span.ended, copied, 0.0, 0, 0) if self._is_pinned else None
        if pinned is None:
            span = span._replace(ended=copied)
        return Handed(self._collate(samples), len(batch), bad, [span], pinned)
