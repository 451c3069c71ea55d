"""Loads epochs and measures them. Every byte is hashed inside the measured time, alike for all ways."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

import swingby
from swingby.core.checksum import word_of
from swingby.core.order import Permutation
from swingby.doors.cli.demo.far import union
from swingby.doors.cli.demo.results import Epoch, Split

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from swingby.data.dataset import Dataset
    from swingby.doors.cli.demo.far import Record
    from swingby.doors.cli.demo.private import Private
    from swingby.doors.cli.demo.results import Way

BATCH_SIZE = 64
SEED = 0
POINTS = 100  # of the curve of an epoch
TELL_SECONDS = 0.1
WRONG_KEYS_MAX = 10


class Checker:
    """Hashes what was loaded; the first time it remembers, later it compares.

    Args:
        keys: of all objects.

    Attributes:
        wrong_keys: the first whose bytes differed, of all epochs.
        wrong_objects, bytes, seconds: of this epoch.
    """

    def __init__(self, keys: list[str]) -> None:
        self._keys = keys
        self._words = [0] * len(keys)  # no word is 0
        self.wrong_keys: list[str] = []
        self.restart()

    def restart(self) -> None:
        """Begin a new epoch's counts."""
        self.wrong_objects = self.bytes = 0
        self.seconds = 0.0

    def check(self, indices: list[int], views: list[Buffer]) -> None:
        """The bytes of some objects."""
        started = time.perf_counter()
        words = self._words
        for index, view in zip(indices, views, strict=True):
            word = word_of(view)
            self.bytes += len(memoryview(view))
            if words[index] != word:
                if words[index]:
                    self._wrong(index)
                else:
                    words[index] = word
        self.seconds += time.perf_counter() - started

    def _wrong(self, index: int) -> None:
        self.wrong_objects += 1
        if len(self.wrong_keys) < WRONG_KEYS_MAX and self._keys[index] not in self.wrong_keys:
            self.wrong_keys.append(self._keys[index])


class Course:
    """One epoch under way: its clock and its curve.

    Args:
        objects: in all.
        tell: told of objects and bytes now and then.
    """

    def __init__(self, objects: int, tell: Callable[[int, int], None]) -> None:
        self.began = time.perf_counter()
        self.points: list[tuple[float, int]] = [(0.0, 0)]
        self._objects = objects
        self._step = max(1, objects // POINTS)
        self._next = self._step
        self._tell = tell
        self._told_at = self.began

    def advance(self, done: int, loaded_bytes: int) -> None:
        """So many objects are loaded."""
        if done < self._next:
            return
        self._next = done + self._step
        self.points.append((time.perf_counter() - self.began, done))
        if time.perf_counter() - self._told_at > TELL_SECONDS:
            self._told_at = time.perf_counter()
            self._tell(done, loaded_bytes)

    def end(self) -> float:
        """All objects are loaded; the seconds it took."""
        self.points.append((time.perf_counter() - self.began, self._objects))
        return self.points[-1][0]


class Epochs:
    """Runs epochs over the same objects. Epoch n has the same random order on both sides.

    Args:
        dataset: to load.
        record: of the reads of the base.
        tell: told of objects and bytes while an epoch goes on.
    """

    def __init__(self, dataset: Dataset, record: Record, tell: Callable[[int, int], None]) -> None:
        self._keys = list(dataset.keys)
        self.checker = Checker(self._keys)
        self._dataset = dataset
        self._record = record
        self._tell = tell

    def by_file(self, number: int, read: Callable[[str], Buffer]) -> Epoch:
        """One object after the other, as a program without Swingby reads them."""
        self.checker.restart()
        keys = self._keys
        order = Permutation(len(keys), SEED, number, self._dataset.digest).take(np.arange(len(keys))).tolist()
        course = Course(len(keys), self._tell)
        for done, index in enumerate(order, 1):
            self.checker.check([index], [read(keys[index])])
            course.advance(done, self.checker.bytes)
        everything = np.array([(course.began, course.began + course.end())])
        return self._epoch("file by file", number, course, everything)

    def by_swingby(self, way: Way, number: int, private: Private) -> Epoch:
        """In batches, through Swingby."""
        self.checker.restart()
        filled_before = _filled_bytes(private)
        private.client.waits.clear()
        course = Course(len(self._keys), self._tell)
        loader = swingby.Loader(self._dataset, batch_size=BATCH_SIZE, shuffle=True, seed=SEED)
        loader.set_epoch(number)
        done = 0
        for batch in loader:
            self.checker.check(batch.indices.tolist(), batch.views)
            done += len(batch)
            course.advance(done, self.checker.bytes)
        course.end()
        self.checker.wrong_objects += len(self._keys) - done  # the loader gives all of them
        waits = union(np.array(private.client.waits, np.float64).reshape(-1, 2))
        return self._epoch(way, number, course, waits, _filled_bytes(private) - filled_before)

    def _epoch(self, way: Way, number: int, course: Course, waits: NDArray[np.float64], filled_bytes: int = 0) -> Epoch:
        asked = self._record.asked(course.began)
        latency, base = self._record.waited(waits, course.began)
        count, size, seconds = len(self._keys), self.checker.bytes, course.points[-1][0]
        keeper = 0.0 if way == "file by file" else float((waits[:, 1] - waits[:, 0]).sum()) - latency - base
        process = max(0.0, seconds - latency - base - keeper - self.checker.seconds)
        return Epoch(
            way=way,
            number=number,
            seconds=seconds,
            objects=count,
            bytes=size,
            objects_per_second=count / seconds,
            bytes_per_second=size / seconds,
            base_requests=asked.requests,
            base_bytes=asked.bytes,
            burst_bytes=max(0, filled_bytes - asked.bytes),
            wrong_objects=self.checker.wrong_objects,
            split=Split(latency, base, keeper, process, self.checker.seconds),
            progress=course.points,
        )


def _filled_bytes(private: Private) -> int:
    """What the memory level has taken in, from the base or from the burst level."""
    memory = private.keeper.engine.levels.memory
    return memory.counts().filled_bytes if memory else 0
