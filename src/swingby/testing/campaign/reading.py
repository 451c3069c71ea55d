"""What a user's process does, at random, and every byte it gets compared with the truth."""

from __future__ import annotations

import contextlib
import random
import time
from typing import TYPE_CHECKING, cast

import numpy as np

import swingby
from swingby.errors import (
    FormatError,
    KeeperError,
    LevelError,
    ManifestNotFoundError,
    ObjectChangedError,
    ObjectNotFoundError,
)
from swingby.keeper.protocol import Evict, Selection, Verify, Warm

if TYPE_CHECKING:
    from collections.abc import Generator

    from swingby.data.dataset import Batch, Dataset
    from swingby.keeper.protocol import Message
    from swingby.testing.campaign.ground import Ground
    from swingby.testing.campaign.truth import Truth

BATCH_MAX = 48
EPOCH_BATCHES = 8
CHILD_SECONDS = 0.3
RANGE_BYTES_MAX = 3 << 20


class Reader:
    """Reads one directory in every way there is.

    Args:
        ground: with the keeper.
        truth: of the directory.
        rng: chooses.
        is_changing: whether objects may change under the reader; then ObjectChangedError is an answer too.
    """

    def __init__(self, ground: Ground, truth: Truth, rng: random.Random, *, is_changing: bool = False) -> None:
        self._ground = ground
        self._truth = truth
        self._rng = rng
        self._is_changing = is_changing
        self._dataset: Dataset | None = None
        self._is_fresh = False  # nothing has changed since the dataset was listed

    @property
    def dataset(self) -> Dataset:
        """The dataset, opened at first use."""
        if self._dataset is None:
            self.open("auto")
        assert self._dataset is not None  # it was opened
        return self._dataset

    def sibling(self, seed: int) -> Reader:
        """Another reader of the very same dataset, as a thread or forked child would be."""
        other = Reader(self._ground, self._truth, random.Random(seed), is_changing=self._is_changing)
        other._dataset, other._is_fresh = self.dataset, self._is_fresh
        return other

    def open(self, refresh: str) -> None:
        """Open the dataset again."""
        before, self._dataset = self._dataset, self._ground.open(self._truth.folder, refresh)
        if before is not None:
            before.close()
        self._is_fresh = refresh == "always" and not self._is_changing

    def act(self, seconds: float) -> None:
        """Do things at random for about so long."""
        end = time.monotonic() + seconds
        doings = [self.batch] * 6 + [self.packed, self.packed, self.one, self.part, self.epoch, self.again, self.sweep]
        doings += [self.warm, self.evict] if self._rng.random() < 0.3 else []
        while time.monotonic() < end:
            try:
                self._rng.choice(doings)()
            except (ObjectChangedError, ObjectNotFoundError):
                if self._is_fresh:
                    raise
                self.open("always")

    def live(self) -> None:
        """What a forked child does: read what it was born with, then as it likes."""
        self.batch()
        self.packed()
        self.act(CHILD_SECONDS)

    def check_all(self, refresh: str = "always", share: float = 1.0) -> None:
        """Open afresh and read every object, or a share of them, in a random order."""
        self.open(refresh)
        if refresh == "always":
            self._truth.check_keys(self.dataset.keys, self.dataset.sizes.tolist())
        count = len(self.dataset)
        order = np.array(self._rng.sample(range(count), max(1, int(count * share))))
        for start in range(0, len(order), BATCH_MAX):
            self.check(self.dataset.batch(order[start : start + BATCH_MAX]))

    def check(self, batch: Batch) -> None:
        """Compare a batch with the truth."""
        sizes = self.dataset.sizes[batch.indices].tolist()
        for key, size, view in zip(batch.keys, sizes, batch.views, strict=True):
            self._truth.check(key, size, view)

    def batch(self) -> None:
        """Some objects."""
        self.check(self.dataset.batch(self._some(self._rng.randint(1, BATCH_MAX))))

    def packed(self) -> None:
        """Some objects, copied one after another: often enough to need recycled memory."""
        batch = self.dataset.batch(self._some(self._rng.randint(1, 2 * BATCH_MAX)))
        data, offsets = batch.packed()
        bounds = zip(batch.keys, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
        for key, start, stop in bounds:
            self._truth.check(key, stop - start, data[start:stop])

    def one(self) -> None:
        """One object by index."""
        index = self._rng.randrange(len(self.dataset))
        sample = self.dataset[index]
        self._truth.check(sample.key, int(self.dataset.sizes[index]), sample.data)

    def part(self) -> None:
        """A part of an object by URL. Only where nothing changes is it known which revision that is."""
        if self._is_changing:
            return
        key = self._rng.choice(list(self._truth.sizes))
        start = self._rng.randrange(self._truth.sizes[key] + 1)
        stop = start + self._rng.randrange(RANGE_BYTES_MAX)
        data = swingby.read(f"{self._truth.folder}/{key}", start, stop, settings=self._ground.settings)
        self._truth.check_part(key, start, stop, data)

    def epoch(self) -> None:
        """The beginning of an epoch, with a plan at the keeper."""
        loader = swingby.Loader(self.dataset, batch_size=16, shuffle=True, seed=self._rng.randrange(1000))
        with contextlib.closing(cast("Generator[Batch]", iter(loader))) as batches:
            for _, batch in zip(range(EPOCH_BATCHES), batches, strict=False):
                self.check(batch)

    def sweep(self) -> None:
        """A run of objects in key order."""
        start = self._rng.randrange(len(self.dataset))
        self.check(self.dataset.batch(np.arange(start, min(len(self.dataset), start + 3 * BATCH_MAX))))

    def again(self) -> None:
        """Open the dataset again, one way or another."""
        with contextlib.suppress(ManifestNotFoundError):
            self.open(self._rng.choice(["auto", "always", "never"]))

    def warm(self) -> None:
        """Have everything fetched, perhaps pinned while this connection lives."""
        self._ask(Warm(self.dataset.manifest, Selection(), pin=self._rng.random() < 0.5))

    def evict(self) -> None:
        """Have everything evicted or verified."""
        self._ask(Verify() if self._rng.random() < 0.3 else Evict())

    def _ask(self, message: Message) -> None:
        """An operator's request may fail where the keeper is killed, or its disk dies, under it; a pin may be refused."""
        with contextlib.suppress(KeeperError, FormatError, LevelError, ConnectionError):
            self._ground.ask(message)

    def _some(self, count: int) -> list[int]:
        return [self._rng.randrange(len(self.dataset)) for _ in range(count)]
