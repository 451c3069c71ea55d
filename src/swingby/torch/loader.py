"""`torch.utils.data.DataLoader` that knows what it will read: Swingby's order, its exact position, and reads ahead.

What PyTorch's own does stays PyTorch's: workers, collation, pinning, timeouts. Ours is which indices are handed out, what the
keeper is told of them, and that bytes nobody transforms are copied once, by threads.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.utils.data

from swingby.core.epoch import Draw
from swingby.data.account import Account
from swingby.data.loader import Loader
from swingby.errors import StateError
from swingby.torch.dataset import Dataset
from swingby.torch.gather import gathered
from swingby.torch.indices import Foreign, OwnOrder, Streamed
from swingby.torch.iterable import IterableDataset
from swingby.torch.plain import Plain
from swingby.torch.ranks import own_rank
from swingby.torch.reports import Awaited, Handed, Reporting
from swingby.torch.samples import stacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from swingby.data.account import EpochStats
    from swingby.data.work import BadSample
    from swingby.torch.indices import Indices


class DataLoader(torch.utils.data.DataLoader[Any]):
    """A DataLoader with Swingby's order, exact position and reading ahead.

    All arguments of `torch.utils.data.DataLoader` mean what they mean there. With a `swingby.torch.Dataset` and no sampler, the
    order is that of `swingby.Loader`: a function of (seed, epoch, dataset), shared out among ranks, the same for any number of
    workers, with `set_epoch`, `state_dict` and `load_state_dict`. Ranks keep step: if less than one sample a rank is left after a
    resume, those without one are given the first of it again. With a sampler of yours, also over a `torch.utils.data.Subset`, that
    sampler is asked early, so that the keeper reads ahead of it. Any other dataset is loaded as PyTorch does.

    A dataset without `transform`, and no `collate_fn` but `list`: `num_workers` are threads of this process, not processes.

    Args:
        dataset, batch_size, shuffle, sampler, batch_sampler: as PyTorch's.
        order: of a shuffle: "global" or "segments", see `swingby.Loader`.
        seed: of the order; without one that of a `generator` that is given, not PyTorch's own.
        rank, world_size: of this process; None: as torch.distributed says where it is initialised, else alone.
        on_bad: "raise", or "substitute": another sample stands for one that cannot be read or transformed; see `bad`.
        prefetch_bytes_max: how far the keeper reads ahead; 0: not, and no sampler is asked early.
        options: the others of PyTorch's, by name.

    Attributes:
        bad: samples of this epoch that were replaced, with the reason.

    Raises:
        ValueError: arguments that do not go together.
    """

    def __init__(
        self,
        dataset: torch.utils.data.Dataset[Any],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        *,
        order: str = "global",
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        on_bad: str = "raise",
        prefetch_bytes_max: int = 512 << 20,
        **options: Any,
    ) -> None:
        objects, where = _objects(dataset)
        is_own = dataset is objects and sampler is None and batch_sampler is None
        if rank is not None and not is_own:
            raise ValueError("rank and world_size share out Swingby's order; here something else says what is read")
        if is_own and not options.get("in_order", True):
            raise ValueError("in_order=False: batches out of order have no position; leave it out, or give a sampler")
        if on_bad == "substitute" and (batch_size is None or dataset is not objects):
            raise ValueError(
                "on_bad='substitute' needs batches of a swingby.torch.Dataset: no batch_size=None, no Subset"
            )
        self.bad: list[BadSample] = []
        self._objects, self._where = objects, where
        self._account = Account(0)
        self._course: Loader | None = None
        self._indices: Indices | None = None
        replaces = on_bad == "substitute"
        self._is_plain = objects is not None and objects.transform is None and options.get("collate_fn") in (None, list)
        if batch_size is not None and objects is not None:
            options["collate_fn"] = options.get("collate_fn") or stacked
        super().__init__(dataset, batch_size, shuffle, sampler, batch_sampler, **options)
        if isinstance(dataset, IterableDataset):
            self._indices = Streamed(super()._index_sampler, dataset)
        if objects is None:
            return
        ranks = own_rank(rank, world_size) if is_own else (0, 1)
        course = Loader(
            objects.source,
            batch_size=self.batch_size or 1,
            shuffle=bool(shuffle),
            order=order,
            seed=_seed(seed, options.get("generator")),
            rank=ranks[0],
            world_size=ranks[1],
            drop_last=self.drop_last,
            on_bad=on_bad,
            prefetch_bytes_max=prefetch_bytes_max,
        )
        if is_own:
            self._course = course
            self._indices = OwnOrder(course, is_single=batch_size is None, replaces=replaces)
        else:
            draw = Draw(seed, 0, objects.source.digest) if replaces else None
            self._indices = Foreign(super()._index_sampler, objects.source, where, draw, prefetch_bytes_max)

    @property
    def _index_sampler(self) -> Any:
        """PyTorch's iterators take their indices from here."""
        return super()._index_sampler if self._indices is None else self._indices

    def __iter__(self) -> Any:
        if self._indices is None:
            return super().__iter__()
        given = self._given(self._indices)
        next(given)  # workers start now, not when the first batch is asked for
        return given

    def set_epoch(self, epoch: int) -> None:
        """Use the order of this epoch from the next iteration on; without it each iteration takes the next one.

        With a sampler or an iterable dataset, theirs is called, where they have one.
        """
        if self._course:
            self._course.set_epoch(epoch)
            return
        if isinstance(self._indices, Foreign):
            self._indices.set_epoch(epoch)
        for one in (self.dataset, self.sampler, self.batch_sampler):
            set_epoch = getattr(one, "set_epoch", None)
            if set_epoch:
                set_epoch(epoch)

    def stats(self) -> EpochStats:
        """Where the time of the latest iteration went, as far as it has come; printed, it is one line. See docs/stats.md.

        Raises:
            StateError: a dataset that is not Swingby's is loaded, and nobody knows what its time goes to.
        """
        if self._indices is None:
            raise StateError(
                "what a dataset of somebody else's spends its time on is not known",
                remedy="Give a swingby.torch.Dataset, a Subset of one, or a swingby.torch.IterableDataset",
            )
        return self._account.stats()

    def state_dict(self) -> dict[str, Any]:
        """Where the latest iteration stands, as of `swingby.Loader`: batches that were given out count, those in workers do not.

        Raises:
            StateError: a sampler that is not ours says what is read.
        """
        return self._positioned().state_dict()

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on behind a state, made with any world size, batch size and number of workers.

        Raises:
            StateError: it belongs to another dataset, order, seed or format; or a sampler that is not ours says what is read.
        """
        self._positioned().load_state_dict(saved)

    def _positioned(self) -> Loader:
        if self._course is None:
            raise StateError(
                "the position in a sampler or dataset of somebody else's is not known",
                remedy="Give a swingby.torch.Dataset and no sampler; or keep the sampler's own state",
            )
        return self._course

    def _get_iterator(self) -> Any:
        """PyTorch's iterators are made here. Ours collate with a report; `collate_fn` stays what was given."""
        collate = self.collate_fn
        if self._indices is not None:
            self.collate_fn = Reporting(collate, is_single=not self._auto_collation)
        try:
            return super()._get_iterator()
        finally:
            self.collate_fn = collate

    def _given(self, indices: Indices) -> Iterator[Any]:
        self.bad = []
        if not all(worker.is_alive() for worker in getattr(self._iterator, "_workers", ())):
            self._iterator = None  # workers that were to persist, and did not
        began = time.perf_counter()
        with indices.begun() as gave:
            account = self._account = Account(indices.epoch, began)
            is_whole = False
            try:
                batches = self._awaited(account)
                account.gave(0, steps=0)
                yield None
                account.took()
                for number, handed in enumerate(batches):
                    gave(number)
                    self.bad += handed.bad
                    account.gave(handed.samples)
                    yield handed.batch
                    account.took()
                is_whole = True
            finally:
                account.end(is_whole=is_whole)

    def _awaited(self, account: Account) -> Awaited:
        """Batches from workers, that start now."""
        if self._gathers:
            return Awaited(self._gathered(), account, is_here=not self.num_workers, is_plain=True)
        with account.decoding():
            batches = super().__iter__()
        return Awaited(batches, account, is_here=not self.num_workers, is_plain=False)

    @property
    def _gathers(self) -> bool:
        """Whether workers would have nothing to do that is Python of the user's."""
        return (
            self._is_plain
            and self._auto_collation
            and self.worker_init_fn is None
            and self.multiprocessing_context is None
        )

    def _gathered(self) -> Iterator[Handed]:
        # PyTorch draws a number at every iteration; whatever is drawn behind it stays the same.
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        is_pinned = self.pin_memory and torch.accelerator.is_available()
        ahead = (self.prefetch_factor or 0) * self.num_workers
        assert self._objects is not None  # only bytes of ours are gathered
        gather = Plain(self._objects, self._where, self.collate_fn, is_pinned=is_pinned)
        return gathered(iter(self._index_sampler), gather, self.num_workers, ahead, self.timeout)


def _seed(seed: int, generator: torch.Generator | None) -> int:
    """The seed of the order: a generator's where none is given."""
    return seed if seed or generator is None else generator.initial_seed() % (1 << 63)


def _objects(
    dataset: torch.utils.data.Dataset[Any],
) -> tuple[Dataset | None, Callable[[NDArray[np.int64]], NDArray[np.int64]]]:
    """The dataset of ours that is read, and what turns indices of `dataset` into its."""
    if isinstance(dataset, torch.utils.data.Subset):
        objects, where = _objects(dataset.dataset)
        chosen = np.asarray(dataset.indices, np.int64)
        return objects, lambda indices: where(chosen[indices])
    return (dataset if isinstance(dataset, Dataset) else None), _itself


def _itself(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    return indices
