"""How long this thread has waited for bases, for those who account for it: `WAITED.base_seconds` only grows.

Threads: each sees its own.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Waited(threading.local):
    """See the module's text.

    Attributes:
        base_seconds: in which a read could not go on because a base had not answered.
        base_bytes: read from a base in that time.
    """

    def __init__(self) -> None:
        self.base_seconds = 0.0
        self.base_bytes = 0

    def add(self, seconds: float, size: int) -> None:
        """A read has waited."""
        self.base_seconds += seconds
        self.base_bytes += size

    @contextlib.contextmanager
    def reading(self, size: int) -> Iterator[None]:
        """A base is read here; what is added meanwhile is not added twice."""
        began, before = time.perf_counter(), self.base_seconds
        try:
            yield
        finally:
            self.base_seconds = before
            self.add(time.perf_counter() - began, size)

    @contextlib.contextmanager
    def told_elsewhere(self) -> Iterator[None]:
        """What is waited for here is told by spans; it does not count twice."""
        before = self.base_seconds, self.base_bytes
        try:
            yield
        finally:
            self.base_seconds, self.base_bytes = before


WAITED = Waited()
