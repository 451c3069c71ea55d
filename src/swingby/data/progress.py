"""Progress, told to a function or to a bar: anything with `total`, `update(n)` and `close()`, as those of tqdm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol


class Bar(Protocol):
    """A progress bar.

    Attributes:
        total: of what it counts; set as soon as it is known.
    """

    total: Any

    def update(self, n: int, /) -> object:
        """So many more."""
        ...

    def close(self) -> object:
        """It is over."""
        ...


ProgressCall = Callable[..., object]


class Reached(NamedTuple):
    """How far something is.

    Attributes:
        objects, bytes: so far.
        objects_total, bytes_total: of all; 0 while nobody knows.
    """

    objects: int = 0
    bytes: int = 0
    objects_total: int = 0
    bytes_total: int = 0

    def plus(self, other: Reached) -> Reached:
        """Both together."""
        return Reached(*map(sum, zip(self, other, strict=True)))


class Reporter:
    """Tells a function or a bar.

    Args:
        progress: which; None: nobody.
        in_bytes: whether a bar counts bytes; else objects.

    Raises:
        ValueError: it is neither.
    """

    def __init__(self, progress: ProgressCall | Bar | None, *, in_bytes: bool) -> None:
        self._call = progress if callable(progress) else None
        self._bar: Any = None if progress is None or callable(progress) else progress
        self._in_bytes = in_bytes
        self._told = 0
        if self._bar is not None and not all(callable(getattr(self._bar, name, None)) for name in ("update", "close")):
            raise ValueError(f"progress={progress!r}: give a function, or a bar with total, update(n) and close()")

    def tell(self, reached: Reached, fields: int = len(Reached._fields)) -> None:
        """How far it is; a function is given the first so many fields."""
        if self._call is not None:
            self._call(*reached[:fields])
        elif self._bar is not None:
            done, total = (reached.bytes, reached.bytes_total) if self._in_bytes else reached[::2]
            if total:
                self._bar.total = total
            if done > self._told:
                self._bar.update(done - self._told)
                self._told = done

    def finish(self, count: int) -> None:
        """A bar stands at so many of as many."""
        if self._bar is not None:
            self._bar.total = count
            self._bar.update(max(0, count - self._told))
            self._told = count

    def close(self) -> None:
        """It is over, well or not."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()
