"""Storms of forks: a process that has used a dataset forks many children at once, which read, end or are killed while it reads too.

Promises: every byte is right in parent, threads, forked and spawned children; nothing hangs; connections, plans and pins of the
dead end; no descriptor is left open.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import random
import threading
import time
from typing import TYPE_CHECKING

from swingby.keeper.protocol import Evict
from swingby.testing.campaign import leaks
from swingby.testing.campaign.children import Children
from swingby.testing.campaign.ground import MIB, Ground
from swingby.testing.campaign.job import promise
from swingby.testing.campaign.reading import Reader
from swingby.testing.campaign.truth import Shape, Truth

if TYPE_CHECKING:
    from swingby.data.dataset import Dataset
    from swingby.testing.campaign.job import Job

STORMS_A_ROUND = 5
CHILDREN = 20
SPAWNED = 2
THREADS = 2  # of the parent, that read while it forks
CHILD_SECONDS = 0.4
STORM_SECONDS_MAX = 90.0
SPAWNED_SAMPLES = 30
DESCRIPTORS_MORE_MAX = 16  # idle connections and what they hold
SETTINGS = {
    "memory.budget_bytes": 9 * MIB,
    "burst.budget_bytes": 48 * MIB,
}  # half of the large objects are read from burst


def run(job: Job) -> None:
    """Storm after storm, with a look at the keeper after each."""
    for steps in job.rounds(STORMS_A_ROUND):
        with job.guard(), Ground(f"forks-{steps.start}", SETTINGS, is_far=True) as ground:
            truth = Truth(os.path.join(ground.root, "data"), job.seed, Shape())
            truth.write_all()
            with Children(os.path.join(ground.root, "children")) as children:
                for step in steps:
                    rng = job.begin(step)
                    job.counts["forked children"] += CHILDREN
                    job.counts["spawned children"] += SPAWNED
                    children.run(functools.partial(_storm, ground, truth, rng), STORM_SECONDS_MAX)
                    leaks.check(ground)
                    kept = ground.ask(Evict())["kept"]
                    promise(not kept, f"A LEAK: {kept} segments are pinned by the dead")
            ground.stop_keeper()


def _storm(ground: Ground, truth: Truth, rng: random.Random) -> None:
    """The parent's life; in a process of its own."""
    reader = Reader(ground, truth, rng)
    reader.open("always")
    reader.act(CHILD_SECONDS)
    before = len(os.listdir("/proc/self/fd"))
    stop = threading.Event()
    wrong: list[BaseException] = []
    threads = [threading.Thread(target=_read_on, args=(reader.sibling(n), stop, wrong)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    context = multiprocessing.get_context("spawn")
    spawned = [context.Process(target=_spawned, args=(reader.dataset, truth, n)) for n in range(SPAWNED)]
    for process in spawned:
        process.start()
    with Children(os.path.join(ground.root, f"grandchildren-{os.getpid()}")) as children:
        forked = [children.start(reader.sibling(rng.randrange(1 << 30)).live) for _ in range(CHILDREN)]
        while forked:
            child = forked.pop(rng.randrange(len(forked)))
            if rng.random() < 0.4:
                time.sleep(rng.uniform(0, 0.2))
                child.kill()
            else:
                reader.batch()
                reader.packed()
                child.wait(STORM_SECONDS_MAX)
    for process in spawned:
        process.join(STORM_SECONDS_MAX)
        promise(process.exitcode == 0, f"a spawned process ended with {process.exitcode}")
        process.close()
    stop.set()
    for thread in threads:
        thread.join()
    promise(not wrong, f"a thread of the parent: {wrong[:1]!r}")
    reader.check_all()
    more = len(os.listdir("/proc/self/fd")) - before
    promise(more <= DESCRIPTORS_MORE_MAX, f"A LEAK: the parent holds {more} descriptors more than before its children")


def _read_on(reader: Reader, stop: threading.Event, wrong: list[BaseException]) -> None:
    """A thread of the parent."""
    try:
        while not stop.is_set():
            reader.batch()
            reader.packed()
    except BaseException as error:
        wrong.append(error)


def _spawned(dataset: Dataset, truth: Truth, seed: int) -> None:
    """The life of a spawned child, which was given the dataset pickled."""
    rng = random.Random(seed)
    for _ in range(SPAWNED_SAMPLES):
        index = rng.randrange(len(dataset))
        truth.check(dataset.keys[index], int(dataset.sizes[index]), dataset[index].data)
