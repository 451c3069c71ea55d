"""The read of a dataset's objects: mapped bytes where they are present, the keeper where they are not, the base where there is no
keeper. All branching of the read is in `_resolve`.

Threads: safe. Forks: safe; the child makes its own connections.
"""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

import numpy as np

from swingby.core import forks
from swingby.core.manifest.packs import ROW_PACK, ROW_SIZE, row_sizes
from swingby.errors import (
    CorruptDataError,
    FormatError,
    KeeperError,
    KeeperUnavailableError,
    NotOpenError,
    SwingbyError,
)
from swingby.keeper.protocol import INDICES_MAX, Look, Need, NeedRange, Touched
from swingby.path.found import Fetched, Located
from swingby.path.supplied import Answer, ask, refuse_map
from swingby.path.tables import WORDS_AN_ENTRY, MappedSet
from swingby.path.waits import WAITED

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from swingby.core.manifest.view import Manifest
    from swingby.keeper.client import KeeperClient
    from swingby.keeper.protocol import FileRef
    from swingby.path.fallback import Fallback
    from swingby.path.found import Found
    from swingby.path.tables import Mapped, Tables

REQUEST_BYTES_MAX = 256 << 20
RANGE_BYTES_MAX = 64 << 20  # of an object too large for any level, a request
REPORT_SECONDS = 1.0
OVERTAKEN_BYTES_MAX = 32 << 20  # larger objects are waited for and mapped: a copy of each reader's own would cost more
LOOK_SECONDS = 0.005  # between two looks at what a keeper that sweeps has brought into packs that are not mapped
TOUCH_EVERY = 16  # batches; what the policy needs is a sample
ATTEMPTS_MAX = 3
DIRECT_THREADS = 32  # of a read without a keeper


class DatasetReader:
    """See the module's text.

    Args:
        manifest: of the dataset.
        client: to the keeper.
        reopen: tells a restarted keeper of the dataset.
        fallback: the base, without a keeper.
        limits: longest read in seconds, and bytes mapped at once.

    Attributes:
        sweeps: whether the keeper brings all of it from a base as near as its levels; then what is absent is read without it.
    """

    def __init__(
        self,
        manifest: Manifest,
        client: KeeperClient,
        reopen: Callable[[], None],
        fallback: Fallback,
        limits: tuple[float, int],
    ) -> None:
        self.manifest = manifest
        self.client = client
        self._reopen = reopen
        self._fallback = fallback
        self._seconds = limits[0]
        self._mapped = MappedSet(manifest, limits[1])
        self._lock = threading.Lock()
        self._board: memoryview | None = None
        self._evictions = 0
        self._batches = self._samples = 0
        self._direct_samples = self._direct_bytes = 0
        self.sweeps = False
        self._looked_at = 0.0
        self._touched = np.zeros(manifest.pack_ordinals, bool)
        self._reported_at = time.monotonic()
        self._mean_bytes = manifest.data_bytes / max(1, len(manifest))
        forks.register(self)

    def find(self, indices: NDArray[np.int64]) -> Found:
        """These objects, in order; those on the memory level without a copy.

        Raises:
            IndexError: an index is out of range.
            SwingbyError: the first object that cannot be read, or DeadlineError.
        """
        rows = self.manifest.rows(indices)
        packs = rows[:, ROW_PACK]
        board = self._board
        if board is not None and board[0] != self._evictions:
            self._sweep(board)
        tables = self._mapped.current
        self._batches += 1
        self._samples += len(indices)
        if self._batches % TOUCH_EVERY == 0:
            self._touched[packs] = True
            self.report()
        if tables.is_whole or tables.complete[packs].all():
            return Located(rows, tables)
        return Fetched(self._some_absent(indices, rows, tables))

    def part(self, index: int, start: int, stop: int) -> memoryview:
        """Bytes [start, stop) of an object; of a large one no more than its chunks are read.

        Raises:
            SwingbyError: it cannot be read.
        """
        if not self.manifest.is_large(int(self.manifest.rows(np.array([index]))[0, ROW_PACK])):
            return self.find(np.array([index])).views()[0][start:stop]
        buffer = bytearray(stop - start)
        try:
            self._ranges_into(buffer, index, start)
        except (ConnectionError, KeeperError, FormatError, CorruptDataError) as error:
            return self._direct(index, error)[start:stop]
        return memoryview(buffer).toreadonly()

    def size(self, index: int) -> int:
        """Size of an object in bytes."""
        return self.manifest.size(index)

    def close(self) -> None:
        """Let go of all maps; views stay valid."""
        with contextlib.suppress(SwingbyError, OSError):
            self.report(at_once=True)
        with self._lock:
            self._mapped.clear()

    # -- what is not all there -----------------------------------------------------------------------------------------

    def _some_absent(self, indices: NDArray[np.int64], rows: NDArray[np.uint32], tables: Tables) -> list[memoryview]:
        found: list[memoryview | None] = [None] * len(indices)
        missing = []
        incomplete = set()
        for position, (pack, start, size, slot) in enumerate(rows.tolist()):
            words = tables.words[pack]
            if words is not None and words[slot * WORDS_AN_ENTRY]:
                found[position] = tables.views[pack][start : start + size]  # mapped as its words are
                if not tables.complete[pack]:
                    incomplete.add(pack)
            elif (large := tables.large.get(int(indices[position]))) is not None and self.manifest.is_large(pack):
                found[position] = large
            else:
                missing.append(position)
        with self._lock:  # also the barrier between the words and the bytes
            self._mapped.look(incomplete)
        if missing:
            first: dict[int, int] = {}
            for position in missing:
                first.setdefault(int(indices[position]), position)
            places = np.array(list(first.values()))
            fetched = dict(zip(first, self._fetch(indices[places], rows[places]), strict=True))
            for position in missing:
                found[position] = fetched[int(indices[position])]
        return cast("list[memoryview]", found)  # every position is filled

    def _fetch(self, indices: NDArray[np.int64], rows: NDArray[np.uint32]) -> list[memoryview]:
        """Views of objects that are not mapped and present; in requests of bounded size."""
        if self.sweeps:
            sizes = row_sizes(rows, self.manifest.large_rows(rows))
            asked = np.flatnonzero(sizes > OVERTAKEN_BYTES_MAX)
            past = np.flatnonzero(sizes <= OVERTAKEN_BYTES_MAX)
            found = dict(zip(asked.tolist(), self._ask(indices[asked], rows[asked]), strict=True))
            if len(past):
                found |= zip(past.tolist(), self._overtake(indices[past], rows[past, ROW_PACK]), strict=True)
            return [found[place] for place in range(len(rows))]
        return self._ask(indices, rows)

    def _ask(self, indices: NDArray[np.int64], rows: NDArray[np.uint32]) -> list[memoryview]:
        views: list[memoryview] = []
        sizes = np.cumsum(np.minimum(rows[:, ROW_SIZE], REQUEST_BYTES_MAX), dtype=np.int64)
        start = 0
        while start < len(indices):
            before = int(sizes[start - 1]) if start else 0
            stop = int(np.searchsorted(sizes, before + REQUEST_BYTES_MAX, "right"))
            stop = min(max(stop, start + 1), start + INDICES_MAX)
            views += self._resolve(indices[start:stop], rows[start:stop])
            start = stop
        return views

    def _overtake(self, indices: NDArray[np.int64], packs: NDArray[np.uint32]) -> list[memoryview]:
        """Read past a keeper that sweeps; now and then map the packs that are not mapped, to see what it has brought."""
        words = self._mapped.current.words
        unseen = [place for place, pack in enumerate(packs.tolist()) if words[pack] is None]
        if unseen and time.monotonic() > self._looked_at + LOOK_SECONDS:
            self._looked_at = time.monotonic()
            _, first = np.unique(packs[unseen], return_index=True)
            message = Look(self.manifest.digest, indices[unseen][first].astype("<i8").tobytes())
            with (
                contextlib.suppress(SwingbyError, OSError),  # it is read without the keeper all the same
                self.client.exchange() as exchange,
            ):
                self._board = exchange.board
                ask(exchange, message, self._seconds, self._add).close()
        return self._all_direct(indices.tolist(), None)

    def _resolve(self, indices: NDArray[np.int64], rows: NDArray[np.uint32]) -> list[memoryview]:
        """The keeper, then the keeper once more in doubt, then the base."""
        until = time.monotonic() + self._seconds
        reason: BaseException | None = None
        for attempt in range(ATTEMPTS_MAX):
            seconds = until - time.monotonic()
            try:
                with self.client.exchange() as exchange:
                    self._board = exchange.board
                    message = Need(self.manifest.digest, indices.astype("<i8").tobytes(), seconds, attempt > 0)
                    answer = ask(exchange, message, seconds, self._add)
            except NotOpenError as error:
                reason = error
                with contextlib.suppress(SwingbyError, ConnectionError):  # the next attempt tells whether it worked
                    self._reopen()
                continue
            except KeeperUnavailableError as error:
                reason = error
                break
            except (ConnectionError, KeeperError, FormatError) as error:
                reason = error
                continue
            try:
                return self._deliver(answer, indices, rows)
            except (CorruptDataError, KeeperError) as error:
                reason = error
            finally:
                answer.close()
        return self._all_direct(indices.tolist(), reason)

    def _deliver(self, answer: Answer, indices: NDArray[np.int64], rows: NDArray[np.uint32]) -> list[memoryview]:
        failures = answer.failures()
        if failures:
            raise failures[min(failures)]
        pieces = answer.views()
        direct, ranges = set(answer.end.direct), set(answer.end.ranges)
        views = []
        with self._lock:
            tables = self._mapped.current
        for position, (pack, start, size, slot) in enumerate(rows.tolist()):
            index = int(indices[position])
            if position in pieces:
                views.append(pieces[position])
            elif position in direct:
                views.append(self._direct(index, None))
            elif position in ranges:
                views.append(self._by_ranges(index))
            elif self.manifest.is_large(pack):
                views.append(self._large(index, answer.mapped))
            else:
                view, words = tables.views[pack], tables.words[pack]
                mapped = answer.mapped.get(pack)
                if mapped:
                    view, words = mapped.view, mapped.words
                if view is None or words is None or not words[slot * WORDS_AN_ENTRY]:
                    raise KeeperError("the keeper's files are not the ones it speaks of")
                views.append(view[start : start + size])
        return views

    def _large(self, index: int, mapped: dict[int, Mapped]) -> memoryview:
        found = mapped.get(-1 - index) or self._mapped.get(-1 - index)
        if found is None or not found.is_complete:
            raise KeeperError("the keeper's files are not the ones it speaks of")
        with self._lock:
            self._mapped.keep_large(index, found)
        return found.view

    def _by_ranges(self, index: int) -> memoryview:
        """An object too large for every level and every answer."""
        buffer = bytearray(self.manifest.size(index))
        self._ranges_into(buffer, index, 0)
        return memoryview(buffer).toreadonly()

    def _ranges_into(self, buffer: bytearray, index: int, first: int) -> None:
        """Fill a buffer with an object's bytes from `first` on."""
        last = first + len(buffer)
        for start in range(first, last, RANGE_BYTES_MAX):
            stop = min(last, start + RANGE_BYTES_MAX)
            message = NeedRange(start, stop - start, self._seconds, self.manifest.digest, index)
            with self.client.exchange() as exchange:
                answer = ask(exchange, message, self._seconds, refuse_map)
            failures = answer.failures()
            if failures:
                answer.close()
                raise failures[min(failures)]
            at = start
            for part in answer.parts(start, stop, answer.end.start):
                buffer[at - first : at - first + len(part)] = part
                at += len(part)
            if at != stop:
                raise KeeperError("the keeper supplied less than was asked for")

    def _direct(self, index: int, reason: BaseException | None) -> memoryview:
        """From the base itself."""
        where, size = self.manifest.where(index), self.manifest.size(index)
        self._direct_samples += 1
        self._direct_bytes += size
        with WAITED.reading(size):
            return self._fallback.read_sample(where, size, reason)

    def _all_direct(self, indices: list[int], reason: BaseException | None) -> list[memoryview]:
        """Several from the base itself; from a remote one some at once."""
        if len(indices) == 1 or self._fallback.base(reason).local:
            return [self._direct(index, reason) for index in indices]
        size = sum(self.manifest.size(index) for index in indices)
        with WAITED.reading(size), ThreadPoolExecutor(DIRECT_THREADS, "swingby-direct") as pool:
            return list(pool.map(lambda index: self._direct(index, reason), indices))

    # -- upkeep --------------------------------------------------------------------------------------------------------

    def _add(self, ref: FileRef, segment: int, segment_map: int) -> Mapped:
        with self._lock:
            return self._mapped.add(ref, segment, segment_map)

    def _sweep(self, board: memoryview) -> None:
        with self._lock:
            self._evictions = board[0]
            self._mapped.sweep()

    def report(self, *, at_once: bool = False) -> None:
        """Tell the keeper now and then what was used."""
        now = time.monotonic()
        if self._board is None or (now - self._reported_at < REPORT_SECONDS and not at_once):
            return
        self._reported_at = now
        with self._lock:
            packs = np.flatnonzero(self._touched).astype("<u4").tobytes()
            self._touched[:] = False
            samples, self._samples = self._samples, 0
            direct, direct_bytes = self._direct_samples, self._direct_bytes
            self._direct_samples = self._direct_bytes = 0
        message = Touched(self.manifest.digest, packs, samples, int(samples * self._mean_bytes), direct, direct_bytes)
        with contextlib.suppress(SwingbyError, ConnectionError), self.client.exchange() as exchange:
            exchange.send(message, REPORT_SECONDS)

    def after_fork(self) -> None:
        """See `forks`."""
        self._lock = threading.Lock()
