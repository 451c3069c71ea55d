"""A home of the campaign's own with everything around it, and the processes that live on it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Self

import swingby
from swingby import config, sessions
from swingby.assemble import Hooks
from swingby.errors import KeeperError, SwingbyError
from swingby.keeper import place as places
from swingby.keeper import process
from swingby.keeper.protocol import Progress, Report, Status, Stop
from swingby.sessions import ProcessConnector, Session
from swingby.testing.campaign import far, rough
from swingby.testing.campaign.job import promise, until

if TYPE_CHECKING:
    from swingby.config import Settings
    from swingby.data.dataset import Dataset
    from swingby.keeper.protocol import Message

MIB = 1 << 20
STOP_SECONDS_MAX = 10.0
ANSWER_SECONDS_MAX = 60.0
ROOT = "/tmp"
SHARED_MEMORY = "/dev/shm"
USUAL = {
    "keeper.start_seconds_max": 30.0,
    "client.deadline_seconds": 30.0,
    "memory.headroom_bytes": 0,
    "burst.free_floor_ratio": 0.01,
    "listing.manifests_kept_max": 3,
    "fetch.retry_delay_seconds_max": 0.05,
}


class Ground:
    """See the module's text. A context manager: at its end the keeper is gone, and so are the files.

    Args:
        name: unique in this process; of the directories.
        settings: beyond the usual ones of the campaign.
        is_far: whether file bases count as far; else the installed keeper is used as it is.
        is_rough: whether they also err often, and can be taken down: see `rough`.

    Attributes:
        root: for everything on disk.
        settings: in force; `swingby.open(…, settings=ground.settings)`.
        session: of these settings, in this process and those forked from it.
        place: of the keeper.
    """

    def __init__(self, name: str, settings: dict[str, Any], *, is_far: bool, is_rough: bool = False) -> None:
        self.root = os.path.join(ROOT, f"swingby-campaign-{os.getpid()}", name)
        self.memory = os.path.join(SHARED_MEMORY, f"swingby-campaign-{os.getpid()}", name)
        os.makedirs(self.root)
        os.makedirs(self.memory)
        own = {"home": os.path.join(self.root, "home"), "memory.directory": self.memory}
        self._settings = USUAL | own | settings
        self._is_far = is_far
        self._is_rough = is_rough
        self.use({})

    def use(self, settings: dict[str, Any]) -> None:
        """Work with these settings too from now on."""
        self._settings |= settings
        self.settings = config.load(self._settings)
        self.place = places.place_of(self.settings)
        self.session = make_session(self.settings, is_far=self._is_far, is_rough=self._is_rough)
        sessions.adopt(self.session)

    def open(self, folder: str, refresh: str = "auto", manifest: str | None = None) -> Dataset:
        """A dataset of this ground."""
        return swingby.open(folder, manifest, refresh, settings=self.settings)

    def ask(self, message: Message) -> dict[str, Any]:
        """Send an operator's message; the facts of its report."""
        with self.session.client.exchange() as exchange:
            exchange.send(message, ANSWER_SECONDS_MAX)
            while True:
                reply = exchange.receive(ANSWER_SECONDS_MAX)
                if isinstance(reply.message, Report):
                    return reply.message.facts
                if not isinstance(reply.message, Progress):
                    raise KeeperError(f"an unexpected {type(reply.message).__name__}")

    def facts(self) -> dict[str, Any]:
        """What `status` shows."""
        return self.ask(Status())

    def start_doomed(self, dies_at: int, seed: int) -> None:
        """Start a keeper that is killed at its `dies_at`-th change of a file; perhaps before it is ready."""
        arguments = f"({config.to_json(self.settings)!r}, {dies_at}, {seed})"
        code = f"from swingby.testing.campaign.far import run_doomed; run_doomed{arguments}"
        package = os.path.dirname(os.path.dirname(os.path.abspath(swingby.__file__)))
        with contextlib.suppress(SwingbyError):
            process.spawn(self.place, [sys.executable, "-c", code], config.spawn_environment(package), 30.0)

    def keepers(self) -> list[int]:
        """Process ids of the keepers of this home."""
        return [number for number in processes_with(self.settings.home) if number != os.getpid()]

    def kill_keeper(self) -> int:
        """Kill the keepers of this home at once; how many there were. Clients may start another one."""
        found = self.keepers()
        for number in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        until(lambda: set(found) & set(self.keepers()), STOP_SECONDS_MAX, "A HANG: a keeper survives SIGKILL")
        return len(found)

    def stop_keeper(self) -> None:
        """Ask the keeper to end, and wait until it has."""
        if self.keepers():
            with contextlib.suppress(SwingbyError, ConnectionError):
                self.session.client.call(Stop(), STOP_SECONDS_MAX)
            self.session.client.close()
        self.await_no_keeper()

    def await_no_keeper(self) -> None:
        """Wait until no keeper lives."""
        until(self.keepers, STOP_SECONDS_MAX, "A LEAK: a keeper lives on")

    def await_spilled(self) -> None:
        """Wait until everything fetched is on the burst level too."""
        until(lambda: self.facts()["spill"]["waiting_segments"], 30.0, "segments wait for ever for the burst level")

    def close(self) -> None:
        """End the keeper, remove everything."""
        sessions.forget(self.session)
        self.session.client.close()
        self.kill_keeper()
        for folder in (self.root, self.memory, self.place.runtime):
            shutil.rmtree(folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_session(settings: Settings, *, is_far: bool, is_rough: bool) -> Session:
    """The session of a ground, for any process."""
    module, hooks = (far.MODULE, far.hooks()) if is_far else ("swingby.assemble", Hooks())
    if is_rough:
        module, hooks = rough.MODULE, rough.hooks(settings.home)
    return Session(settings, ProcessConnector(settings, module), hooks)


def processes_with(text: str) -> list[int]:
    """Living processes whose command line holds a text."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
                if text.encode() in file.read() and _state(name) != "Z":
                    found.append(int(name))
    return found


def _state(process: str) -> str:
    with open(f"/proc/{process}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def await_janitor(ground: Ground) -> None:
    """Let a janitor's round pass."""
    promise(ground.facts(), "a keeper that lives gives its facts")
    time.sleep(1.1)
