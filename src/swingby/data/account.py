"""Accounts for the time of an epoch: what its consumer waited for, and what it computed.

What counts is the waiting of whoever takes the batches, not the work of helpers: the parts add up to the time of the epoch.
Threads: of the consumer; helpers hand in spans with what they made.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from swingby.path.waits import WAITED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

BATCHES_SUMMED = 64  # sizes of so many batches are added up at once

log = logging.getLogger("swingby")


class EpochStats(NamedTuple):
    """Where the time of an epoch went; docs/stats.md says what to do about it. Prints as one line.

    Attributes:
        epoch: its number.
        steps, samples: taken so far.
        bytes: of these samples, as they were read; base_bytes: of them, those that a base was waited for.
        seconds: since the epoch began, until it ended or its latest batch was given out. The sum of the rest:
        base_seconds: waiting for a base.
        level_seconds: copying, mapping and reading from the levels, and the keeper's answers about what was there.
        decode_seconds: waiting for decoding, though the bytes were there.
        transfer_seconds: waiting for a device; 0 where none is fed.
        compute_seconds: between a batch and the demand for the next: the caller's own.
    """

    epoch: int
    steps: int
    samples: int
    bytes: int
    base_bytes: int
    seconds: float
    base_seconds: float
    level_seconds: float
    decode_seconds: float
    transfer_seconds: float
    compute_seconds: float

    @property
    def wait_seconds(self) -> float:
        """In which the consumer waited for batches."""
        return self.seconds - self.compute_seconds

    @property
    def hit_ratio(self) -> float:
        """Of the bytes, those that were there when they were asked for, brought ahead or kept; 1.0 of nothing."""
        return max(0.0, 1.0 - self.base_bytes / self.bytes) if self.bytes else 1.0

    def __str__(self) -> str:
        parts = [
            f"{name} {_seconds(getattr(self, f'{name}_seconds'))}"
            for name in ("base", "level", "decode", "transfer")
            if name != "transfer" or self.transfer_seconds
        ]
        share = f" ({self.compute_seconds / self.seconds:.0%})".replace("%", " %") if self.seconds else ""
        there = f"{self.hit_ratio:.0%}".replace("%", " %")
        return (
            f"epoch {self.epoch}: {self.steps:,} steps in {_seconds(self.seconds)}: "
            f"compute {_seconds(self.compute_seconds)}{share}, {', '.join(parts)}; {_size(self.bytes)}, {there} from memory"
        )


class Span(NamedTuple):
    """A read by a helper, in a process's own `perf_counter`, which all processes of a machine share.

    Attributes:
        began, ended: when.
        base_seconds: of it, waiting for a base.
        bytes, base_bytes: read, and of them waited for.
    """

    began: float
    ended: float
    base_seconds: float
    bytes: int
    base_bytes: int

    def overlap(self, began: float, ended: float) -> float:
        """Seconds of it that lie in another span."""
        return max(0.0, min(ended, self.ended) - max(began, self.began))


class Account:
    """One epoch's. `begin`, then `gave` and `took` around every batch, then `end`.

    Args:
        epoch: its number.
        began: when, by `perf_counter`; None: now.

    Attributes:
        began: when.
    """

    def __init__(self, epoch: int, began: float | None = None) -> None:
        self._epoch = epoch
        self._steps = self._samples = self._bytes = self._base_bytes = 0
        self._waiting = self._base = self._decode = self._transfer = self._compute = 0.0
        self._sizes: list[NDArray[Any]] = []
        self._mark = self.began = time.perf_counter() if began is None else began
        self._waited = WAITED.base_seconds
        self._waited_bytes = WAITED.base_bytes

    def gave(self, samples: int, *, steps: int = 1) -> None:
        """A batch is given out, or with `steps=0` an iterator: the waiting ends."""
        now = time.perf_counter()
        self._waiting += now - self._mark
        self._mark = now
        base = WAITED.base_seconds
        if base != self._waited:
            self._base += base - self._waited
            self._base_bytes += WAITED.base_bytes - self._waited_bytes
        self._steps += steps
        self._samples += samples

    def took(self) -> None:
        """The next batch is asked for: the computing ends."""
        now = time.perf_counter()
        self._compute += now - self._mark
        self._mark = now
        base = WAITED.base_seconds
        if base != self._waited:
            self._waited, self._waited_bytes = base, WAITED.base_bytes

    def read(self, sizes: NDArray[Any]) -> None:
        """Samples of these sizes were read in the consumer's thread."""
        self._sizes.append(sizes)
        if len(self._sizes) >= BATCHES_SUMMED:
            self._add_up()

    def decoded(self, began: float, ended: float, spans: Iterable[Span] = ()) -> None:
        """The consumer waited for helpers: what they read meanwhile was waited for, the rest was decoding.

        Args:
            began, ended: of the waiting.
            spans: reads of the helper that was last, those that touch the waiting.
        """
        self._decode += max(0.0, ended - began - self.gathered(began, ended, spans))

    def gathered(self, began: float, ended: float, spans: Iterable[Span]) -> float:
        """The consumer waited for helpers that read and do no more; the seconds of it in which they did. As `decoded`."""
        reading = 0.0
        for span in spans:
            overlap = span.overlap(began, ended)
            if overlap:
                reading += overlap
                self._base += overlap * min(1.0, span.base_seconds / (span.ended - span.began))
        return reading

    def decoded_here(self, seconds: float, spans: Iterable[Span]) -> None:
        """The consumer read and decoded by itself for so long. What it waited for a base, also while it decoded, `gave` sees."""
        level = sum(span.ended - span.began - span.base_seconds for span in spans)
        self._decode += max(0.0, seconds - level - (WAITED.base_seconds - self._waited))

    @contextlib.contextmanager
    def decoding(self) -> Iterator[None]:
        """The consumer starts or ends helpers."""
        began = time.perf_counter()
        yield
        self.decoded(began, time.perf_counter())

    def read_elsewhere(self, spans: Iterable[Span]) -> None:
        """Helpers read this for a batch."""
        for span in spans:
            self._bytes += span.bytes
            self._base_bytes += span.base_bytes

    def transferred(self, seconds: float) -> None:
        """The consumer waited for a device."""
        self._transfer += seconds

    def end(self, *, is_whole: bool) -> None:
        """The iteration is over; a whole epoch goes to the log."""
        now = time.perf_counter()
        self._waiting += now - self._mark
        self._mark = now
        if is_whole:
            log.info("%s", self.stats())

    def stats(self) -> EpochStats:
        """As far as it has come."""
        self._add_up()
        level = max(0.0, self._waiting - self._base - self._decode - self._transfer)
        seconds = self._waiting + self._compute
        counts = (self._epoch, self._steps, self._samples, self._bytes, min(self._base_bytes, self._bytes))
        return EpochStats(*counts, seconds, self._base, level, self._decode, self._transfer, self._compute)

    def _add_up(self) -> None:
        sizes, self._sizes = self._sizes, []
        if sizes:
            self._bytes += int(np.concatenate(sizes).sum(dtype=np.int64))


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms" if seconds else "0 s"


def _size(count: int) -> str:
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} B"
