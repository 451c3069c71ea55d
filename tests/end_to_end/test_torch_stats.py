"""`swingby.torch.DataLoader.stats()`: the time of an epoch goes to what the training loop waited for, and all of it adds up."""

from __future__ import annotations

import logging
import pickle
import random
import time

import pytest

torch = pytest.importorskip("torch", reason="swingby.torch needs PyTorch")

from torch.utils.data import Subset, WeightedRandomSampler

import swingby
import swingby.torch
from swingby.data.account import Account, Span
from swingby.errors import StateError
from swingby.testing.faulty_base import Faults, FaultyBase
from swingby.testing.harness import inline
from swingby.testing.memory_base import MemoryBase
from swingby.torch.reports import READS, Awaited, Handed, Reporting

COUNT, SIZE, BATCH = 64, 10_000, 8
STEPS = COUNT // BATCH
PARTS = ("base", "level", "decode", "transfer", "compute")
REPORT_SECONDS_MAX = 20e-6


@pytest.fixture
def slow():
    rng = random.Random(0)
    return FaultyBase(MemoryBase({b"data/%03d" % n: rng.randbytes(SIZE) for n in range(COUNT)}), Faults())


@pytest.fixture
def dataset(home, slow):
    with (
        inline(home, base=slow, settings={"fetch.inflight_count_max": 4}) as found,
        swingby.open("memory://x/data", settings=found.settings) as one,
    ):
        yield one


def run(loader, seconds=0.0, counts=(STEPS, COUNT, COUNT * SIZE)):
    """One epoch with a consumer that takes so long a step; its figures."""
    began = time.perf_counter()
    for _ in loader:
        time.sleep(seconds)
    wall = time.perf_counter() - began
    stats = loader.stats()
    assert stats.seconds == pytest.approx(sum(getattr(stats, f"{part}_seconds") for part in PARTS), rel=1e-6)
    assert stats.seconds == pytest.approx(wall, rel=0.01, abs=0.02)
    assert (stats.steps, stats.samples, stats.bytes) == counts
    assert stats.transfer_seconds == 0.0  # there is no accelerator, or nothing is pinned
    return stats


def has(stats, part, share=0.65):
    found = {one: getattr(stats, f"{one}_seconds") / stats.seconds for one in PARTS}
    assert found[part] >= share, (found, str(stats))


def quick(sample):
    return len(sample.data)


def sleepy(sample):
    time.sleep(0.01)
    return len(sample.data)


@pytest.mark.parametrize("transform", [None, quick])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_slow_base_is_what_is_waited_for(dataset, slow, transform, workers):
    slow.faults = Faults(latency_seconds=0.4 if transform and workers else 0.1)  # much slower than workers start
    objects = swingby.torch.Dataset(dataset, transform)
    loader = swingby.torch.DataLoader(objects, BATCH, num_workers=workers, prefetch_bytes_max=0)
    stats = run(loader)
    has(stats, "base")
    assert stats.base_bytes == COUNT * SIZE
    assert stats.hit_ratio == 0.0


@pytest.mark.parametrize("workers", [0, 2])
def test_a_slow_transform_is_what_is_waited_for(dataset, workers):
    dataset.batch(range(COUNT))
    stats = run(swingby.torch.DataLoader(swingby.torch.Dataset(dataset, sleepy), BATCH, num_workers=workers))
    has(stats, "decode")
    if not workers:  # a worker process of an inline keeper asks it for what is there
        assert stats.base_bytes == 0


@pytest.mark.parametrize("transform", [None, quick])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_slow_consumer_waits_for_itself(dataset, transform, workers):
    dataset.batch(range(COUNT))
    objects = swingby.torch.Dataset(dataset, transform)
    has(
        run(swingby.torch.DataLoader(objects, BATCH, num_workers=workers), 0.3 if transform and workers else 0.1),
        "compute",
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_a_base_and_a_transform_that_are_slow_get_their_shares(dataset, slow, workers):
    slow.faults = Faults(latency_seconds=0.04)  # 2 × a batch, four at once; the transform takes as long
    objects = swingby.torch.Dataset(dataset, sleepy)
    stats = run(swingby.torch.DataLoader(objects, BATCH, num_workers=workers, prefetch_bytes_max=0))
    assert 0.2 < stats.base_seconds / stats.wait_seconds < 0.8, str(stats)
    assert 0.2 < stats.decode_seconds / stats.wait_seconds < 0.8, str(stats)  # a worker's start is in it


@pytest.mark.parametrize("transform", [None, quick])
@pytest.mark.parametrize("workers", [0, 2])
def test_samplers_and_subsets_of_others_are_accounted_alike(dataset, slow, transform, workers):
    slow.faults = Faults(latency_seconds=0.4)  # much slower than workers start
    part = Subset(swingby.torch.Dataset(dataset, transform), range(0, COUNT, 2))
    sampler = WeightedRandomSampler([1.0] * (COUNT // 2), COUNT // 2, replacement=False)
    loader = swingby.torch.DataLoader(part, BATCH, sampler=sampler, num_workers=workers, prefetch_bytes_max=0)
    has(run(loader, counts=(STEPS // 2, COUNT // 2, COUNT // 2 * SIZE)), "base")
    assert loader.stats().epoch == 0
    loader.set_epoch(5)
    run(loader, counts=(STEPS // 2, COUNT // 2, COUNT // 2 * SIZE))
    assert loader.stats().epoch == 5


@pytest.mark.parametrize("workers", [0, 1])
def test_samples_one_by_one_and_streams_are_accounted_too(dataset, slow, workers):
    slow.faults = Faults(latency_seconds=0.05)
    loader = swingby.torch.DataLoader(
        swingby.torch.Dataset(dataset, quick), None, num_workers=workers, prefetch_bytes_max=0
    )
    has(run(loader, counts=(COUNT, COUNT, COUNT * SIZE)), "base")
    dataset.batch(range(COUNT))
    stream = swingby.torch.IterableDataset(dataset, sleepy, prefetch_bytes_max=0)
    has(run(swingby.torch.DataLoader(stream, BATCH, num_workers=workers)), "decode")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_collate_function_of_the_users_stays_what_it_is(dataset, workers):
    def collate(samples):
        time.sleep(0.05)
        return {"sizes": samples}

    dataset.batch(range(COUNT))
    loader = swingby.torch.DataLoader(
        swingby.torch.Dataset(dataset, quick), BATCH, collate_fn=collate, num_workers=workers
    )
    assert loader.collate_fn is collate
    assert list(loader) == [{"sizes": [SIZE] * BATCH}] * STEPS
    assert loader.collate_fn is collate
    has(run(loader), "decode")


def test_what_a_transform_reads_besides_is_a_read(dataset, slow):
    slow.faults = Faults(latency_seconds=0.05)
    masks = swingby.torch.Dataset(dataset)
    objects = swingby.torch.Dataset(dataset, lambda sample: len(masks[(int(sample.key) + 32) % COUNT]))
    stats = run(swingby.torch.DataLoader(objects, BATCH, prefetch_bytes_max=0), counts=(STEPS, COUNT, 2 * COUNT * SIZE))
    has(stats, "base")


def test_what_the_caller_reads_between_batches_is_the_callers(dataset, slow):
    objects = swingby.torch.Dataset(dataset, quick)
    dataset.batch(range(COUNT // 2))
    slow.faults = Faults(latency_seconds=0.05)
    loader = swingby.torch.DataLoader(Subset(objects, range(COUNT // 2)), BATCH, prefetch_bytes_max=0)
    for number, _ in enumerate(loader):
        objects.__getitems__([COUNT // 2 + number])
    stats = loader.stats()
    assert (stats.bytes, stats.base_bytes) == (COUNT // 2 * SIZE, 0)
    has(stats, "compute")


def test_what_is_done_before_the_first_batch_is_asked_for_is_the_callers(dataset):
    dataset.batch(range(COUNT))
    loader = swingby.torch.DataLoader(swingby.torch.Dataset(dataset), BATCH)
    batches = iter(loader)
    time.sleep(0.2)
    list(batches)
    assert loader.stats().compute_seconds >= 0.2


@pytest.mark.parametrize("persistent", [False, True])
def test_one_line_goes_to_the_log_at_the_end_of_a_whole_epoch(dataset, caplog, persistent):
    dataset.batch(range(COUNT))
    objects = swingby.torch.Dataset(dataset, quick if persistent else None)
    loader = swingby.torch.DataLoader(objects, BATCH, num_workers=2, persistent_workers=persistent)
    with caplog.at_level(logging.INFO, "swingby"):
        next(iter(loader))
        assert not [one for one in caplog.messages if "epoch" in one]
        run(loader)
        run(loader)
    lines = [one for one in caplog.messages if one.startswith("epoch ")]
    assert [line[:18] for line in lines] == ["epoch 1: 8 steps i", "epoch 2: 8 steps i"]
    assert lines[1] == str(loader.stats())


def test_in_the_middle_of_an_epoch_it_tells_how_far_it_is(dataset):
    loader = swingby.torch.DataLoader(swingby.torch.Dataset(dataset), BATCH)
    assert loader.stats().steps == 0
    for number, _ in enumerate(loader, 1):
        assert loader.stats()[1:4] == (number, number * BATCH, number * BATCH * SIZE)


def test_a_dataset_of_somebody_elses_has_no_figures():
    loader = swingby.torch.DataLoader(torch.arange(8), 4)
    assert len(list(loader)) == 2
    with pytest.raises(StateError, match=r"swingby\.torch\.Dataset"):
        loader.stats()


def test_copies_to_page_locked_memory_that_are_waited_for_are_transfers():
    account = Account(0, time.perf_counter())
    began = account.began

    def batches():
        time.sleep(0.1)
        read = Span(began, began + 0.02, 0.01, 7, 3)
        yield Handed("batch", 1, [], [read], Span(began + 0.02, began + 0.08, 0.0, 0, 0))

    for handed in Awaited(batches(), account, is_here=False, is_plain=True):
        account.gave(handed.samples)
        account.took()
    stats = account.stats()
    assert stats.transfer_seconds == pytest.approx(0.06, rel=0.1)
    assert stats.base_seconds == pytest.approx(0.01, rel=0.1)
    assert stats.decode_seconds == 0.0
    assert (stats.bytes, stats.base_bytes) == (7, 3)


def test_a_report_costs_little():
    """In a worker and on its way, of a batch that is read at once: at best, for the machine may be busy."""
    plain, reporting = (lambda samples: samples), Reporting(lambda samples: samples, is_single=False)
    samples = [1] * BATCH

    def seconds(collate):
        began = time.perf_counter()
        for _ in range(100):
            if collate is reporting:
                READS.spans.append(Span(1.5, 2.5, 0.5, SIZE, SIZE))
            pickle.loads(pickle.dumps(collate(samples)))
        return (time.perf_counter() - began) / 100

    least = min(seconds(reporting) - seconds(plain) for _ in range(20))
    print(f"{least * 1e6:.1f} µs a batch")
    assert least < REPORT_SECONDS_MAX
