"""Makes a whole dataset present, in key order, at the speed of the base; what is present already costs nothing, so it resumes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from swingby.core.manifest.packs import ROW_PACK, row_sizes
from swingby.keeper.wanted import wanted_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from swingby.core.segment import Segment
    from swingby.errors import SwingbyError
    from swingby.keeper.sources import Source
    from swingby.keeper.supply import Request, Supply
    from swingby.keeper.upkeep import Upkeep

BLOCK_OBJECTS = 512
BLOCK_BYTES = 256 << 20
BLOCKS_AHEAD_MAX = 4
FAILURES_SHOWN_MAX = 10

Done = tuple[int, int, int, int]  # objects, bytes, and the totals of both


class Warmer:
    """One warm-up.

    Args:
        source: the dataset.
        selection: indices, None: all.
        supply: makes present.
        upkeep: copies down to the burst level; the warm-up does not run away from it.
    """

    def __init__(self, source: Source, selection: NDArray[np.int64] | None, supply: Supply, upkeep: Upkeep) -> None:
        self._source = source
        self._selection = selection
        self._supply = supply
        self._upkeep = upkeep
        self._slots = threading.Semaphore(BLOCKS_AHEAD_MAX)
        self._lock = threading.Lock()
        self._objects = self._bytes = self._failed = self._left_out = 0
        self._failures: list[SwingbyError] = []

    def run(self, progress: Callable[[Done], None], is_wanted: Callable[[], bool]) -> dict[str, Any]:
        """Do it; returns counts and the first failures.

        Args:
            progress: told how far it is.
            is_wanted: asked between blocks; False ends it.
        """
        total = len(self._source.manifest) if self._selection is None else len(self._selection)
        total_bytes = self._source.manifest.data_bytes if self._selection is None else 0
        for indices, size in self._blocks(total):
            self._upkeep.make_way()
            self._slots.acquire()
            if not is_wanted():
                self._slots.release()
                break
            self._supply.begin(
                self._source.base,
                wanted_of(self._source.manifest, indices),
                self._waiter(len(indices), size),
                urgent=False,
            )
            progress((self._objects, self._bytes, total, total_bytes))
        for _ in range(BLOCKS_AHEAD_MAX):
            self._slots.acquire()
            progress((self._objects, self._bytes, total, total_bytes))
        return {
            "objects": self._objects,
            "bytes": self._bytes,
            "objects_total": total,
            "objects_present": self._present(total) if is_wanted() else 0,
            "failed": self._failed,
            "left_out": self._left_out,  # no level admits them
            "failures": [{"name": type(error).__name__, **error.facts()} for error in self._failures],
        }

    def segments(self) -> Iterator[Segment]:
        """Every segment of the dataset."""
        manifest = self._source.manifest
        for number in range(len(manifest.root.shards)):
            shard = manifest.shard(number)
            for local in range(len(shard.packs)):
                yield manifest.pack(local + manifest.first_pack(number))
            for place in np.flatnonzero(shard.rows[:, ROW_PACK] == len(shard.packs)).tolist():
                yield manifest.large(place + manifest.first_index(number))

    def _blocks(self, total: int) -> Iterator[tuple[NDArray[np.int64], int]]:
        manifest = self._source.manifest
        at = 0
        while at < total:
            positions = np.arange(at, min(total, at + BLOCK_OBJECTS))
            indices = positions if self._selection is None else self._selection[positions]
            rows = manifest.rows(indices)
            sizes = np.cumsum(row_sizes(rows, manifest.large_rows(rows)))
            count = max(1, int(np.searchsorted(sizes, BLOCK_BYTES, "right")))
            yield indices[:count], int(sizes[min(count, len(sizes)) - 1])
            at += min(count, len(indices))

    def _present(self, total: int) -> int:
        """Objects that are on a level now; what came first may have had to leave again."""
        found = 0
        for indices, _ in self._blocks(total):
            for wanted in wanted_of(self._source.manifest, indices):
                absent = len(self._supply.absent(wanted))
                found += len(wanted.chunks) - absent if wanted.segment.packed else not absent
        return found

    def _waiter(self, count: int, size: int) -> Callable[[Request], None]:
        def done(request: Request) -> None:
            errors = [(part, chunk) for part in request.parts for chunk in part.errors]
            homeless = [part.wanted for part in request.parts if part.kind not in {"memory", "burst"}]
            left_out = sum(len(wanted.chunks) if wanted.segment.packed else 1 for wanted in homeless)
            with self._lock:
                self._left_out += left_out
                self._objects += count
                self._bytes += size
                self._failed += len({(id(part), part.wanted.position_of(chunk)) for part, chunk in errors})
                for part, chunk in errors[: FAILURES_SHOWN_MAX - len(self._failures)]:
                    self._failures.append(part.errors[chunk])
            self._slots.release()

        return done
