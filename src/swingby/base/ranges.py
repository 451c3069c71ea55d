"""Lists a flat, sorted key space in parallel, by dividing it where nobody has looked yet.

The base answers "the next 1,000 keys after x". One worker starts at the front; an idle one takes over some way ahead of another:
as many pages' width further on as a doubling stride says, or in the middle of what is left. Neither delimiters nor knowledge of
the keys are needed, and results come out in key order.

Threads: the iterator belongs to one; workers are its own and end with it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator

from swingby.core.object import Page

ENTRIES_AHEAD_MAX = 2_000_000  # listed but not yet taken, about 200 bytes each

STRIDE_PAGES = 8  # how far ahead of a worker another begins, at first

_FIRST, _DIGITS, _PLACES = 0x20, 95, 48  # keys as numbers of so many printable characters

FetchPage = Callable[[bytes], tuple[Page, bool]]


class _Range:
    """Keys after `low`, up to and including `high`."""

    def __init__(self, low: bytes, high: bytes) -> None:
        self.low = low
        self.high = high
        self.pages: deque[Page] = deque()
        self.is_done = False
        self.may_divide = False  # since its last division it has found a page
        self.width = 0  # of its widest page, as a number
        self.stride = STRIDE_PAGES


def list_ranges(prefix: bytes, after: bytes, fetch_page: FetchPage, threads_max: int) -> Iterator[Page]:
    """Pages of all keys under `prefix` that follow `after`.

    Args:
        prefix: what all keys begin with.
        after: where to begin; empty for the front.
        fetch_page: the keys after its argument, and whether more follow. Called from several threads.
        threads_max: requests in flight.

    Raises:
        Whatever `fetch_page` raises.
    """
    page, more = fetch_page(after)
    if page.keys:
        yield page
    if more:
        lister = _Lister(fetch_page, prefix, page.keys[-1])
        lister.start(threads_max)
        try:
            yield from lister.pages()
        finally:
            lister.stop()


class _Lister:
    def __init__(self, fetch_page: FetchPage, prefix: bytes, after: bytes) -> None:
        whole = _Range(after, prefix + b"\xff\xff")
        self._fetch_page = fetch_page
        self._prefix = prefix
        self._ranges = [whole]
        self._unowned = [whole]
        self._changed = threading.Condition()
        self._entries_ahead = 0
        self._error: BaseException | None = None
        self._stopped = False

    def start(self, threads: int) -> None:
        for number in range(threads):
            threading.Thread(target=self._work, name=f"swingby-list-{number}", daemon=True).start()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def pages(self) -> Iterator[Page]:
        while True:
            with self._changed:
                while True:
                    if self._error:
                        raise self._error
                    if not self._ranges:
                        return
                    head = self._ranges[0]
                    if head.pages:
                        page = head.pages.popleft()
                        self._entries_ahead -= len(page.keys)
                        self._changed.notify_all()
                        break
                    if head.is_done:
                        self._ranges.pop(0)
                        continue
                    self._changed.wait()
            yield page

    def _work(self) -> None:
        try:
            while (mine := self._take()) is not None:
                while not mine.is_done:
                    page, more = self._fetch_page(mine.low)
                    if not self._add(mine, page, more=more):
                        return
        except BaseException as error:
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _take(self) -> _Range | None:
        """A range to list: an unowned one, else the upper half of somebody's; None at the end."""
        with self._changed:
            while not self._stopped and any(not one.is_done for one in self._ranges):
                if self._unowned:
                    return self._unowned.pop()
                for number, other in enumerate(self._ranges):
                    middle = self._divide(other) if other.may_divide and not other.is_done else None
                    if middle is not None:
                        upper = _Range(middle, other.high)
                        other.high, other.may_divide, other.stride = middle, False, other.stride * 2
                        self._ranges.insert(number + 1, upper)
                        return upper
                self._changed.wait()
            return None

    def _add(self, mine: _Range, page: Page, *, more: bool) -> bool:
        with self._changed:
            while mine is not self._ranges[0] and self._entries_ahead > ENTRIES_AHEAD_MAX and not self._stopped:
                self._changed.wait()
            keys = page.keys
            if keys and keys[-1] > mine.high:  # somebody else's by now
                count = sum(key <= mine.high for key in keys)
                page, more = Page(keys[:count], page.sizes[:count], page.versions[:count]), False
            if page.keys:
                mine.pages.append(page)
                mine.width = max(mine.width, self._number(page.keys[-1]) - self._number(mine.low))
                mine.low = page.keys[-1]
                self._entries_ahead += len(page.keys)
            mine.may_divide = True
            mine.is_done = not more or mine.low >= mine.high
            self._changed.notify_all()
            return not self._stopped

    def _divide(self, one: _Range) -> bytes | None:
        """Where another worker may begin in a range."""
        cut = len(self._prefix)
        low, high = one.low[cut:], one.high[cut:]
        ahead = between(low, high, one.width * one.stride) if one.width else None
        middle = ahead or between(low, high, (_number(high) - _number(low)) // 2)
        return self._prefix + middle if middle else None

    def _number(self, key: bytes) -> int:
        return _number(key[len(self._prefix) :])


def between(low: bytes, high: bytes, distance: int) -> bytes | None:
    """A printable key strictly between two keys, so far after the lower; None where it would not lie between."""
    number = _number(low) + distance
    digits = bytearray(_PLACES)
    for place in reversed(range(_PLACES)):
        number, digit = divmod(number, _DIGITS)
        digits[place] = digit + _FIRST
    middle = bytes(digits).rstrip(bytes([_FIRST]))
    return middle if low < middle < high and not number else None


def _number(key: bytes) -> int:
    value = 0
    for byte in key[:_PLACES].ljust(_PLACES, bytes([_FIRST])):
        value = value * _DIGITS + min(max(byte - _FIRST, 0), _DIGITS - 1)
    return value
