"""100,000 files of 4 to 16 KiB on a local disk, in random order, beside what people use for them."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import swingby
from swingby import config
from swingby.bench import data
from swingby.bench.context import Context, keeper
from swingby.bench.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from swingby.bench.context import Keeper
    from swingby.data.dataset import Dataset

BATCH = 64
WORKERS = 2
PEER_SECONDS_MAX = 600.0


class Peer(NamedTuple):
    """What runs beside ours: a module of `swingby.bench.peers`, over files or shards, with so many workers."""

    name: str
    module: str
    over_shards: bool
    workers: int


PEERS = [
    Peer("DataLoader over files, 2 workers", "dataloader_files", over_shards=False, workers=2),
    Peer("WebDataset in sequence, 0 workers", "webdataset_shards", over_shards=True, workers=0),
    Peer("WebDataset in sequence, 2 workers", "webdataset_shards", over_shards=True, workers=2),
]


def run(context: Context) -> Iterator[Figure]:
    """Ours cold and warm, with 0 and 2 workers, and the peers over files in the page cache, in turn."""
    count = context.size(100_000, 600)
    files, shards = data.make_small_files(context, count)
    rates: dict[str, list[float]] = {}
    with (
        keeper({"memory.budget_bytes": 3 << 30}) as ours,
        swingby.open(files, settings=ours.settings) as dataset,
    ):
        _check(dataset)
        for number in range(context.repetitions):
            for name, seconds in _ours(ours, dataset, number).items():
                rates.setdefault(name, []).append(count / seconds)
            for peer in PEERS:
                rates.setdefault(peer.name, []).append(
                    count / _theirs(peer, shards if peer.over_shards else files, count)
                )
    yield from _figures({name: statistics.median(found) for name, found in rates.items()})


def _check(dataset: Dataset) -> None:
    """An epoch whose every byte is looked at; it also brings the files into the page cache."""
    for batch in swingby.Loader(dataset, batch_size=BATCH):
        for key, view in zip(batch.keys, batch.views, strict=True):
            if not data.is_small_record(key, view):
                raise AssertionError(f"{key} is not what was written")


def _ours(ours: Keeper, dataset: Dataset, seed: int) -> dict[str, float]:
    """Seconds of a cold epoch, of the next, and of warm ones; every byte is copied, as the peers do."""
    import torch

    import swingby.torch

    ours.evict()
    loader = swingby.Loader(dataset, batch_size=BATCH, shuffle=True, seed=seed)
    cold, second, warm = [_seconds(loader, lambda batch: len(batch.packed()[0]), dataset) for _ in range(3)]
    workers = swingby.torch.DataLoader(
        swingby.torch.Dataset(dataset),
        BATCH,
        shuffle=True,
        seed=seed,
        num_workers=WORKERS,
        collate_fn=list,
        prefetch_factor=4,
    )
    with_workers = _seconds(workers, lambda batch: sum(map(torch.Tensor.numel, batch)), dataset)
    return {"cold, 0 workers": cold, "second, 0 workers": second, "0 workers": warm, "2 workers": with_workers}


def _seconds(batches: Iterable[Any], size: Callable[[Any], int], dataset: Dataset) -> float:
    started = time.perf_counter()
    total = sum(map(size, batches))
    seconds = time.perf_counter() - started
    if total != int(dataset.sizes.sum()):
        raise AssertionError("not everything was read")
    return seconds


def _theirs(peer: Peer, folder: str, count: int) -> float:
    command = [sys.executable, "-m", f"swingby.bench.peers.{peer.module}", folder, str(peer.workers)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, env=config.spawn_environment(""), timeout=PEER_SECONDS_MAX, check=True
    )
    found = json.loads(done.stdout)
    if found["right"] != count:
        raise AssertionError(f"{peer.name}: {count - found['right']} files were wrong")
    return float(found["seconds"])


def _figures(rates: dict[str, float]) -> Iterator[Figure]:
    stock = rates["DataLoader over files, 2 workers"]
    sequence = max(rate for name, rate in rates.items() if name.startswith("WebDataset"))
    notes = {f"{name}: files a second": round(rate) for name, rate in rates.items()}
    for name in ("0 workers", "2 workers"):
        yield Figure("files", f"{name}: rate over DataLoader's", rates[name] / stock, "×", at_least=5, notes=notes)
        yield Figure("files", f"{name}: rate over WebDataset's", rates[name] / sequence, "×", at_least=1)
        notes = {}
    yield Figure("files", "first epoch, 0 workers: rate over DataLoader's", rates["cold, 0 workers"] / stock, "×")
    yield Figure("files", "second epoch, 0 workers: rate over DataLoader's", rates["second, 0 workers"] / stock, "×")
