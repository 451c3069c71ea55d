"""The iterable dataset: every process reads a share of one order, exact for any number of ranks and workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.utils.data

from swingby.data.loader import Loader
from swingby.torch.dataset import Dataset
from swingby.torch.ranks import own_rank

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    import swingby

READ_TOGETHER = 64


class IterableDataset(torch.utils.data.IterableDataset[Any]):
    """The objects under a URL in a seeded order, shared out among ranks and DataLoader's workers: each is given once.

    Shares differ by one sample at most. They are cut from the order in pieces of 64, so the sequence in which a DataLoader hands
    samples out depends on the number of its workers; which samples an epoch has does not. For an exact sequence and position use
    `swingby.torch.DataLoader` with `swingby.torch.Dataset`.

    Args:
        source: a URL, opened by `swingby.open`, or what that returned; or a `swingby.Mixture`.
        transform: as of `Dataset`.
        shuffle: by (seed, epoch, dataset); else in key order.
        order: of a shuffle, as of `swingby.Loader`.
        seed: of the order.
        rank, world_size: of this process; None: as torch.distributed says where it is initialised, else alone.
        prefetch_bytes_max: how far the keeper reads ahead for all workers of this process.
        open_arguments: of `swingby.open`.

    Raises:
        SwingbyError: as `swingby.open`.
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | swingby.Dataset | swingby.Mixture,
        transform: Callable[[swingby.Sample], Any] | None = None,
        *,
        shuffle: bool = False,
        order: str = "global",
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        prefetch_bytes_max: int = 512 << 20,
        **open_arguments: Any,
    ) -> None:
        self._objects = Dataset(source, transform, **open_arguments)
        self._options: dict[str, Any] = {"shuffle": shuffle, "order": order, "seed": seed}
        self._prefetch_bytes_max = prefetch_bytes_max
        self._rank = own_rank(rank, world_size)
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # workers that persist see it change
        self._loader(0, 1)  # refuses what makes no sense here, not in a worker

    @property
    def source(self) -> swingby.Dataset | swingby.Mixture:
        """The `swingby.Dataset` or `Mixture`."""
        return self._objects.source

    @property
    def epoch(self) -> int:
        """Of the next iteration."""
        return int(self._epoch[0])

    def set_epoch(self, epoch: int) -> None:
        """Use the order of this epoch from the next iteration on, in workers too. Without it every iteration has the same order."""
        self._epoch[0] = epoch

    def __iter__(self) -> Iterator[Any]:
        """The samples of this rank and worker."""
        info = torch.utils.data.get_worker_info()
        loader = self._loader(info.id, info.num_workers) if info else self._loader(0, 1)
        loader.set_epoch(self.epoch)
        with loader.begin() as epoch:
            for step in epoch.steps:
                yield from self._objects.__getitems__(epoch.indices(step).tolist())
                epoch.gave(step)

    def _loader(self, worker: int, workers: int) -> Loader:
        rank, world_size = self._rank
        return Loader(
            self.source,
            batch_size=READ_TOGETHER,
            rank=rank * workers + worker,
            world_size=world_size * workers,
            prefetch_bytes_max=self._prefetch_bytes_max // workers,
            **self._options,
        )
