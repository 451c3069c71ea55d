"""Checks of a base, by listing and reading it as Swingby would, without levels."""

from __future__ import annotations

import itertools
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from swingby import assemble
from swingby.assemble import Hooks
from swingby.core.url import parse
from swingby.doors.cli.doctor.finding import Finding, State
from swingby.doors.cli.quantities import duration, number, objects, rate, size
from swingby.doors.cli.terminal import shown
from swingby.errors import EmptyDatasetError, SwingbyError
from swingby.keeper.bases import read_seconds
from swingby.levels.block_reader import BlockReader

if TYPE_CHECKING:
    from swingby.base.contract import Base
    from swingby.config import Settings

LIST_SECONDS_MAX = 2.0
LATENCY_READS = 9
SAMPLE_OBJECTS = 256
THROUGHPUT_SECONDS_MAX = 2.0
THROUGHPUT_BYTES_MAX = 256 << 20
THREADS = 32
PART_BYTES = 4 << 20
REQUEST_SECONDS_MAX = 10.0
DELAYED_SECONDS = (0.035, 0.06)  # what a delayed acknowledgement adds to a small answer on Linux: 40 ms


class Reach(NamedTuple):
    """What was measured of a base.

    Attributes:
        is_local: files of this machine, which a keeper may judge near.
        objects, bytes: listed.
        is_all: whether that is the whole dataset.
        latency_seconds: of one small read when nothing else goes on.
        far_seconds: of a small read past the page cache; None for remote bases.
        throughput: bytes a second, many at once.
    """

    is_local: bool
    objects: int
    bytes: int
    is_all: bool
    latency_seconds: float
    far_seconds: float | None
    throughput: float


class Listed(NamedTuple):
    """The beginning of a listing."""

    keys: list[bytes]
    sizes: list[int]
    seconds: float
    is_all: bool


def base(url: str, settings: Settings) -> tuple[list[Finding], Reach | None]:
    """Look at the base of a URL; None where it cannot be read."""
    try:
        location = assemble.locate(parse(url), settings, folder=True)
        opened = assemble.make_base(location, _impatient(settings), Hooks())[0]
    except SwingbyError as error:
        return [_problem("base", error)], None
    try:
        return _look(url, opened, location.path)
    finally:
        opened.close()


def _look(url: str, opened: Base, prefix: bytes) -> tuple[list[Finding], Reach | None]:
    findings: list[Finding] = []
    try:
        listed = _list(url, opened, prefix)
        total = sum(listed.sizes)
        some = "" if listed.is_all else "the first "
        text = f"{shown(url)}: {some}{objects(len(listed.keys))}, {size(total)}, listed in {duration(listed.seconds)}"
        findings.append(Finding("base", State.OK, text))
        latency = _latency(opened, listed)
        far = _past_cache(listed.keys) if opened.local else None
        findings.append(_judge_latency(opened, listed, latency, far))
        speed, read = _throughput(opened, listed)
        text = f"{rate(speed)} and {number(read)} objects a second with {THREADS} requests at once"
        findings.append(Finding("base throughput", State.OK, text))
    except SwingbyError as error:
        return [*findings, _problem("base", error)], None
    return findings, Reach(opened.local, len(listed.keys), total, listed.is_all, latency, far, speed)


def _impatient(settings: Settings) -> Settings:
    fetch = msgspec.structs.replace(settings.fetch, retry_count_max=0, request_seconds_max=REQUEST_SECONDS_MAX)
    return msgspec.structs.replace(settings, fetch=fetch)


def _problem(name: str, error: SwingbyError) -> Finding:
    return Finding(
        name, State.PROBLEM, shown(error.message), shown(error.remedy or "Check the URL and the credentials")
    )


def _list(url: str, opened: Base, prefix: bytes) -> Listed:
    started = time.monotonic()
    keys: list[bytes] = []
    sizes: list[int] = []
    for page in opened.list(prefix):
        keys += page.keys
        sizes += page.sizes.tolist()
        if time.monotonic() - started > LIST_SECONDS_MAX:
            return Listed(keys, sizes, time.monotonic() - started, is_all=False)
    if not keys:
        raise EmptyDatasetError(f"nothing lies under {shown(url)}", remedy="Check the prefix's spelling")
    return Listed(keys, sizes, time.monotonic() - started, is_all=True)


def _latency(opened: Base, listed: Listed) -> float:
    """Median of reads of 4 KiB, one after the other, of objects spread over the listing."""
    step = max(1, len(listed.keys) // LATENCY_READS)
    times = []
    for key in itertools.islice(listed.keys, 0, None, step):
        started = time.perf_counter()
        opened.read(key, 0, 4096)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:] or times)  # the first one opens the connection


def _past_cache(keys: list[bytes]) -> float | None:
    """The same past the page cache: what tells whether files lie nearer than the burst level."""
    step = max(1, len(keys) // LATENCY_READS)
    return read_seconds(BlockReader(direct=True), [os.fsdecode(b"/" + key) for key in keys[::step]])


def _judge_latency(opened: Base, listed: Listed, latency: float, far: float | None) -> Finding:
    text = f"{duration(latency)} a small read" + (f", {duration(far)} past the page cache" if far else "")
    if opened.local or not DELAYED_SECONDS[0] < latency < DELAYED_SECONDS[1]:
        return Finding("base latency", State.OK, text)
    started = time.perf_counter()
    opened.stat(listed.keys[0])
    head = time.perf_counter() - started
    if head > latency / 4:
        return Finding("base latency", State.OK, text)
    return Finding(
        "base latency",
        State.PROBLEM,
        f"{text}, but {duration(head)} without a body: the server waits 40 ms before it sends the rest of an answer",
        "Switch on tcp_nodelay at the server; for radosgw: rgw frontends = beast … tcp_nodelay=1",
    )


def _throughput(opened: Base, listed: Listed) -> tuple[float, float]:
    """Bytes and objects a second, of objects spread over the listing, many at once, for two seconds at most."""
    step = max(1, len(listed.keys) // SAMPLE_OBJECTS)
    chosen = list(zip(listed.keys[::step], listed.sizes[::step], strict=True))
    started = time.perf_counter()
    until = started + THROUGHPUT_SECONDS_MAX
    parts = [(key, at) for key, length in chosen for at in range(0, max(1, length), PART_BYTES)]

    def read(part: tuple[bytes, int]) -> int:
        if time.perf_counter() > until:
            return -1
        return len(memoryview(opened.read(part[0], part[1], PART_BYTES).data))

    with ThreadPoolExecutor(THREADS, "swingby-doctor") as pool:
        found = [count for count in pool.map(read, parts[: THROUGHPUT_BYTES_MAX // PART_BYTES * 16]) if count >= 0]
    seconds = time.perf_counter() - started
    return sum(found) / seconds, len(found) / seconds
