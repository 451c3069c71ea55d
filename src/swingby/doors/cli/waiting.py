"""Progress of long requests, on standard error and only where that is a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn
from rich.text import Text

from swingby.doors.cli.quantities import duration, objects, rate, size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Task, TaskID

REFRESH_A_SECOND = 8
WIDE = 80  # columns of a terminal that has room for a bar


class Waiting:
    """A line that says what goes on. A context manager.

    Args:
        console: for messages.
        what: what is done, as "listing".
    """

    def __init__(self, console: Console, what: str) -> None:
        bar = [BarColumn(bar_width=30)] if console.width >= WIDE else []
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            *bar,
            _Done(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            refresh_per_second=REFRESH_A_SECOND,
        )
        self._task: TaskID = self._progress.add_task(what, total=None, objects=0, in_bytes=True)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, what: str) -> None:
        """What is done from now on; the clock starts anew."""
        self._progress.reset(self._task, total=None, description=what, objects=0, in_bytes=True)

    def show(self, count: int, done: int, total: int | None = None, *, in_bytes: bool = True) -> None:
        """How far it is.

        Args:
            count: objects so far.
            done, total: bytes, or whatever is counted where `in_bytes` is False; None: nobody knows.
            in_bytes: whether the rate is one of bytes.
        """
        self._progress.update(self._task, completed=done, total=total, objects=count, in_bytes=in_bytes)


class _Done(ProgressColumn):
    """As "12 of 40 MB, 310 objects, 20 MB/s, 1.4 s left"."""

    def render(self, task: Task) -> Text:
        parts = []
        if task.fields["in_bytes"]:
            of = f" of {size(task.total)}" if task.total else ""
            parts.append(f"{size(task.completed)}{of}")
        elif task.total:
            parts.append(f"{task.completed:,.0f} of {task.total:,.0f}")
        if task.fields["objects"]:
            parts.append(objects(task.fields["objects"]))
        if task.fields["in_bytes"] and task.speed:
            parts.append(rate(task.speed))
        if task.time_remaining is not None and task.total and not task.finished:
            parts.append(f"{duration(task.time_remaining)} left")
        return Text(", ".join(parts))
