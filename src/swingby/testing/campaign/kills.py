"""SIGKILL of keeper or client at random points of fill, evict, refresh, promotion and spill.

Promises: the next start works without repair, every byte read afterwards is right, nothing hangs, nothing leaks.
"""

from __future__ import annotations

import functools
import os
import random
import time
from typing import TYPE_CHECKING, Any

from swingby.errors import KeeperError
from swingby.testing.campaign import leaks
from swingby.testing.campaign.children import Children
from swingby.testing.campaign.ground import MIB, Ground
from swingby.testing.campaign.reading import Reader
from swingby.testing.campaign.truth import Shape, Truth

if TYPE_CHECKING:
    from swingby.testing.campaign.job import Job

KILLS_A_ROUND = 20
STEPS_BETWEEN_LOOKS = 5  # for leaks
ROUNDS_BETWEEN_NEAR = 4  # every so many rounds the base is near, and the keeper the installed one
CLIENTS = 2
CLIENT_SECONDS = (0.15, 0.25, 0.25, 1.5)  # the longest ones see the janitor copy to the burst level
CLIENT_SECONDS_MAX = 60.0
OPERATIONS_MAX = 3000  # changes of files, after which a doomed keeper dies at the latest
SETTINGS = {"memory.budget_bytes": 16 * MIB, "burst.budget_bytes": 24 * MIB}


def run(job: Job) -> None:
    """Kill, start again, read, compare, look for leaks."""
    for steps in job.rounds(KILLS_A_ROUND):
        is_far = bool(steps.start // KILLS_A_ROUND % ROUNDS_BETWEEN_NEAR) or len(steps) < KILLS_A_ROUND
        with job.guard(), Ground(f"kills-{steps.start}", SETTINGS, is_far=is_far) as ground:
            with Children(os.path.join(ground.root, "children")) as children:
                _Round(job, ground, children).run(steps)
            ground.stop_keeper()


class _Round:
    """Some kills over one home and directory."""

    def __init__(self, job: Job, ground: Ground, children: Children) -> None:
        self._job = job
        self._ground = ground
        self._children = children
        self._truth = Truth(os.path.join(ground.root, "data"), job.seed, Shape())
        self._seen: dict[int, dict[str, Any]] = {}  # the last facts of each keeper

    def run(self, steps: range) -> None:
        self._truth.write_all()
        for step in steps:
            rng = self._job.begin(step)
            self._kill(rng)
            self._look(rng, 0.4)
            if step % STEPS_BETWEEN_LOOKS == 0:
                leaks.check(self._ground)
        self._look(rng, 1.0)
        leaks.check(self._ground)
        for facts in self._seen.values():
            for name, level in facts["levels"].items():
                self._job.counts[f"{name} segments evicted"] += level["evicted_segments"]
                self._job.counts[f"{name} bytes filled"] += level["filled_bytes"]

    def _kill(self, rng: random.Random) -> None:
        """One kill amid the work of some clients."""
        kind = rng.choice(["keeper", "operation", "operation", "client"])
        is_changing = rng.random() < 0.2
        if rng.random() < 0.3:
            self._truth.change(rng, rng.randint(1, 20))
        if kind == "operation":
            self._ground.stop_keeper()
            self._ground.start_doomed(int(OPERATIONS_MAX ** rng.random()), rng.randrange(1 << 30))
        seconds = rng.choice(CLIENT_SECONDS)
        clients = []
        for _ in range(CLIENTS):
            reader = Reader(self._ground, self._truth, random.Random(rng.random()), is_changing=is_changing)
            clients.append(self._children.start(functools.partial(reader.act, seconds)))
        time.sleep(rng.uniform(0.0, seconds))
        if is_changing:
            self._truth.change(rng, 10)
        time.sleep(rng.uniform(0.0, 0.3 * seconds))
        if kind == "keeper":
            self._ground.kill_keeper()
        elif kind == "client":
            clients.pop().kill()
        for client in clients:
            client.wait(CLIENT_SECONDS_MAX)
        self._job.counts[f"kills of a {'client' if kind == 'client' else 'keeper'}"] += 1

    def _look(self, rng: random.Random, share: float) -> None:
        """What the next user sees: the keeper starts, and every byte is right."""
        check = Reader(self._ground, self._truth, rng).check_all
        self._children.run(functools.partial(check, "always", share), CLIENT_SECONDS_MAX)
        try:
            facts = self._ground.facts()
        except (KeeperError, ConnectionError):
            return  # a doomed keeper that died only now
        self._seen[facts["process"]] = facts
