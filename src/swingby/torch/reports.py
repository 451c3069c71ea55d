"""What those who make a batch tell with it, and how the waiting for it goes to the account of the epoch.

A worker's spans travel with its batch. Batches are waited for in the order in which a worker made them, so a wait needs no other
spans than those of the batch it ends with.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from swingby.data.account import Account, Span
    from swingby.data.work import BadSample

SPANS_MAX = 4096  # noted and not reported, as in PyTorch's own DataLoader, where nobody asks for them


class Reads(threading.local):
    """Reads of this thread that were not reported yet.

    Attributes:
        spans: theirs.
    """

    def __init__(self) -> None:
        self.spans: deque[Span] = deque(maxlen=SPANS_MAX)

    def taken(self) -> list[Span]:
        """They are reported now."""
        spans = list(self.spans)
        self.spans.clear()
        return spans


READS = Reads()


class Handed(NamedTuple):
    """A batch on its way to the loader, and what is told with it.

    Attributes:
        batch: as the caller gets it.
        samples: in it.
        bad: those that were replaced.
        spans: of the reads for it.
        pinned: of them, the copying into page-locked memory.
    """

    batch: Any
    samples: int
    bad: Sequence[BadSample]
    spans: list[Span]
    pinned: Span | None = None


class Reporting:
    """Collates, and tells what was replaced and read.

    Args:
        collate: what makes a batch of samples.
        is_single: whether it gets one sample, in a DataLoader that makes no batches.
    """

    def __init__(self, collate: Callable[[Any], Any], *, is_single: bool) -> None:
        self._collate = collate
        self._is_single = is_single

    def __call__(self, samples: Any) -> Handed:
        """A batch."""
        count = 1 if self._is_single else len(samples)
        bad = list(getattr(samples, "bad", ()))
        return Handed(self._collate(samples), count, bad, READS.taken())


class Awaited:
    """Batches as they are waited for, every wait accounted.

    Args:
        batches: where they come from.
        account: of the epoch.
        is_here: whether the consumer's own thread makes them.
        is_plain: whether they are read and nothing else, so that nothing is decoded.
    """

    def __init__(self, batches: Iterator[Handed], account: Account, *, is_here: bool, is_plain: bool) -> None:
        self._batches = batches
        self._account = account
        self._is_here = is_here
        self._is_plain = is_plain

    def __iter__(self) -> Iterator[Handed]:
        while True:
            began = time.perf_counter()
            handed = next(self._batches, None)
            ended = time.perf_counter()
            if handed is None:
                if not self._is_plain:
                    self._account.decoded(began, ended)  # those who decode were ended
                return
            self._waited(handed, began, ended)
            yield handed

    def _waited(self, handed: Handed, began: float, ended: float) -> None:
        account = self._account
        # what was read for something else, by the caller between two batches or for a batch that failed, does not count
        since = began if self._is_here else account.began
        spans = [span for span in handed.spans if span.began >= since]
        if handed.pinned:
            account.transferred(handed.pinned.overlap(began, ended))
        if self._is_here:  # what is waited for a base is seen in this thread
            if not self._is_plain:
                account.decoded_here(ended - began, spans)
            account.read_elsewhere([span._replace(base_bytes=0) for span in spans])
            return
        (account.gathered if self._is_plain else account.decoded)(began, ended, spans)
        account.read_elsewhere(spans)
