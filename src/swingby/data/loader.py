"""A seeded loader: one global order for each (seed, epoch, dataset), batches read ahead by the keeper, decoded by a crew."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from typing import TYPE_CHECKING, Any

from swingby.core.epoch import ORDERS
from swingby.core.order import Share, step_count
from swingby.data import state
from swingby.data.account import Account
from swingby.data.crew import Crew, Pending, ThreadHand
from swingby.data.decode import Decode
from swingby.data.epoch import Epoch
from swingby.data.loadable import Reading
from swingby.data.work import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from swingby.data.account import EpochStats
    from swingby.data.crew import Hand, Part
    from swingby.data.dataset import Sample
    from swingby.data.loadable import Loadable
    from swingby.data.work import BadSample

BATCHES_AHEAD = 4  # decoded before they are asked for


class Loader:
    """Iterate it for one epoch's batches.

    Without `decode` it yields `Batch`; with it, lists of what `decode(sample)` returned, in order.

    Every rank yields the same number of batches: step k takes the next world_size × batch_size samples of the global order, rank r
    its contiguous r-th slice; the last step is split evenly within one sample. Nothing is repeated.

    Args:
        dataset: from `swingby.open`, or a `Mixture`.
        batch_size: samples a rank and step.
        shuffle: by (seed, epoch, dataset); else in key order.
        order: of a shuffle: "global", any object anywhere; "segments", blocks of neighbours in random order, mixed within a window
            of some 300 MB: for datasets much larger than the cache.
        seed: of the order, not negative.
        rank, world_size: of this process.
        drop_last: leave out the short last step.
        decode: called with each `Sample`, in threads; or a `Decode`, which says where.
        on_bad: "raise"; "substitute": put another sample, the same on every rank and resume, in the place of one that cannot be
            read or decoded, and note it in `bad`.
        prefetch_bytes_max: how far the keeper reads ahead.

    Attributes:
        bad: samples of this epoch that were replaced, with the reason.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        dataset: Loadable,
        *,
        batch_size: int,
        shuffle: bool = False,
        order: str = "global",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        decode: Callable[[Sample], Any] | Decode | None = None,
        on_bad: str = "raise",
        prefetch_bytes_max: int = 512 << 20,
    ) -> None:
        _between("batch_size", batch_size, 1)
        _between("world_size", world_size, 1)
        _between("rank", rank, 0, world_size - 1)
        _between("seed", seed, 0)
        _between("prefetch_bytes_max", prefetch_bytes_max, 0)
        if decode is not None and not callable(decode) and not isinstance(decode, Decode):
            raise ValueError(f"decode={decode!r}: it is a function of a sample, or a swingby.Decode")
        _one_of("order", order, ORDERS[1:])
        _one_of("on_bad", on_bad, ("raise", "substitute"))
        self._dataset = dataset
        self._share = Share(batch_size, rank, world_size, drop_last)
        self._order = order if shuffle else "key"
        self._seed = seed
        self._decode = Decode(decode) if callable(decode) else decode
        self._replaces = on_bad == "substitute"
        self._prefetch_bytes_max = prefetch_bytes_max
        self._next = (0, 0)  # epoch, and samples of it consumed before the next iteration
        self._now = (0, 0)  # the same of the latest iteration, as far as it has come
        self._ahead = dataset.ahead()
        self._account = Account(0)
        self.bad: list[BadSample] = []

    def stats(self) -> EpochStats:
        """Where the time of the latest iteration went, as far as it has come; printed, it is one line. See docs/stats.md."""
        return self._account.stats()

    def __len__(self) -> int:
        """Batches of the next iteration: fewer than an epoch's after a resume in the middle of it."""
        return step_count(self._dataset.epoch_samples, self._share._replace(first=self._next[1]))

    def set_epoch(self, epoch: int) -> None:
        """Use the order of this epoch from the next iteration on; without it each iteration takes the next one.

        After `load_state_dict` the epoch of the state goes on where it was, any other begins anew.

        Raises:
            ValueError: no such epoch.
        """
        _between("epoch", epoch, 0, state.EPOCH_MAX)
        if epoch != self._next[0]:
            self._next = (epoch, 0)
        self._now = self._next

    def state_dict(self) -> dict[str, Any]:
        """Where the latest iteration stands: plain values, equal on all ranks after the same number of batches.

        A batch counts once it was handed out.
        """
        return state.to_state(self._position(*self._now))

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on behind a state, made with any world size, batch size and number of workers.

        Raises:
            StateError: it belongs to another dataset, order, seed or format.
        """
        self._next = self._now = state.from_state(saved, self._position(0, 0), self._dataset.epoch_samples)

    def __iter__(self) -> Iterator[Any]:
        return self._iterate(self.begin())

    def begin(self) -> Epoch:
        """Begin the next iteration, for whoever reads it in another way: steps that it says were given out are consumed."""
        (epoch, first), self._next = self._next, (self._next[0] + 1, 0)
        self._stands(epoch, first)
        self.bad = []
        share = self._share._replace(first=first)
        reading = Reading(self._order, self._seed, epoch, share, self._prefetch_bytes_max)
        return Epoch(self._dataset, reading, self._ahead, self._stands)

    def _stands(self, epoch: int, consumed: int) -> None:
        self._now = (epoch, consumed)

    def _position(self, epoch: int, consumed: int) -> state.Position:
        return state.Position(self._dataset.digest, self._order, self._seed, epoch, consumed)

    def _iterate(self, epoch: Epoch) -> Iterator[Any]:
        draw = epoch.draw if self._replaces else None
        work = Work(self._dataset, self._decode.function if self._decode else None, draw)
        account = self._account = Account(epoch.number)
        is_whole = False
        try:
            with epoch:
                batches = _decoded(epoch, work, self._decode, account) if self._decode else _read(epoch, work, account)
                with contextlib.closing(batches):
                    for step, (batch, bad) in enumerate(batches):
                        self.bad += bad
                        epoch.gave(step)
                        account.gave(len(batch))
                        yield batch
                        account.took()
            is_whole = True
        finally:
            account.end(is_whole=is_whole)


def _read(epoch: Epoch, work: Work, account: Account) -> Generator[tuple[Any, list[BadSample]]]:
    for step in epoch.steps:
        batch, bad = work.read(epoch.indices(step))
        account.read(batch.sizes)
        yield batch, bad


def _decoded(epoch: Epoch, work: Work, how: Decode, account: Account) -> Generator[tuple[Any, list[BadSample]]]:
    """Batches decoded by a crew, a few ahead."""
    with account.decoding():
        crew = Crew(_hand(work, how), how.workers, work, how.seconds_max)
    waiting: deque[Pending] = deque()
    todo = iter(epoch.steps)
    try:
        while True:
            for step in itertools.islice(todo, BATCHES_AHEAD - len(waiting)):
                waiting.append(_submit(crew, work, how, epoch.indices(step)))
                if (batch := waiting[-1].batch) is not None:
                    account.read(batch.sizes)
            if not waiting:
                return
            pending = waiting.popleft()
            yield crew.wait(pending, account), pending.bad
    finally:
        for pending in waiting:
            pending.failed(GeneratorExit())
        with account.decoding():
            crew.close()


def _hand(work: Work, how: Decode) -> Callable[[], Hand]:
    if how.in_threads:
        return lambda: ThreadHand(work)
    from swingby.data.workers import ProcessHand

    return lambda: ProcessHand(work, how.seconds_max)


def _submit(crew: Crew, work: Work, how: Decode, indices: NDArray[np.int64]) -> Pending:
    if how.in_threads:
        batch, bad = work.read(indices)
        pending = Pending(batch, len(batch))
        pending.bad += bad
        parts: list[Part] = [[(position, index)] for position, index in enumerate(batch.indices.tolist())]
    else:
        pending = Pending(None, len(indices))
        whole = list(enumerate(indices.tolist()))
        size = -(-len(whole) // how.workers) or 1
        parts = [whole[start : start + size] for start in range(0, len(whole), size)]
    crew.submit(pending, parts)
    return pending


def _between(name: str, value: int, least: int, most: int = (1 << 63) - 1) -> None:
    if isinstance(value, bool) or not hasattr(value, "__index__") or not least <= value <= most:
        raise ValueError(f"{name}={value!r}: it is an integer from {least} to {most}")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: it is one of {', '.join(allowed)}")
