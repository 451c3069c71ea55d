"""A seeded loader: one global order for each (seed, epoch, dataset), batches read ahead by the keeper, decoded in threads."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from swingby.core.order import Permutation, Share, step_count, step_positions
from swingby.errors import SwingbyError
from swingby.keeper.protocol import Advance, Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from swingby.data.dataset import Batch, Dataset, Sample
    from swingby.keeper.client import Exchange, KeeperClient

DECODE_BATCHES_AHEAD = 4
ADVANCE_SECONDS = 0.02  # between two notes to the keeper of how far the epoch is
PLAN_SECONDS_MAX = 10.0
ORDER_POSITIONS = 1 << 16  # computed at once


class Epoch:
    """The batches of one epoch for one rank, as positions of the order."""

    def __init__(self, dataset: Dataset, share: Share, order: Permutation | None) -> None:
        self._count = len(dataset)
        self._share = share
        self._order = order
        self._first = self._known = 0
        self._block = np.zeros(0, np.int64)

    def indices(self, step: int) -> Any:
        """Indices of a step: int64[≤ batch_size]. Steps are asked for in ascending order."""
        start, stop = step_positions(self._count, self._share, step)
        if self._order is None:
            return np.arange(start, stop)
        if stop > self._known:
            self._first = start
            self._known = min(self._count, max(stop, start + ORDER_POSITIONS))
            self._block = self._order.take(np.arange(self._first, self._known))
        return self._block[start - self._first : stop - self._first]


class Loader:
    """Iterate it for one epoch's batches.

    Without `decode` it yields `Batch`; with it, lists of what `decode(sample)` returned, in order.

    Every rank yields the same number of batches: step k takes the next world_size × batch_size samples of the global order, rank r
    its contiguous r-th slice; a short last step is split evenly within one sample. Nothing is repeated.

    Args:
        dataset: from `swingby.open`.
        batch_size: samples a rank and step.
        shuffle: by (seed, epoch, dataset); else in key order.
        seed: of the order.
        rank, world_size: of this process.
        drop_last: leave out a short last step.
        decode: called with each `Sample`, in threads.
        decode_threads: how many; None: one a core, at most 8.
        prefetch_bytes_max: how far the keeper reads ahead.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        decode: Callable[[Sample], Any] | None = None,
        decode_threads: int | None = None,
        prefetch_bytes_max: int = 512 << 20,
    ) -> None:
        if batch_size < 1 or not 0 <= rank < world_size or prefetch_bytes_max < 0:
            raise ValueError(
                f"batch_size={batch_size}, rank={rank}, world_size={world_size}, prefetch_bytes_max={prefetch_bytes_max}: "
                "batch_size is at least 1, rank from 0 to world_size - 1, prefetch_bytes_max not negative"
            )
        if decode_threads is not None and decode_threads < 1:
            raise ValueError("decode_threads is at least 1")
        self._dataset = dataset
        self._share = Share(batch_size, rank, world_size, drop_last)
        self._shuffle = shuffle
        self._seed = seed
        self._epoch = 0
        self._decode = decode
        self._decode_threads = decode_threads or min(8, os.cpu_count() or 1)
        self._prefetch_bytes_max = prefetch_bytes_max

    def __len__(self) -> int:
        return step_count(len(self._dataset), self._share)

    def set_epoch(self, epoch: int) -> None:
        """Use the order of this epoch from the next iteration on; without it each iteration takes the next one."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        epoch, self._epoch = self._epoch, self._epoch + 1
        batches = self._batches(epoch)
        if self._decode is None:
            return batches
        return _decoded(batches, self._decode, self._decode_threads)

    def _batches(self, epoch: int) -> Iterator[Batch]:
        dataset = self._dataset
        order = Permutation(len(dataset), self._seed, epoch, dataset.digest) if self._shuffle else None
        steps = Epoch(dataset, self._share, order)
        with contextlib.closing(_Ahead(dataset.client, self._plan(epoch))) as ahead:
            for step in range(len(self)):
                indices = steps.indices(step)
                ahead.advance(step)
                yield dataset.batch(indices)

    def _plan(self, epoch: int) -> Plan:
        dataset = self._dataset
        return Plan(
            dataset.manifest,
            dataset.filters,
            self._shuffle,
            self._seed,
            epoch,
            (self._share.batch_size, self._share.rank, self._share.world_size, self._share.drop_last),
            0,
            self._prefetch_bytes_max,
        )


class _Ahead:
    """The plan registered with the keeper. Reads are right without it, so its failures are not the reader's."""

    def __init__(self, client: KeeperClient, plan: Plan) -> None:
        self._exchange: Exchange | None = None
        self._told_at = 0.0
        if plan.ahead_bytes_max:
            with contextlib.suppress(SwingbyError, ConnectionError):
                self._exchange = client.dedicated()
                self._exchange.send(plan, PLAN_SECONDS_MAX)
                self._exchange.receive(PLAN_SECONDS_MAX)

    def advance(self, step: int) -> None:
        """Steps below this one are consumed."""
        now = time.monotonic()
        if self._exchange is None or now - self._told_at < ADVANCE_SECONDS:
            return
        self._told_at = now
        try:
            self._exchange.send(Advance(step), PLAN_SECONDS_MAX)
        except (SwingbyError, ConnectionError):
            self.close()

    def close(self) -> None:
        """End the plan."""
        exchange, self._exchange = self._exchange, None
        if exchange:
            exchange.close()


def _decoded(batches: Iterator[Batch], decode: Callable[[Sample], Any], threads: int) -> Iterator[list[Any]]:
    """Batches decoded in threads, a few ahead, in order."""
    waiting: deque[list[Future[Any]]] = deque()
    pool = ThreadPoolExecutor(threads, "swingby-decode")
    try:
        for batch in batches:
            waiting.append([pool.submit(decode, sample) for sample in batch])
            if len(waiting) > DECODE_BATCHES_AHEAD:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        if hasattr(batches, "close"):
            batches.close()
