"""Power cuts while a keeper fills, evicts and refreshes, on ext4 and xfs: writes that no flush covered are lost, torn or reordered.

Promises: after it, in another boot, the next start works, every byte is right, nothing hangs or leaks; what survived is either
right or not used.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import shutil
import time
import uuid
from typing import TYPE_CHECKING

from swingby.testing.campaign import disk, leaks
from swingby.testing.campaign.children import Children
from swingby.testing.campaign.disk import Disk
from swingby.testing.campaign.ground import MIB, ROOT, Ground
from swingby.testing.campaign.job import promise, until
from swingby.testing.campaign.reading import Reader
from swingby.testing.campaign.truth import Shape, Truth

if TYPE_CHECKING:
    from swingby.testing.campaign.job import Job

CUTS_A_ROUND = 10
KINDS = ("ext4", "xfs")
CLIENTS = 2
CLIENT_SECONDS = (0.3, 0.6, 1.5)
CLIENT_SECONDS_MAX = 90.0
OPERATIONS_MAX = 2000  # writes and flushes of the disk, after which the power is cut at the latest
SETTINGS = {"memory.budget_bytes": 12 * MIB, "burst.budget_bytes": 40 * MIB}
SHAPE = Shape(packs=8, large=3)


def run(job: Job) -> None:
    """Cut, switch on, read, compare."""
    if absent := disk.missing():
        job.skip(absent)
        return
    for steps in job.rounds(CUTS_A_ROUND):
        kind = KINDS[steps.start // CUTS_A_ROUND % len(KINDS)]
        folder = os.path.join(ROOT, f"swingby-campaign-{os.getpid()}", f"disk-{steps.start}")
        with job.guard(), Disk(folder, kind) as power:
            settings = SETTINGS | {"home": os.path.join(power.root, "home")}
            with Ground(f"power-{steps.start}", settings, is_far=True) as ground:
                with Children(os.path.join(ground.root, "children")) as children:
                    _Round(job, power, ground, children).run(steps)
                ground.stop_keeper()


class _Round:
    """Some cuts of one disk."""

    def __init__(self, job: Job, power: Disk, ground: Ground, children: Children) -> None:
        self._job = job
        self._disk = power
        self._ground = ground
        self._children = children
        self._truth = Truth(os.path.join(ground.root, "data"), job.seed, SHAPE)

    def run(self, steps: range) -> None:
        self._truth.write_all()
        for step in steps:
            rng = self._job.begin(step)
            self._boot(rng)
            if step > steps.start:
                self._look(rng)
            self._cut(rng)
        self._boot(rng)
        self._look(rng)
        leaks.check(self._ground)

    def _boot(self, rng: random.Random) -> None:
        """The disk comes back; memory does not."""
        self._disk.on()
        shutil.rmtree(self._ground.place.memory, ignore_errors=True)
        self._ground.use({"keeper.boot_id": str(uuid.UUID(int=rng.getrandbits(128)))})

    def _look(self, rng: random.Random) -> None:
        """What the next user sees."""
        refresh = rng.choice(["auto", "always"])
        reader = Reader(self._ground, self._truth, rng)
        self._children.run(functools.partial(reader.check_all, refresh), CLIENT_SECONDS_MAX)
        self._job.counts["segments that a burst level kept over cuts"] += self._ground.facts()["levels"]["burst"][
            "hits"
        ]

    def _cut(self, rng: random.Random) -> None:
        """One cut amid the work of some clients."""
        is_changing = rng.random() < 0.2
        if rng.random() < 0.4:
            self._truth.change(rng, rng.randint(1, 20))
        self._disk.cut_after(int(OPERATIONS_MAX ** rng.random()), rng.randrange(1 << 30))
        seconds = rng.choice(CLIENT_SECONDS)
        clients = []
        for _ in range(CLIENTS):
            reader = Reader(self._ground, self._truth, random.Random(rng.random()), is_changing=is_changing)
            clients.append(self._children.start(functools.partial(reader.act, seconds)))
        clients.append(self._children.start(functools.partial(_stir, self._disk.root, rng.randrange(1 << 30), seconds)))
        if is_changing:
            time.sleep(rng.uniform(0.0, seconds))
            self._truth.change(rng, 10)
        until(
            lambda: not self._disk.is_cut and not all(client.is_over for client in clients),
            CLIENT_SECONDS_MAX,
            "A HANG",
        )
        self._job.counts["cuts amid work" if self._disk.is_cut else "cuts after it"] += 1
        self._disk.cut(rng.randrange(1 << 30))
        for client in clients:  # the power is off for them too
            client.destroy()
            promise("BrokenPromiseError" not in client.said(), client.said())
        self._ground.session.client.close()
        until(self._ground.kill_keeper, CLIENT_SECONDS_MAX, "keepers start though nobody asks")
        kept, lost = self._disk.off()
        self._job.counts["unflushed sectors that survived"] += kept
        self._job.counts["unflushed sectors lost"] += lost


def _stir(folder: str, seed: int, seconds: float) -> None:
    """Do what a kernel does in its own time: write some pages back, flush some files; so that much is half on the disk."""
    rng, end = random.Random(seed), time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(rng.uniform(0.0, 0.05))
        paths = [os.path.join(where, name) for where, _, names in os.walk(folder) for name in names]
        for path in rng.sample(paths, min(len(paths), 8)):
            with contextlib.suppress(OSError):
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # begins to write back
                    if rng.random() < 0.05:
                        os.fsync(descriptor)
                finally:
                    os.close(descriptor)
