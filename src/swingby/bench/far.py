"""Small objects from a base 50 ms away, beside what people use there."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import swingby
from swingby import config
from swingby.bench import data, delay_line
from swingby.bench.context import Context, keeper, pin, pinned
from swingby.bench.figures import Figure
from swingby.testing import ceph as ceph_s3

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swingby.bench.context import Keeper

BUCKET = "swingby-bench"
SIZE = 16 << 10
DELAY_SECONDS = 0.05
BATCH = 64
SERVER_CORE, CLIENT_CORE = 0, 1
PEER_SECONDS_MAX = 300.0


class Peer(NamedTuple):
    """What runs beside ours.

    Attributes:
        name: for the report.
        module: of `swingby.bench.peers`.
        width: workers, or requests in flight.
        objects: how many it reads; its rate does not depend on it.
    """

    name: str
    module: str
    width: int
    objects: int


def run(context: Context) -> Iterator[Figure]:
    """The line checks itself, then ours and the peers in turn."""
    count = context.size(4096, 96)
    peers = [
        Peer("DataLoader, 2 workers, boto3", "dataloader_boto3", 2, context.size(512, 16)),
        Peer("DataLoader, 32 workers, boto3", "dataloader_boto3", context.size(32, 4), count),
        Peer("s3fs async, 256 in flight", "s3fs_async", 256, count),
    ]
    line = delay_line.check(DELAY_SECONDS, context.size(512, 64))
    yield Figure("far", "delay line: added to a round trip", line["added_seconds"], "s", at_least=0.049, at_most=0.06)
    yield Figure("far", "delay line: bandwidth over undelayed", line["bandwidth_ratio"], "×", at_least=0.9)
    with ceph_s3.running() as ceph, delay_line.running(ceph.endpoint, DELAY_SECONDS) as (endpoint, process):
        url = data.make_objects(ceph, BUCKET, "far", SIZE, count)
        for server in (*ceph.processes, process):
            pin(server, SERVER_CORE)
        settings = ceph.settings() | {"s3.endpoint": endpoint, "burst.budget_bytes": 0}
        rates: dict[str, list[float]] = {"ours": []}
        missing: dict[str, str] = {}
        with pinned(CLIENT_CORE), keeper(settings) as ours:
            for number in range(context.repetitions):
                rates["ours"].append(_ours(ours, url, number))
                for peer in peers:
                    rate = _theirs(peer, endpoint)
                    if isinstance(rate, str):
                        missing[peer.name] = rate
                    else:
                        rates.setdefault(peer.name, []).append(rate)
    yield from _figures(rates, missing, peers)


def _ours(ours: Keeper, url: str, seed: int) -> float:
    """Objects a second of a cold epoch, after the dataset is open."""
    with swingby.open(url, settings=ours.settings) as dataset:
        ours.evict()
        started = time.perf_counter()
        batches = list(swingby.Loader(dataset, batch_size=BATCH, shuffle=True, seed=seed))
        seconds = time.perf_counter() - started
        expected = data.words(SIZE, len(dataset))
        for batch in batches:
            data.check(batch, expected)
        return len(dataset) / seconds


def _theirs(peer: Peer, endpoint: str) -> float | str:
    """Objects a second of a peer, or why there is no figure."""
    command = [sys.executable, "-m", f"swingby.bench.peers.{peer.module}", endpoint, BUCKET, "far"]
    command += [str(peer.objects), str(peer.width), str(SIZE)]
    environment = config.spawn_environment("") | {
        "AWS_ACCESS_KEY_ID": ceph_s3.ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": ceph_s3.SECRET_ACCESS_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=PEER_SECONDS_MAX, check=False
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["it failed"])[-1]
    found = json.loads(done.stdout)
    if found["right"] != peer.objects:
        return f"{peer.objects - found['right']} objects were wrong"
    return float(peer.objects / found["seconds"])


def _figures(rates: dict[str, list[float]], missing: dict[str, str], peers: list[Peer]) -> Iterator[Figure]:
    ours = statistics.median(rates["ours"])
    notes = {name: round(statistics.median(found), 1) for name, found in rates.items()} | missing
    slow, *quick = (peer.name for peer in peers)
    if slow in rates:
        ratio = ours / statistics.median(rates[slow])
        yield Figure("far", f"rate over {slow}", ratio, "×", at_least=30, samples=rates["ours"], notes=notes)
    best = max((statistics.median(rates[name]) for name in quick if name in rates), default=0.0)
    if best:
        yield Figure(
            "far", "rate over the best peer", ours / best, "×", at_least=1.2, samples=rates["ours"], notes=notes
        )
    if missing:
        yield Figure("far", "peers that gave no figure", len(missing), "", notes=missing)
