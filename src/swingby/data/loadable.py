"""What a loader loads: a dataset, or a mixture of several."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from swingby.core.epoch import Order
    from swingby.core.order import Share
    from swingby.data.dataset import Batch, Sample
    from swingby.data.epoch import Steps


class Reading(NamedTuple):
    """What of it one rank reads in one epoch.

    Attributes:
        order, seed, epoch: that the order is drawn from.
        share: of the rank.
        ahead_bytes_max: how far it is read ahead.
    """

    order: str
    seed: int
    epoch: int
    share: Share
    ahead_bytes_max: int


class ReadAhead(Protocol):
    """What the keepers are told of a loader's reads to come. Reads are right without it: it never raises because of a keeper."""

    def begin(self, reading: Reading, steps: Steps) -> int:
        """An epoch begins in place of the last one; what it is called in `advance`."""
        ...

    def advance(self, plan: int, mark: int, *, at_once: bool = False) -> None:
        """Steps below `mark` are consumed; the keepers are told now and then."""
        ...


class Loadable(Protocol):
    """See the module's text. Samples are told apart by index, from 0 on. Threads: any; it is pickled for other processes."""

    @property
    def digest(self) -> str:
        """What names it; the same digest, the same samples in the same order."""
        ...

    @property
    def epoch_samples(self) -> int:
        """Samples of an epoch."""
        ...

    @property
    def keys(self) -> Sequence[str]:
        """The keys of all samples."""
        ...

    def order(self, kind: str, seed: int, epoch: int) -> Order | None:
        """Which sample stands at each position of an epoch; None: that of the position's number."""
        ...

    def batch(self, indices: ArrayLike) -> Batch:
        """Several samples.

        Raises:
            SwingbyError: the first that cannot be read.
        """
        ...

    def __getitem__(self, index: int) -> Sample:
        """One sample."""
        ...

    def alike(self, index: int) -> range:
        """Indices of the samples that may stand for one that is bad, itself among them."""
        ...

    def ahead(self) -> ReadAhead:
        """Read-ahead for one loader."""
        ...
