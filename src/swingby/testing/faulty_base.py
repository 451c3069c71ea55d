"""A base that errs, truncates, stalls, changes objects and takes its time, by a seeded plan."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from swingby.core.object import ObjectInfo, Payload, key_text
from swingby.errors import BaseUnavailableError, ObjectChangedError, TruncatedReadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    from swingby.base.contract import Base
    from swingby.core.object import Page


class Faults(NamedTuple):
    """How likely each fault is, a call; from 0 to 1.

    Attributes:
        error: the base does not answer.
        truncate: the body ends early, and the base says so.
        shorten: the body ends early, and nobody says so.
        change: the base changed the object between listing and read.
        stall: the call takes `stall_seconds`.
        latency_seconds: of every call.
    """

    error: float = 0.0
    truncate: float = 0.0
    shorten: float = 0.0
    change: float = 0.0
    stall: float = 0.0
    stall_seconds: float = 1.0
    latency_seconds: float = 0.0


class FaultyBase:
    """The same contract, badly kept.

    Args:
        base: that works.
        faults: how it fails; may be replaced at any time.
        seed: of the plan.
        sleep: passed in for tests.
    """

    def __init__(self, base: Base, faults: Faults, seed: int = 0, sleep: Callable[[float], None] = time.sleep) -> None:
        self.id = base.id
        self.local = base.local
        self.faults = faults
        self.is_down = False
        self._base = base
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._sleep = sleep

    def list(self, prefix: bytes, after: bytes = b"") -> Iterator[Page]:
        """See `Base.list`."""
        for page in self._base.list(prefix, after):
            self._fault()
            yield page

    def stat(self, key: bytes) -> ObjectInfo:
        """See `Base.stat`."""
        self._fault()
        return self._base.stat(key)

    def read(self, key: bytes, start: int = 0, size: int | None = None, version: bytes | None = None) -> Payload:
        """See `Base.read`."""
        self._fault()
        payload = self._base.read(key, start, size, version)
        if self._draw(self.faults.change):
            raise ObjectChangedError(f"{key_text(key)} has changed", key=key_text(key))
        if self._draw(self.faults.truncate):
            raise TruncatedReadError(f"{key_text(key)} ended early", key=key_text(key))
        if self._draw(self.faults.shorten):
            return Payload(bytes(payload.data)[:-1], payload.info)
        return payload

    def write(self, key: bytes, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        """See `Base.write`."""
        self._fault()
        return self._base.write(key, data, if_absent=if_absent)

    def delete(self, key: bytes) -> None:
        """See `Base.delete`."""
        self._fault()
        self._base.delete(key)

    def close(self) -> None:
        """See `Base.close`."""
        self._base.close()

    def _fault(self) -> None:
        if self.faults.latency_seconds:
            self._sleep(self.faults.latency_seconds)
        if self._draw(self.faults.stall):
            self._sleep(self.faults.stall_seconds)
        if self.is_down or self._draw(self.faults.error):
            raise BaseUnavailableError("the base does not answer", base=self.id)

    def _draw(self, likelihood: float) -> bool:
        with self._lock:
            return self._random.random() < likelihood
