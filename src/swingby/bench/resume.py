"""Going on in the middle of an epoch of ten million samples: how long it takes, and that nothing is lost or repeated.

The manifest has ten million rows of files of one size and time; of the files, those exist that are read. So the snapshot is the
same whatever is read of it, and every read is a real one.
"""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np

import swingby
from swingby import assemble
from swingby.bench.context import Context, Keeper, keeper
from swingby.bench.figures import Figure
from swingby.core.manifest.build import build
from swingby.core.object import Page, versions_of_mtimes
from swingby.core.segment import Origin
from swingby.core.url import parse
from swingby.keeper.manifests import ManifestStore
from swingby.keeper.place import place_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

ROWS, ROWS_TOY = 10_000_000, 30_000
PAGE = 5000
SIZE = 4096
MTIME_NS = 1_700_000_000_000_000_000
BATCH = 256
BATCHES_READ, BATCHES_REAL = 64, 72  # the keeper is that much ahead of the last one at most
AHEAD_BYTES = BATCH * SIZE
FIRST_SECONDS_MAX = 0.1
ORDER_SECONDS_MAX = 2e-7  # a sample
ORDER_STEPS = 4000
SEED = 3

Source = swingby.Dataset | swingby.Mixture


def run(context: Context) -> Iterator[Figure]:
    """One dataset, the same in order of segments, and a mixture."""
    count = context.size(ROWS, ROWS_TOY)
    root = os.path.join(context.folder, f"resume-{count}")
    shutil.rmtree(root, ignore_errors=True)
    os.makedirs(root)
    with keeper({"memory.budget_bytes": 4 << 30}) as ours:
        digest = _save_manifest(ours, root, count)
        for name, order in (("one dataset", "global"), ("order by segments", "segments"), ("a mixture of 3", "global")):
            ground = Ground(ours, root, digest, order, is_mixture=name.startswith("a mixture"))
            ground.make_real()
            yield from _first_batch(context, ground, name)
            yield from _rate(context, ground, name)
            yield _order(context, ground, name)
        yield _whole(Ground(ours, root, digest, "global", is_mixture=False))
    shutil.rmtree(root)


class Ground:
    """What a figure is measured on.

    Args:
        ours: keeper.
        root: where the files are.
        digest: of the manifest.
        order: of the loader.
        is_mixture: of three times the dataset.

    Attributes:
        consumed: samples of the epoch before the resume.
    """

    def __init__(self, ours: Keeper, root: str, digest: str, order: str, *, is_mixture: bool) -> None:
        self.ours = ours
        self._root = root
        self._digest = digest
        self._order = order
        self._is_mixture = is_mixture
        with self.open() as source:
            self.consumed = source.epoch_samples // 2 + 17

    def open(self) -> Source:
        """The source, as a job that was restarted opens it."""
        one = swingby.open(self._root, manifest=self._digest, settings=self.ours.settings)
        return swingby.Mixture([one] * 3, weights=[0.7, 0.2, 0.1], samples=len(one)) if self._is_mixture else one

    def resumed(self, source: Source, share: tuple[int, int, int] = (BATCH, 0, 1)) -> swingby.Loader:
        """A loader of (batch size, rank, world size) in the middle of epoch 2."""
        loader = swingby.Loader(
            source,
            batch_size=share[0],
            rank=share[1],
            world_size=share[2],
            shuffle=True,
            order=self._order,
            seed=SEED,
            prefetch_bytes_max=AHEAD_BYTES,
        )
        loader.load_state_dict(loader.state_dict() | {"epoch": 2, "consumed": self.consumed})
        return loader

    def steps(self, source: Source, count: int) -> list[NDArray[np.int64]]:
        """The indices of the first steps behind the resume."""
        epoch = self.resumed(source).begin()
        return [epoch.indices(step) for step in epoch.steps[:count]]

    def make_real(self) -> None:
        """Write the files that are read."""
        with self.open() as source:
            for index in np.concatenate(self.steps(source, BATCHES_REAL)).tolist():
                key = self.own_key(source.keys[index])
                path = os.path.join(self._root, key)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as file:
                    file.write(_bytes_of(key))
                os.utime(path, ns=(MTIME_NS, MTIME_NS))

    def own_key(self, key: str) -> str:
        """The key of a file."""
        return key.partition("/")[2] if self._is_mixture else key

    def check(self, batch: swingby.Batch) -> None:
        """Compare what was read with what was written."""
        for sample in batch:
            if sample.data != _bytes_of(self.own_key(sample.key)):
                raise AssertionError(f"{sample.key} is not what was written")


def _save_manifest(ours: Keeper, root: str, count: int) -> str:
    location = assemble.locate(parse(root), ours.settings, folder=True)
    base, _ = assemble.make_base(location, ours.settings, assemble.Hooks())
    store = ManifestStore(os.path.join(place_of(ours.settings).state, "manifests"), 8)
    with store.writing() as sink:
        return store.save(build(Origin(base.id, ""), location.path, _pages(location.path, count), sink), 0.0).digest


def _pages(prefix: bytes, count: int) -> Iterator[Page]:
    for start in range(0, count, PAGE):
        numbers = range(start, min(count, start + PAGE))
        keys = [prefix + b"class%05d/img_%08d" % (number // 1000, number) for number in numbers]
        yield Page(keys, np.full(len(keys), SIZE, np.uint64), versions_of_mtimes([MTIME_NS] * len(keys)))


def _bytes_of(key: str) -> bytes:
    return (key.encode() * SIZE)[:SIZE]


def _first_batch(context: Context, ground: Ground, name: str) -> Iterator[Figure]:
    """Restarted jobs, cold, in turn with plain reads of the same first batch."""
    beyond, opened, whole = [], [], []
    for _ in range(context.repetitions):
        ground.ours.evict()
        started = time.perf_counter()
        with ground.open() as source:
            opened.append(time.perf_counter() - started)
            (first,) = ground.steps(source, 1)
            started = time.perf_counter()
            source.batch(first).packed()
            reading = time.perf_counter() - started
        ground.ours.evict()
        with ground.open() as source:
            started = time.perf_counter()
            batch = next(iter(ground.resumed(source)))
            batch.packed()
            whole.append(time.perf_counter() - started)
            ground.check(batch)
            if not np.array_equal(batch.indices, first):
                raise AssertionError("two resumes differ")
        beyond.append(whole[-1] - reading)
    notes = {"opening": statistics.median(opened), "with reading": statistics.median(whole)}
    text = f"{name}: first batch after a resume, beyond reading it"
    yield Figure("resume", text, statistics.median(beyond), "s", at_most=FIRST_SECONDS_MAX, samples=beyond, notes=notes)


def _rate(context: Context, ground: Ground, name: str) -> Iterator[Figure]:
    """Warm batches behind the resume, in turn with plain reads of the same."""
    ratios, rates = [], []
    with ground.open() as source:
        steps = ground.steps(source, BATCHES_READ)
        for repetition in range(2 * context.repetitions + 1):
            started = time.perf_counter()
            for batch in itertools.islice(ground.resumed(source), BATCHES_READ):
                batch.packed()
            loaded = time.perf_counter() - started
            started = time.perf_counter()
            for indices in steps:
                source.batch(indices).packed()
            if repetition:  # the first one reads them from the base
                ratios.append((time.perf_counter() - started) / loaded)
                rates.append(sum(map(len, steps)) / loaded)
    value, notes = statistics.median(ratios), {"samples a second": statistics.median(rates)}
    yield Figure("resume", f"{name}: warm rate over plain reads", value, "×", samples=ratios, notes=notes)


def _order(context: Context, ground: Ground, name: str) -> Figure:
    """What the indices alone cost."""
    samples = []
    with ground.open() as source:
        for _ in range(context.repetitions):
            epoch = ground.resumed(source).begin()
            count = 0
            started = time.perf_counter()
            for step in epoch.steps[: context.size(ORDER_STEPS, 20)]:
                count += len(epoch.indices(step))
            samples.append((time.perf_counter() - started) / count)
    text = f"{name}: indices, a sample"
    promise = ORDER_SECONDS_MAX if not context.is_toy else None
    return Figure("resume", text, statistics.median(samples), "s", at_most=promise, samples=samples)


def _whole(ground: Ground) -> Figure:
    """An epoch begun by 4 ranks and ended by 3 with other batches: samples that are not given exactly once."""
    with ground.open() as source:
        seen = np.zeros(len(source), np.uint8)
        total = source.epoch_samples
        steps = total // 2 // (4 * 250)
        for world, batch_size, consumed, stop in ((4, 250, 0, steps), (3, 256, steps * 4 * 250, total)):
            ground.consumed = consumed
            for rank in range(world):
                epoch = ground.resumed(source, (batch_size, rank, world)).begin()
                for step in epoch.steps[:stop]:
                    seen[epoch.indices(step)] += 1
        wrong = int((seen != 1).sum())
    return Figure("resume", f"lost or repeated of {total}, by a resume in another world", wrong, "", at_most=0)
