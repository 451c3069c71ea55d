"""Listing and manifests: a million files, ten million rows, and what a refresh keeps."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

import swingby
from swingby.base.posix import PosixBase
from swingby.bench.context import Context, keeper
from swingby.bench.figures import Figure
from swingby.core.manifest.build import build
from swingby.core.object import Page
from swingby.core.segment import Origin
from swingby.keeper.manifests import ManifestStore

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = 1_000_000
FILES_A_FOLDER = 1000
ROWS = 10_000_000
PAGE = 5000
LIST_SECONDS_MAX = 20.0
OPEN_SECONDS_MAX = 0.05
BYTES_AN_OBJECT_MAX = 40
COPIED_FACTOR_MAX = 5.0

_MEMORY = """
import sys
import numpy as np
from swingby.keeper.manifests import ManifestStore
store = ManifestStore(sys.argv[1], 8)
manifest = store.load(sys.argv[2])
for index in np.random.default_rng(0).integers(0, len(manifest), 1000).tolist():
    manifest.key(index); manifest.version(index)
fields = dict(line.split(":", 1) for line in open("/proc/self/smaps_rollup") if ":" in line)
print(int(fields["Anonymous"].split()[0]) / 1024, len(manifest))
"""


def run(context: Context) -> Iterator[Figure]:
    """Real files, then real rows, then a refresh."""
    yield from _files(context)
    yield from _rows(context)
    yield from _refresh(context)


def _files(context: Context) -> Iterator[Figure]:
    count = context.size(FILES, 2000)
    root = os.path.join(context.folder, f"listing-{count}")
    if not os.path.exists(root + ".complete"):
        for number in range(count):
            folder = os.path.join(root, f"{number // FILES_A_FOLDER:05d}")
            if number % FILES_A_FOLDER == 0:
                os.makedirs(folder, exist_ok=True)
            os.close(os.open(os.path.join(folder, f"{number:07d}.jpg"), os.O_CREAT | os.O_WRONLY, 0o600))
        os.close(os.open(root + ".complete", os.O_CREAT))
    prefix = os.fsencode(root).lstrip(b"/") + b"/"
    base, times, opens = PosixBase("file:bench", 16), [], []
    folder = os.path.join(context.folder, "manifests-files")
    for _ in range(context.repetitions):
        shutil.rmtree(folder, ignore_errors=True)
        store = ManifestStore(folder, 8)
        started = time.perf_counter()
        with store.writing() as sink:
            listing = store.save(build(Origin("bench", ""), prefix, base.list(prefix), sink), 0.0)
        times.append(time.perf_counter() - started)
        fresh = ManifestStore(folder, 8)
        started = time.perf_counter()
        manifest = fresh.load(listing.digest)
        manifest.key(len(manifest) // 2)
        opens.append(time.perf_counter() - started)
        if len(manifest) != count:
            raise AssertionError(f"{len(manifest)} files were listed")
    name = f"listing {count} local files, manifest saved"
    yield Figure("manifests", name, statistics.median(times), "s", at_most=LIST_SECONDS_MAX, samples=times)
    name = "opening it in a new process's store, checked, one key read"
    yield Figure("manifests", name, statistics.median(opens), "s", at_most=OPEN_SECONDS_MAX, samples=opens)
    shutil.rmtree(folder)


def _rows(context: Context) -> Iterator[Figure]:
    count = context.size(ROWS, 20_000)
    folder = os.path.join(context.folder, "manifests-rows")
    shutil.rmtree(folder, ignore_errors=True)
    store = ManifestStore(folder, 8)
    started = time.perf_counter()
    with store.writing() as sink:
        root = build(Origin("bench", ""), b"train/", _pages(count), sink)
        listing = store.save(root, 0.0)
    seconds = time.perf_counter() - started
    stored = sum(shard.file_bytes for shard in root.shards)
    child = subprocess.run(
        [sys.executable, "-c", _MEMORY, folder, listing.digest], capture_output=True, text=True, check=True
    )
    private, rows = child.stdout.split()
    notes = {"file_bytes_an_object": stored / count, "computed_bytes_for_1e10": stored / count * 1e10}
    yield Figure("manifests", f"building {rows} rows", seconds, "s", notes=notes)
    beside = (stored - _key_bytes(store, listing.digest)) / count
    yield Figure("manifests", "bytes an object beside its key", beside, "B", at_most=BYTES_AN_OBJECT_MAX)
    yield Figure("manifests", "private memory of a process that reads it", float(private), "MiB", notes={"rows": rows})
    shutil.rmtree(folder)


def _pages(count: int) -> Iterator[Page]:
    for start in range(0, count, PAGE):
        numbers = range(start, min(count, start + PAGE))
        keys = [b"train/class%05d/img_%08d.jpg" % (number // 1000, number) for number in numbers]
        sizes = (np.arange(start, start + len(keys), dtype=np.uint64) * np.uint64(7919)) % np.uint64(200_000)
        versions = np.zeros((len(keys), 2), np.uint64)
        versions[:, 0] = np.arange(start, start + len(keys))
        yield Page(keys, sizes, versions.view(np.uint8))


def _key_bytes(store: ManifestStore, digest: str) -> int:
    manifest = store.load(digest)
    return sum(manifest.shard(number).keys.stored_bytes for number in range(len(manifest.root.shards)))


def _refresh(context: Context) -> Iterator[Figure]:
    """0.2 % of a warm dataset's files change; what is read again, and what was copied."""
    count, size = context.size(50_000, 1000), 8192
    root = os.path.join(context.folder, "refresh")
    shutil.rmtree(root, ignore_errors=True)
    os.makedirs(root)
    rng = np.random.default_rng(0)
    for number in range(count):
        with open(os.path.join(root, f"{number:06d}"), "wb") as file:
            file.write(rng.bytes(size))
    changed = rng.choice(count, max(1, count // 500), replace=False).tolist()
    with keeper({"memory.budget_bytes": 2 << 30}) as ours:
        with swingby.open(root, settings=ours.settings) as dataset:
            for start in range(0, count, 256):
                dataset.batch(np.arange(start, min(count, start + 256)))
        for number in changed:
            with open(os.path.join(root, f"{number:06d}"), "wb") as file:
                file.write(rng.bytes(size + 1))
        before = ours.facts()
        with swingby.open(root, refresh="always", settings=ours.settings) as dataset:
            for start in range(0, count, 256):
                batch = dataset.batch(np.arange(start, min(count, start + 256)))
                _check(root, batch.keys, batch.views)
        after = ours.facts()
    read = after["base_bytes"] - before["base_bytes"]
    changed_bytes = len(changed) * (size + 1)
    notes = {"changed_objects": len(changed), "of": count}
    yield Figure(
        "manifests", "refresh: base bytes over changed bytes", read / changed_bytes, "×", at_most=1.0, notes=notes
    )
    copied = (after["moved_bytes"] - before["moved_bytes"]) / changed_bytes
    yield Figure("manifests", "refresh: copied bytes over changed bytes", copied, "×", at_most=COPIED_FACTOR_MAX)
    shutil.rmtree(root)


def _check(root: str, keys: list[str], views: list[memoryview]) -> None:
    for key, view in zip(keys, views, strict=True):
        with open(os.path.join(root, key), "rb") as file:
            if view != file.read():
                raise AssertionError(f"{key} is not what was written")
