"""Tars, cold in order and warm in random order, beside WebDataset's own sequential reading of the same tars."""

from __future__ import annotations

import json
import os
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
from swingby.core.checksum import word_of
from swingby.testing import ceph as ceph_s3

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swingby.bench.context import Keeper
    from swingby.data.dataset import Dataset

BUCKET = "swingby-bench"
SIZES = (128 << 10, 16 << 10)
WORKERS = (0, 2)
BATCH = 64
PEER_SECONDS_MAX = 300.0
SIGNED_SECONDS = 3600
BUDGET = {"memory.budget_bytes": 3 << 30}
COLD: dict[str, dict[str, Any]] = {"in order": {}, "by segments": {"shuffle": True, "order": "segments"}}


class Place(NamedTuple):
    """Where the tars lie.

    Attributes:
        name: for the report.
        url: for ours.
        shards: URLs or paths for WebDataset.
        settings: for ours.
    """

    name: str
    url: str
    shards: list[str]
    settings: dict[str, Any]


def run(context: Context) -> Iterator[Figure]:
    """Tars on this disk, and on a real Ceph where it is installed."""
    total = context.size(512 << 20, 8 << 20)
    sizes = SIZES[-1:] if context.is_toy else SIZES
    folders = {size: data.make_tars(context, size, total // size) for size in sizes}
    for size, folder in folders.items():
        yield from _measure(context, size, Place("disk", folder, _paths(folder), {}))
    if ceph_s3.missing():
        return
    with ceph_s3.running() as ceph:
        for size, folder in folders.items():
            url = data.upload(ceph, BUCKET, folder)
            yield from _measure(context, size, Place("Ceph", url, _signed(ceph, url, folder), ceph.settings()))


def _measure(context: Context, size: int, place: Place) -> Iterator[Figure]:
    rates: dict[str, list[float]] = {}
    missing: dict[str, str] = {}
    with (
        keeper(BUDGET | place.settings) as ours,
        swingby.open(place.url, layout="webdataset", settings=ours.settings) as dataset,
    ):
        started = time.perf_counter()
        with swingby.open(place.url, layout="tar", settings=ours.settings) as members:
            opened = time.perf_counter() - started
            yield from _cold_cost(ours, members, size, place)
        _check(dataset, size)
        for number in range(context.repetitions):
            for workers in WORKERS:
                rate = _theirs(workers, size, place.shards, len(dataset))
                if isinstance(rate, str):
                    missing[f"webdataset, {workers} workers"] = rate
                else:
                    rates.setdefault(f"webdataset, {workers} workers", []).append(rate)
            for name, how in COLD.items():
                ours.evict()
                rates.setdefault(f"cold {name}", []).append(_ours(dataset, number, how))
            _ours(dataset, number, {})
            rates.setdefault("warm at random", []).append(_ours(dataset, number, {"shuffle": True}))
    yield from _figures(f"{size >> 10} KiB, {place.name}", rates, missing, opened)


def _cold_cost(ours: Keeper, members: Dataset, size: int, place: Place) -> Iterator[Figure]:
    """Base bytes and requests of a cold epoch in order, every byte checked."""
    expected = data.words(size, len(members))
    ours.evict()
    before = _base(ours)
    for batch in swingby.Loader(members, batch_size=BATCH):
        for key, view in zip(batch.keys, batch.views, strict=True):
            _compare(key.rpartition("/")[2].partition(".")[0], word_of(view), expected)
    after = _base(ours)
    name = f"{size >> 10} KiB, {place.name}: cold epoch"
    read, requests = after["bytes"] - before["bytes"], after["requests"] - before["requests"]
    yield Figure("containers", f"{name}, base bytes over data", read / (len(members) * size), "×", at_most=1.05)
    yield Figure("containers", f"{name}, requests a sample", requests / len(members), "", at_most=0.1)


def _ours(dataset: Dataset, seed: int, how: dict[str, Any]) -> float:
    """Samples a second of an epoch, each batch copied out as WebDataset copies its samples."""
    started = time.perf_counter()
    for batch in swingby.Loader(dataset, batch_size=BATCH, seed=seed, **how):
        batch.packed()
    return len(dataset) / (time.perf_counter() - started)


def _check(dataset: Dataset, size: int) -> None:
    """Every byte of every sample's part."""
    expected = data.words(size, len(dataset))
    for batch in swingby.Loader(dataset, batch_size=BATCH, shuffle=True):
        for sample in batch:
            _compare(sample.parts["__key__"], word_of(sample.parts["bin"]), expected)


def _compare(number: str, word: int, expected: list[int]) -> None:
    if expected[int(number)] != word:
        raise AssertionError(f"sample {number} is not what was written")


def _theirs(workers: int, size: int, shards: list[str], count: int) -> float | str:
    """Samples a second of WebDataset, or why there is no figure."""
    command = [sys.executable, "-m", "swingby.bench.peers.webdataset_tars", str(workers), str(size), *shards]
    environment = config.spawn_environment("")
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=PEER_SECONDS_MAX, check=False
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["it failed"])[-1]
    found = json.loads(done.stdout.splitlines()[-1])
    if found["right"] != count:
        return f"{count - found['right']} samples were wrong"
    return float(count / found["seconds"])


def _figures(name: str, rates: dict[str, list[float]], missing: dict[str, str], opened: float) -> Iterator[Figure]:
    middle = {who: statistics.median(found) for who, found in rates.items()}
    notes = {who: round(rate, 1) for who, rate in middle.items()} | {"seconds to index": round(opened, 3)} | missing
    best = max((rate for who, rate in middle.items() if who.startswith("webdataset")), default=0.0)
    if best:
        for what in (*(f"cold {one}" for one in COLD), "warm at random"):
            least = None if what == "cold by segments" else 1.0
            ratio = middle[what] / best
            samples = [rate / best for rate in rates[what]]
            title = f"{name}: {what} over WebDataset in order"
            yield Figure("containers", title, ratio, "×", at_least=least, samples=samples, notes=notes)
    if missing:
        yield Figure("containers", f"{name}: peers that gave no figure", len(missing), "", notes=missing)


def _paths(folder: str) -> list[str]:
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder))]


def _signed(ceph: ceph_s3.CephS3, url: str, folder: str) -> list[str]:
    """URLs that anybody may read for a while: WebDataset gets them with curl, as any http URL."""
    import boto3

    s3 = config.load(ceph.settings()).s3
    client = boto3.client(
        "s3",
        endpoint_url=s3.endpoint,
        aws_access_key_id=s3.access_key_id,
        aws_secret_access_key=s3.secret_access_key,
        region_name=s3.region or "us-east-1",
    )
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return [
        client.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": f"{prefix}/{name}"}, ExpiresIn=SIGNED_SECONDS
        )
        for name in sorted(os.listdir(folder))
    ]


def _base(ours: Keeper) -> dict[str, int]:
    (found,) = ours.facts()["bases"].values()
    return dict(found)
