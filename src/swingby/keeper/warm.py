"""Makes a whole dataset or object present, in key order, at the speed of the base; what is present already costs nothing, so it
resumes.
"""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from swingby.core.manifest.packs import ROW_PACK, row_sizes
from swingby.keeper.wanted import ObjectWanted, wanted_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from swingby.core.segment import Segment
    from swingby.errors import SwingbyError
    from swingby.keeper.bases import OpenBase
    from swingby.keeper.sources import Source
    from swingby.keeper.supply import Request, Supply
    from swingby.keeper.upkeep import Upkeep
    from swingby.keeper.wanted import Wanted

BLOCK_OBJECTS = 512
BLOCK_BYTES = 256 << 20
BLOCKS_AHEAD_MAX = 4
LOOK_SECONDS = 0.25  # between two looks whether a warm-up is still wanted
FAILURES_SHOWN_MAX = 10

Done = tuple[int, int, int, int]  # objects, bytes, and the totals of both


class Block(NamedTuple):
    """What is asked for at once: chunks, and how many objects and bytes they are."""

    wants: list[Wanted]
    objects: int
    size: int


class Goods(Protocol):
    """What is made present.

    Attributes:
        base: it comes from.
        objects, size: all of it; a size of 0: not known.
    """

    base: OpenBase
    objects: int
    size: int

    def blocks(self) -> Iterator[Block]:
        """All of it, in the order of the base."""
        ...

    def wholes(self) -> Iterator[Wanted]:
        """All of it, no object in more than one."""
        ...

    def segments(self) -> Iterator[Segment]:
        """Every segment it lies in; some may come again."""
        ...


class DatasetGoods:
    """Objects of a dataset.

    Args:
        source: the dataset.
        selection: indices, None: all.
    """

    def __init__(self, source: Source, selection: NDArray[np.int64] | None) -> None:
        self.base = source.base
        self.objects = len(source.manifest) if selection is None else len(selection)
        self.size = source.manifest.data_bytes if selection is None else 0
        self._manifest = source.manifest
        self._selection = selection

    def blocks(self) -> Iterator[Block]:
        """See `Goods`."""
        manifest = self._manifest
        at = 0
        while at < self.objects:
            positions = np.arange(at, min(self.objects, at + BLOCK_OBJECTS))
            indices = positions if self._selection is None else self._selection[positions]
            rows = manifest.rows(indices)
            sizes = np.cumsum(row_sizes(rows, manifest.large_rows(rows)))
            count = max(1, int(np.searchsorted(sizes, BLOCK_BYTES, "right")))
            count = min(count, len(indices))
            yield Block(wanted_of(manifest, indices[:count]), count, int(sizes[count - 1]))
            at += count

    def wholes(self) -> Iterator[Wanted]:
        """See `Goods`."""
        return itertools.chain.from_iterable(block.wants for block in self.blocks())

    def segments(self) -> Iterator[Segment]:
        """See `Goods`."""
        if self._selection is not None:
            yield from (wanted.segment for wanted in self.wholes())
            return
        manifest = self._manifest
        for number in range(len(manifest.root.shards)):
            shard = manifest.shard(number)
            for local in range(len(shard.packs)):
                yield manifest.pack(local + manifest.first_pack(number))
            for place in np.flatnonzero(shard.rows[:, ROW_PACK] == len(shard.packs)).tolist():
                yield manifest.large(place + manifest.first_index(number))


class ObjectGoods:
    """One object.

    Args:
        base: it comes from.
        wanted: all of it.
    """

    objects = 1

    def __init__(self, base: OpenBase, wanted: Wanted) -> None:
        self.base = base
        self.size = wanted.size_bytes
        self._wanted = wanted

    def blocks(self) -> Iterator[Block]:
        """See `Goods`: a large object in parts."""
        whole = self._wanted
        if not isinstance(whole, ObjectWanted) or self.size <= BLOCK_BYTES:
            yield Block([whole], 1, self.size)
            return
        for start in range(0, self.size, BLOCK_BYTES):
            stop = min(self.size, start + BLOCK_BYTES)
            yield Block([whole.part(start, stop)], int(stop == self.size), stop - start)

    def wholes(self) -> Iterator[Wanted]:
        """See `Goods`."""
        yield self._wanted

    def segments(self) -> Iterator[Segment]:
        """See `Goods`."""
        yield self._wanted.segment


class Warmer:
    """One warm-up.

    Args:
        goods: what is made present.
        supply: makes present.
        upkeep: copies down to the burst level; the warm-up does not run away from it.
    """

    def __init__(self, goods: Goods, supply: Supply, upkeep: Upkeep) -> None:
        self._goods = goods
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
        total, total_bytes = self._goods.objects, self._goods.size
        for block in self._goods.blocks():
            self._upkeep.make_way()
            if not self._has_slot(is_wanted):
                break
            self._supply.begin(self._goods.base, block.wants, self._waiter(block.objects, block.size), urgent=False)
            progress((self._objects, self._bytes, total, total_bytes))
        for _ in range(BLOCKS_AHEAD_MAX):
            if not self._has_slot(is_wanted):
                break
            progress((self._objects, self._bytes, total, total_bytes))
        return {
            "objects": self._objects,
            "bytes": self._bytes,
            "objects_total": total,
            "objects_present": self._present() if is_wanted() else 0,
            "failed": self._failed,
            "left_out": self._left_out,  # no level admits them
            "failures": [{"name": type(error).__name__, **error.facts()} for error in self._failures],
        }

    def _has_slot(self, is_wanted: Callable[[], bool]) -> bool:
        """Wait for a block to be done; False when nobody wants it any more: a keeper that ends drops what it has not begun."""
        while is_wanted():
            if self._slots.acquire(timeout=LOOK_SECONDS):
                return True
        return False

    def _present(self) -> int:
        """Objects that are on a level now; what came first may have had to leave again."""
        found = 0
        for wanted in self._goods.wholes():
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
