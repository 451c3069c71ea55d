"""Single bits that flip in segments, maps and manifests, with the keeper stopped and under its feet; files of a later format.

Promises: a flip while the keeper is stopped never shows as a wrong byte or an error; one under a live keeper neither once `Verify`
has found it, and on the burst level never; files of an unknown format are set aside, unchanged.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from swingby import assemble
from swingby.errors import ManifestNotFoundError
from swingby.keeper.protocol import Verify
from swingby.testing.campaign import leaks
from swingby.testing.campaign.children import Children
from swingby.testing.campaign.flipping import Flip, flip_in, later_format, places_of
from swingby.testing.campaign.ground import MIB, Ground
from swingby.testing.campaign.job import promise
from swingby.testing.campaign.reading import Reader
from swingby.testing.campaign.truth import Shape, Truth

if TYPE_CHECKING:
    import random

    from swingby.testing.campaign.job import Job

FLIPS_A_ROUND = 40
FLIPS_AT_ONCE_MAX = 5  # in as many files
CHECK_SECONDS_MAX = 60.0
SETTINGS = {"memory.budget_bytes": 96 * MIB, "burst.budget_bytes": 128 * MIB}
MAGICS = {b"SWBYMAP\0", b"SWBYROOT", b"SWBYPLCE"}
SHAPE = Shape(packs=10, large=2, large_bytes_max=5 * MIB)
LIVE_KINDS = ("memory.seg", "memory.map", "burst.seg", "burst.map")
WAITED_KINDS = ("burst.seg", "burst.map", "roots", "places")  # what a client that lives on has not mapped


def run(job: Job) -> None:
    """Flip, read everything, compare."""
    for steps in job.rounds(FLIPS_A_ROUND):
        with job.guard(), Ground(f"flips-{steps.start}", SETTINGS, is_far=True) as ground:
            with Children(os.path.join(ground.root, "children")) as children:
                _Round(job, ground, children).run(steps)
            ground.stop_keeper()


class _Round:
    """Some flips over one home."""

    def __init__(self, job: Job, ground: Ground, children: Children) -> None:
        self._job = job
        self._ground = ground
        self._children = children
        self._truth = Truth(os.path.join(ground.root, "data"), job.seed, SHAPE)
        self._folders = {
            "memory": ground.place.memory,
            "burst": assemble.burst_directory(ground.settings, ground.place),
            "manifests": os.path.join(ground.place.state, "manifests"),
        }

    def run(self, steps: range) -> None:
        self._truth.write_all()
        rng = self._job.begin(steps.start)
        self._fill(rng)
        at = steps.start
        while at < steps.stop:
            rng = self._job.begin(at)
            count = min(rng.randint(1, FLIPS_AT_ONCE_MAX), steps.stop - at)
            at += count
            self._job.counts["flips"] += count
            kind = rng.choice([self._stopped, self._stopped, self._waited, self._live])
            kind(rng, count)
            if rng.random() < 0.3:
                self._fill(rng)
        self._later_formats(rng)
        leaks.check(self._ground)

    def _fill(self, rng: random.Random) -> None:
        """Have everything on both levels."""
        self._children.run(Reader(self._ground, self._truth, rng).check_all, CHECK_SECONDS_MAX)
        self._ground.await_spilled()

    def _stopped(self, rng: random.Random, count: int) -> None:
        """Flips between two keepers; then a new client."""
        self._ground.stop_keeper()
        self._flip(rng, count, places_of(self._folders))
        self._children.run(functools.partial(self._read, rng), CHECK_SECONDS_MAX)

    def _waited(self, rng: random.Random, count: int) -> None:
        """Flips between two keepers, while a client that has used the dataset lives on."""
        go, ready = os.pipe(), os.pipe()
        client = self._children.start(functools.partial(self._read_and_read, rng, go, ready))
        os.close(go[0])
        os.close(ready[1])
        os.read(ready[0], 1)
        self._ground.stop_keeper()
        self._flip(rng, count, [found for found in places_of(self._folders) if found.kind in WAITED_KINDS])
        os.close(ready[0])
        os.close(go[1])
        client.wait(CHECK_SECONDS_MAX)

    def _live(self, rng: random.Random, count: int) -> None:
        """Flips under a keeper's feet, found by `Verify`."""
        places = [found for found in places_of(self._folders) if found.kind in LIVE_KINDS]
        if not self._ground.keepers() or not places:
            return
        flips = self._flip(rng, count, places)
        check = Reader(self._ground, self._truth, rng).check_all
        if all(flip.kind == "burst.seg" for flip in flips):
            self._children.run(check, CHECK_SECONDS_MAX)
        spoilt = {flip.path for flip in flips if flip.is_covered}
        found = self._ground.ask(Verify())["bad_chunks"]
        gone = sum(not os.path.exists(path) for path in spoilt)
        promise(max(found, gone) >= len(spoilt), f"verify found {found} bad chunks of {len(spoilt)}")
        self._children.run(check, CHECK_SECONDS_MAX)

    def _flip(self, rng: random.Random, count: int, places: list[Flip]) -> list[Flip]:
        flips = [flip_in(place, rng) for place in rng.sample(places, min(count, len(places)))]
        for flip in flips:
            self._job.counts[f"in {flip.kind}"] += 1
        return flips

    def _read(self, rng: random.Random) -> None:
        """Read everything as a new user would, who may ask for what is gone only by its name."""
        reader = Reader(self._ground, self._truth, rng)
        try:
            reader.check_all(rng.choice(["auto", "always", "never"]))
        except ManifestNotFoundError:
            reader.check_all("auto")

    def _read_and_read(self, rng: random.Random, go: tuple[int, int], ready: tuple[int, int]) -> None:
        """Use a dataset, say so, wait until the writing end of `go` is closed, and use it again."""
        os.close(go[1])
        reader = Reader(self._ground, self._truth, rng)
        reader.open("always")
        reader.batch()
        os.close(ready[1])
        os.read(go[0], 1)
        reader.sweep()
        for _ in range(20):
            reader.batch()
            reader.part()

    def _later_formats(self, rng: random.Random) -> None:
        """Files as a later release might write them are neither read nor lost."""
        self._fill(rng)
        self._ground.stop_keeper()
        written = {found: later_format(found) for found in places_of(self._folders) if found.kind != "shards"}
        self._children.run(functools.partial(self._read, rng), CHECK_SECONDS_MAX)
        kept = {_content(path) for folder in self._folders.values() for path in _files(os.path.join(folder, "aside"))}
        kept |= {_content(found.path) for found in written if os.path.exists(found.path)}  # nobody has asked for it
        lost = [found.kind for found, data in written.items() if data and data not in kept and _had_magic(data)]
        promise(not lost, f"files of a later format were not set aside: {lost}")


def _files(folder: str) -> list[str]:
    return [entry.path for entry in os.scandir(folder)] if os.path.isdir(folder) else []


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _had_magic(data: bytes) -> bool:
    """Whether an earlier flip has left it one of ours."""
    return data[:8] in MAGICS
