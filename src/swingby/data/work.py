"""What is done to a batch: it is read, what is bad in it is replaced, and it is decoded."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from swingby.core.order import Permutation
from swingby.data.account import Span
from swingby.errors import (
    AccessDeniedError,
    AuthenticationError,
    BadSampleError,
    BaseNotFoundError,
    CorruptDataError,
    ObjectChangedError,
    ObjectNotFoundError,
    TruncatedReadError,
)
from swingby.path.waits import WAITED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from swingby.core.epoch import Draw
    from swingby.data.dataset import Batch, Sample
    from swingby.data.loadable import Loadable

SUBSTITUTES_MAX = 16  # tried one after another for one bad sample
BAD_OBJECT = (ObjectNotFoundError, ObjectChangedError, CorruptDataError, TruncatedReadError, AccessDeniedError)
BAD_BASE = (BaseNotFoundError, AuthenticationError)  # nothing of it can be read: no sample can stand for another


class BadSample(NamedTuple):
    """A sample that another one stands for.

    Attributes:
        key: of the bad one.
        reason: why it is bad.
        substitute: key of the one in its place.
    """

    key: str
    reason: str
    substitute: str


class Work:
    """See the module's text. It can be pickled, for workers in other processes.

    Args:
        dataset: to read.
        decode: called with each sample.
        substitutes: what substitutes are drawn from, so that every rank and every resume takes the same; None: bad samples raise.
    """

    def __init__(self, dataset: Loadable, decode: Callable[[Sample], Any] | None, substitutes: Draw | None) -> None:
        self.dataset = dataset
        self._decode = decode
        self._draw = substitutes

    @property
    def replaces(self) -> bool:
        """Whether bad samples are replaced."""
        return self._draw is not None

    def read(self, indices: NDArray[np.int64]) -> tuple[Batch, list[BadSample]]:
        """A batch; objects that cannot be read are replaced.

        Raises:
            SwingbyError: the base fails as a whole; or an object, where none is replaced.
        """
        try:
            return self.dataset.batch(indices), []
        except BAD_OBJECT:
            if not self.replaces:
                raise
        chosen, bad = [], []
        for index in indices.tolist():
            found = index
            if reason := self._fault(index):
                found, why = self._stand_in(index, reason, lambda other: None if self._fault(other) else other)
                bad.append(why)
            chosen.append(found)
        return self.dataset.batch(chosen), bad

    def read_timed(self, indices: NDArray[np.int64]) -> tuple[Batch, list[BadSample], Span]:
        """As `read`, and when it was read."""
        began, waited, waited_bytes = time.perf_counter(), WAITED.base_seconds, WAITED.base_bytes
        batch, bad = self.read(indices)
        base = WAITED.base_seconds - waited
        span = Span(began, time.perf_counter(), base, int(batch.sizes.sum()), WAITED.base_bytes - waited_bytes)
        return batch, bad, span

    def decode(self, index: int, sample: Sample) -> tuple[Any, list[BadSample]]:
        """A decoded sample, or that of a substitute.

        Raises:
            BadSampleError: it cannot be decoded, and nothing can stand for it.
        """
        assert self._decode is not None  # whoever decodes was given how
        cause: Exception | None = None
        try:
            value, reason = self._decode(sample), "decode returned None"
        except Exception as error:
            value, reason, cause = None, f"decode raised {error!r}", error
        if value is not None:
            return value, []
        if not self.replaces:
            raise _bad(sample.key, reason) from cause
        return self.replace(index, reason)

    def replace(self, index: int, reason: str) -> tuple[Any, list[BadSample]]:
        """What is decoded in place of a sample that is bad for this reason.

        Raises:
            BadSampleError: nothing can stand for it.
        """
        value, why = self._stand_in(index, reason, self._decoded)
        return value, [why]

    def _decoded(self, index: int) -> Any:
        assert self._decode is not None  # see `decode`
        if self._fault(index):
            return None
        try:
            return self._decode(self.dataset[index])
        except Exception:  # bad as well: the next one is tried
            return None

    def _fault(self, index: int) -> str:
        """Why an object cannot be read; empty where it can."""
        try:
            self.dataset.batch([index])
        except BAD_BASE:
            raise
        except BAD_OBJECT as error:
            return str(error)
        return ""

    def _stand_in(self, index: int, reason: str, use: Callable[[int], Any]) -> tuple[Any, BadSample]:
        key = self.dataset.keys[index]
        for other in self._others(index):
            value = use(other)
            if value is not None:
                return value, BadSample(key, reason, self.dataset.keys[other])
        raise _bad(key, f"{reason}; so are {SUBSTITUTES_MAX} in its place")

    def _others(self, index: int) -> Iterator[int]:
        assert self._draw is not None  # asked only where bad samples are replaced
        seed, epoch, digest = self._draw
        alike = self.dataset.alike(index)
        count, place = len(alike), index - alike.start
        mixed = Permutation(count, seed, epoch, f"{digest}/substitute")
        for other in mixed.take((place + np.arange(min(count, SUBSTITUTES_MAX))) % count).tolist():
            if other != place:
                yield alike[other]


def _bad(key: str, reason: str) -> BadSampleError:
    return BadSampleError(
        f"{key}: {reason}", key=key, remedy="Mend or exclude it, or let on_bad='substitute' put another in its place"
    )
