"""How a loader decodes samples."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from swingby.data.dataset import Sample

WHERE = ("threads", "processes")
WORKERS_MAX = 8  # unless more are asked for


class Decode:
    """A function that decodes samples, and where it runs: `Loader(…, decode=Decode(function, where="processes"))`.

    Args:
        function: called with each `Sample`; what it returns is the decoded sample.
        where: "threads"; "processes" for Python that holds the interpreter's lock. Processes map the same memory; what the function
            returns is pickled.
        workers: how many; None: one a core, at most 8.
        seconds_max: for a sample; None: any time.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        function: Callable[[Sample], Any],
        *,
        where: str = "threads",
        workers: int | None = None,
        seconds_max: float | None = None,
    ) -> None:
        if where not in WHERE:
            raise ValueError(f"where={where!r}: it is one of {', '.join(WHERE)}")
        for name, value in (("workers", workers), ("seconds_max", seconds_max)):
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value}: it is above 0, or None")
        self.function = function
        self.in_threads = where == "threads"
        self.workers = workers or min(WORKERS_MAX, os.cpu_count() or 1)
        self.seconds_max = seconds_max
