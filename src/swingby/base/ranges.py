"""Lists a flat, sorted key space in parallel, by dividing it where nobody has looked yet.

The base answers "the next 1,000 keys after x". One worker starts at the front; an idle one takes the upper half of what another
still has ahead, halved by key, so neither delimiters nor knowledge of the keys are needed. Results come out in key order.

Threads: the iterator belongs to one; workers are its own and end with it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator

from swingby.core.object import Page

ENTRIES_AHEAD_MAX = 2_000_000  # listed but not yet taken, about 200 bytes each

_FIRST, _DIGITS, _PLACES = 0x20, 95, 8  # keys are halved as numbers of printable characters

FetchPage = Callable[[bytes], tuple[Page, bool]]


class _Range:
    """Keys after `low`, up to and including `high`."""

    def __init__(self, low: bytes, high: bytes) -> None:
        self.low = low
        self.high = high
        self.pages: deque[Page] = deque()
        self.is_done = False
        self.may_divide = False  # since its last division it has found a page


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
        lister = _Lister(fetch_page, _Range(page.keys[-1], prefix + b"\xff\xff"))
        lister.start(threads_max)
        try:
            yield from lister.pages()
        finally:
            lister.stop()


class _Lister:
    def __init__(self, fetch_page: FetchPage, whole: _Range) -> None:
        self._fetch_page = fetch_page
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
                    middle = halfway(other.low, other.high) if other.may_divide and not other.is_done else None
                    if middle is not None:
                        upper = _Range(middle, other.high)
                        other.high, other.may_divide = middle, False
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
                mine.low = page.keys[-1]
                self._entries_ahead += len(page.keys)
            mine.may_divide = True
            mine.is_done = not more or mine.low >= mine.high
            self._changed.notify_all()
            return not self._stopped


def halfway(low: bytes, high: bytes) -> bytes | None:
    """A printable key strictly between two keys, near the middle; None where there is no room."""
    shared = 0
    while shared < min(len(low), len(high)) and low[shared] == high[shared]:
        shared += 1
    total = _number(low[shared:]) + _number(high[shared:])
    digits: list[int] = []
    for _ in range(_PLACES + 1):
        total, digit = divmod(total // 2 if not digits else total, _DIGITS)
        digits.append(digit + _FIRST)
    middle = low[:shared] + bytes(digits[:_PLACES][::-1])
    return middle if low < middle < high else None


def _number(tail: bytes) -> int:
    value = 0
    for place in range(_PLACES):
        digit = min(max(tail[place] - _FIRST, 0), _DIGITS - 1) if place < len(tail) else 0
        value = value * _DIGITS + digit
    return value
