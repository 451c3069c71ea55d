"""Homes and levels in bad places: full, read-only, on a tmpfs, too small, deleted under the keeper's feet, short of memory.

Promises: reads work, slower; nothing hangs; where there is no keeper the client says so.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from swingby.errors import KeeperError
from swingby.levels.room import available_memory_bytes
from swingby.testing.campaign.children import Children
from swingby.testing.campaign.ground import MIB, Ground
from swingby.testing.campaign.job import promise
from swingby.testing.campaign.reading import Reader
from swingby.testing.campaign.truth import Shape, Truth

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from swingby.testing.campaign.job import Job

READ_SECONDS_MAX = 90.0
ACT_SECONDS = 0.4
SHAPE = Shape(packs=6, large=2)
SETTINGS = {"memory.budget_bytes": 24 * MIB, "burst.budget_bytes": 48 * MIB}


class NotHereError(Exception):
    """This machine lacks what a place takes."""


def run(job: Job) -> None:
    """Go through the places, again and again."""
    for steps in job.rounds(1):
        name, prepare = list(PLACES.items())[steps.start % len(PLACES)]
        with job.guard(), contextlib.ExitStack() as stack:
            rng = job.begin(steps.start)
            ground = stack.enter_context(Ground(f"places-{steps.start}", SETTINGS, is_far=True))
            children = stack.enter_context(Children(f"{ground.root}/children"))
            truth = Truth(os.path.join(ground.root, "data"), job.seed, SHAPE)
            truth.write_all()
            try:
                event = stack.enter_context(contextlib.contextmanager(prepare)(ground, rng))
            except NotHereError as error:
                job.skip(f"{name}: {error}")
                continue
            job.counts[name] += 1
            reader = Reader(ground, truth, rng)
            children.run(functools.partial(_live, reader, ground, event), READ_SECONDS_MAX)
            children.run(reader.check_all, READ_SECONDS_MAX)
            ground.kill_keeper()


class _Said(logging.Handler):
    """Keeps warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        self.texts.append(record.getMessage())


def _live(reader: Reader, ground: Ground, event: Callable[[], None]) -> None:
    """A user's life, in the middle of which something may happen."""
    said = _Said()
    logging.getLogger("swingby").addHandler(said)
    reader.check_all()
    event()
    reader.batch()
    reader.act(ACT_SECONDS)
    reader.check_all("always")
    try:
        ground.facts()
    except (KeeperError, ConnectionError):
        promise(said.texts, "nobody says that there is no keeper")


def _nothing() -> None:
    """Happens."""


@contextlib.contextmanager
def _tmpfs(path: str, options: str) -> Iterator[None]:
    os.makedirs(path, mode=0o700, exist_ok=True)
    if os.geteuid() != 0 or _run("mount", "-t", "tmpfs", "-o", f"mode=0700,{options}", "tmpfs", path):
        raise NotHereError("mounting takes root")
    try:
        yield
    finally:
        _run("umount", "-l", path)


def _run(*command: str) -> int:
    return subprocess.run(command, capture_output=True, check=False).returncode


def _fill(folder: str) -> None:
    """Leave no room."""
    with contextlib.suppress(OSError), open(os.path.join(folder, "filler"), "wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


# -- places ------------------------------------------------------------------------------------------------------------


def _small_home(ground: Ground, rng: random.Random) -> Iterator[Callable[[], None]]:
    """A home that has room for little, or none from the beginning."""
    with _tmpfs(ground.settings.home, f"size={rng.choice([64, 512, 4096, 12_000])}k"):
        if rng.random() < 0.3:
            _fill(ground.settings.home)
        yield _nothing


def _home_fills(ground: Ground, rng: random.Random) -> Iterator[Callable[[], None]]:
    """A home that somebody else fills."""
    del rng
    with _tmpfs(ground.settings.home, "size=100m"):
        yield lambda: _fill(ground.settings.home)


def _read_only_home(ground: Ground, rng: random.Random) -> Iterator[Callable[[], None]]:
    """A home that can only be read, from the beginning or from some time on."""

    def change() -> None:
        _run("mount", "-o", "remount,ro", ground.settings.home)

    with _tmpfs(ground.settings.home, "size=100m"):
        is_early = rng.random() < 0.5
        if is_early:
            change()
        yield _nothing if is_early else change


def _home_on_tmpfs(ground: Ground, rng: random.Random) -> Iterator[Callable[[], None]]:
    """A burst level where there may be no O_DIRECT."""
    del rng
    with _tmpfs(ground.settings.home, "size=200m"):
        yield ground.await_spilled


def _home_deleted(ground: Ground, rng: random.Random) -> Iterator[Callable[[], None]]:
    """A home, or a part of it, that is deleted under the keeper's feet."""
    parts = [ground.settings.home, ground.place.state, ground.place.memory, ground.place.runtime]
    path = rng.choice(
        [*parts, os.path.join(ground.place.state, "burst"), os.path.join(ground.place.state, "manifests")]
    )
    yield lambda: shutil.rmtree(path, ignore_errors=True)


def _home_is_a_file(ground: Ground, rng: random.Random) -> Iterator[Callable[[], None]]:
    """Something else lies where a directory should be."""
    path = rng.choice([ground.settings.home, os.path.join(ground.place.state, "burst"), ground.place.memory])
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with open(path, "wb") as file:
        file.write(b"not a directory")
    yield _nothing


def _small_memory(ground: Ground, rng: random.Random) -> Iterator[Callable[[], None]]:
    """A /dev/shm that is smaller than the budget, or that somebody else fills."""
    with _tmpfs(ground.memory, f"size={rng.choice([1, 6, 14, 20])}m"):
        yield rng.choice([_nothing, lambda: _fill(ground.memory)])


def _no_memory_directory(ground: Ground, rng: random.Random) -> Iterator[Callable[[], None]]:
    """No tmpfs at all."""
    ground.use({"memory.directory": rng.choice(["/nowhere", "/proc"])})
    yield _nothing


def _little_memory(ground: Ground, rng: random.Random) -> Iterator[Callable[[], None]]:
    """A machine whose memory is nearly all taken: what is left is the headroom, or a little more."""
    ground.use({"memory.headroom_bytes": available_memory_bytes() - rng.choice([-1 << 30, 0, 8 * MIB])})
    yield _nothing


def _no_levels(ground: Ground, rng: random.Random) -> Iterator[Callable[[], None]]:
    """A keeper without any level."""
    ground.use({"memory.budget_bytes": 0, "burst.budget_bytes": rng.choice([0, 1])})
    yield _nothing


PLACES: dict[str, Callable[[Ground, random.Random], Iterator[Callable[[], None]]]] = {
    "small home": _small_home,
    "home that fills up": _home_fills,
    "read-only home": _read_only_home,
    "home on a tmpfs": _home_on_tmpfs,
    "home deleted": _home_deleted,
    "a file in the way": _home_is_a_file,
    "small memory": _small_memory,
    "no memory directory": _no_memory_directory,
    "little memory left": _little_memory,
    "no levels": _no_levels,
}
