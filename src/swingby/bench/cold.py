"""Cold reads from a real Ceph, in alternating pairs with obstore's own threads writing into fresh tmpfs files.

Ceph keeps to one core, client and keeper (or obstore) to the other. CPU is that of the reading side: for ours, the process that
iterates the dataset and its keeper together.
"""

from __future__ import annotations

import functools
import os
import queue
import shutil
import statistics
import threading
import time
from typing import TYPE_CHECKING

import swingby
from swingby.bench import data
from swingby.bench.context import Context, Keeper, keeper, own_cpu_seconds, pin, pinned
from swingby.bench.figures import Figure, ratio_figure
from swingby.testing import ceph as ceph_s3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    from swingby.testing.ceph import CephS3

BUCKET = "swingby-bench"
RATE_AT_LEAST = 0.9
CPU_AT_MOST = 1.15
BATCH = 64
RANGE_BYTES = 16 << 20
THREADS_TRIED = (8, 16, 32)
SERVER_CORE, CLIENT_CORE = 0, 1


def run(context: Context) -> Iterator[Figure]:
    """Small objects, then shards."""
    with ceph_s3.running() as ceph:
        for process in ceph.processes:
            pin(process, SERVER_CORE)
        sets = [
            ("16 KiB objects", 16 << 10, context.size(4096, 128), context.pairs),
            ("64 MiB objects", context.size(64 << 20, 9 << 20), context.size(16, 2), context.pairs),
        ]
        for name, size, count, pairs in sets:
            url = data.make_objects(ceph, BUCKET, f"cold-{size}", size, count)
            # No burst level: obstore's threads write to memory only, and so do we here; copies to it wait for idle times.
            settings = ceph.settings() | {"memory.budget_bytes": 3 << 30, "burst.budget_bytes": 0}
            with pinned(CLIENT_CORE), keeper(settings) as ours:
                yield from _compare(name, url, ours, Obstore(ceph, url, size, count), pairs)


class Obstore:
    """The raw client: threads that get objects, or ranges of large ones, and write them into fresh files on a tmpfs."""

    def __init__(self, ceph: CephS3, url: str, size: int, count: int) -> None:
        from obstore.store import S3Store

        self._store = S3Store(
            BUCKET,
            endpoint=ceph.endpoint,
            region="us-east-1",
            access_key_id=ceph_s3.ACCESS_KEY_ID,
            secret_access_key=ceph_s3.SECRET_ACCESS_KEY,
            client_options={"allow_http": True, "timeout": "60s"},
        )
        prefix = url.partition(f"{BUCKET}/")[2]
        self._names = [f"{prefix}/{number:08d}" for number in range(count)]
        self._size = size
        self._folder = f"/dev/shm/swingby-bench-obstore-{os.getpid()}"
        rates = {threads: self.seconds(threads)[0] for threads in THREADS_TRIED}
        self.threads = min(rates, key=rates.__getitem__)

    def seconds(self, threads: int | None = None) -> tuple[float, float]:
        """Wall and CPU seconds of reading everything."""
        shutil.rmtree(self._folder, ignore_errors=True)
        os.makedirs(self._folder)
        work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        for task in self._tasks():
            work.put(task)
        count = threads or self.threads
        for _ in range(count):
            work.put(None)
        workers = [threading.Thread(target=self._work, args=(work,)) for _ in range(count)]
        cpu, started = own_cpu_seconds(), time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        found = time.perf_counter() - started, own_cpu_seconds() - cpu
        shutil.rmtree(self._folder)
        return found

    def _tasks(self) -> Iterator[Callable[[], object]]:
        for number, name in enumerate(self._names):
            path = os.path.join(self._folder, str(number))
            if self._size <= RANGE_BYTES:
                yield functools.partial(self._whole, name, path)
                continue
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
            for start in range(0, self._size, RANGE_BYTES):
                stop = min(self._size, start + RANGE_BYTES)
                yield functools.partial(self._range, name, path, start, stop)

    def _whole(self, name: str, path: str) -> None:
        _write(path, self._store.get(name).bytes(), 0)

    def _range(self, name: str, path: str, start: int, stop: int) -> None:
        _write(path, self._store.get(name, options={"range": (start, stop)}).bytes(), start)

    @staticmethod
    def _work(work: queue.SimpleQueue[Callable[[], object] | None]) -> None:
        while (task := work.get()) is not None:
            task()


def _write(path: str, content: Buffer, offset: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.pwrite(descriptor, content, offset)
    os.close(descriptor)


def _compare(name: str, url: str, ours: Keeper, theirs: Obstore, pairs: int) -> Iterator[Figure]:
    with swingby.open(url, settings=ours.settings) as dataset:
        expected = data.words(int(dataset.sizes[0]), len(dataset))
        walls, cpus, rates = [], [], []
        for number in range(pairs):
            ours.evict()
            cpu, started = own_cpu_seconds() + ours.cpu_seconds(), time.perf_counter()
            batches = list(swingby.Loader(dataset, batch_size=BATCH, shuffle=True, seed=number))
            wall = time.perf_counter() - started
            cpu = own_cpu_seconds() + ours.cpu_seconds() - cpu
            for batch in batches if number == 0 else batches[:1]:
                data.check(batch, expected)
            raw_wall, raw_cpu = theirs.seconds()
            walls.append((raw_wall, wall))
            cpus.append((cpu, raw_cpu))
            rates.append(len(dataset) / wall)
        size = int(dataset.sizes.sum())
    notes = {
        "objects_a_second": statistics.median(rates),
        "bytes_a_second": statistics.median(rates) * size / len(expected),
        "obstore_threads": theirs.threads,
        "cpu_seconds_an_object": statistics.median(cpu for cpu, _ in cpus) / len(expected),
    }
    yield ratio_figure("cold", f"{name}, rate over obstore's", walls, at_least=RATE_AT_LEAST, notes=notes)
    yield ratio_figure("cold", f"{name}, CPU over obstore's", cpus, at_most=CPU_AT_MOST)
