"""Reads a container from front to back through a window that fits its members: wide where they are small, narrow where they are
large and only their headers are wanted.

Threads: one. Bounds: `AHEAD_BYTES_MAX`, or one header where that is longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from swingby.errors import BadContainerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

AHEAD_BYTES_MIN = 4 << 10
AHEAD_BYTES_MAX = 8 << 20


class Costs(NamedTuple):
    """What reading is like.

    Attributes:
        hop_bytes: reading so many bytes takes as long as one more request: nearer headers are read in one go.
        ahead_bytes_max: the widest window.
    """

    hop_bytes: int
    ahead_bytes_max: int


LOCAL = Costs(32 << 10, 1 << 20)  # a request costs some 10 µs, and the kernel reads ahead by itself
REMOTE = Costs(1 << 20, AHEAD_BYTES_MAX)  # one costs 10 ms or more at about 100 MB/s a stream
IN_MEMORY = Costs(0, 0)


class Window:
    """See the module's text.

    Args:
        read: the bytes [start, start + size) of the container; all of them, or it raises.
        size: of the container.
        name: of the container, for messages.
        costs: of reading.
    """

    def __init__(self, read: Callable[[int, int], Buffer], size: int, name: str, costs: Costs) -> None:
        self.size = size
        self.name = name
        self._read = read
        self._costs = costs
        self._ahead = AHEAD_BYTES_MIN
        self._start = self._stop = 0
        self._data = memoryview(b"")

    def at(self, start: int, count: int) -> memoryview:
        """The bytes [start, start + count), valid until they are let go.

        Raises:
            BadContainerError: the container ends before.
        """
        stop = start + count
        if stop > self.size:
            raise self.bad(start, "it is cut short")
        if start < self._start or stop > self._stop:
            self._load(start, count)
        at = start - self._start
        return self._data[at : at + count]

    def bad(self, offset: int, what: str) -> BadContainerError:
        """The error for what is wrong at an offset."""
        return BadContainerError(
            f"{self.name}, byte {offset}: {what}",
            key=self.name,
            remedy="Mend or remove it, or leave it out: on_bad='skip', or --skip-bad",
        )

    def _load(self, start: int, count: int) -> None:
        is_near = 0 <= start - self._stop <= self._costs.hop_bytes
        self._ahead = min(self._costs.ahead_bytes_max, 2 * self._ahead) if is_near else AHEAD_BYTES_MIN
        size = min(max(count, self._ahead), self.size - start)
        self._data = memoryview(self._read(start, size)).cast("B")
        self._start, self._stop = start, start + size


def in_memory(data: memoryview, name: str) -> Window:
    """A window that is as wide as what it shows."""
    window = Window(lambda start, size: data[start : start + size], len(data), name, IN_MEMORY)
    if len(data):
        window.at(0, len(data))
    return window
