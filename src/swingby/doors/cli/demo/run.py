"""Runs the demo from beginning to end."""

from __future__ import annotations

import glob
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

import swingby
from swingby import assemble
from swingby.assemble import Hooks
from swingby.doors.cli.demo.epochs import BATCH_SIZE, Epochs
from swingby.doors.cli.demo.far import FarBase, Record
from swingby.doors.cli.demo.private import private
from swingby.doors.cli.demo.results import LevelUse, Listing, Results, speedups
from swingby.doors.cli.demo.source import Source
from swingby.doors.cli.demo.story import verdicts
from swingby.doors.cli.machine import file_system_of, this_machine
from swingby.levels.room import available_memory_bytes

if TYPE_CHECKING:
    from swingby.config import Settings
    from swingby.data.dataset import Dataset
    from swingby.doors.cli.demo.private import Private
    from swingby.doors.cli.demo.results import Epoch
    from swingby.doors.cli.demo.source import Choice
    from swingby.doors.cli.waiting import Waiting

BY_FILE_SECONDS_MAX = 60.0  # once so long has gone into reading file by file, no further epoch of it is begun


class Terms(NamedTuple):
    """How the demo is run.

    Attributes:
        latency_seconds: before every request to the base.
        epochs: on each side, at least 2.
    """

    latency_seconds: float
    epochs: int


class Demo:
    """One demo.

    Args:
        choice: what to load.
        settings: the user's; the demo's home lies inside theirs.
        terms: how.
        waiting: shows how far it is.

    Raises:
        SwingbyError: no base of this URL can be made.
    """

    def __init__(self, choice: Choice, settings: Settings, terms: Terms, waiting: Waiting) -> None:
        self._choice = choice
        self._settings = settings
        self._terms = terms
        self._waiting = waiting
        self._record = Record()
        self._hooks = Hooks(wrap_base=lambda base: FarBase(base, terms.latency_seconds, self._record))
        self._source = Source(choice, settings, self._hooks, self._record)

    def run(self) -> Results:
        """Load everything both ways.

        Raises:
            SwingbyError: the base's, or ConfigError where there is too much of it.
        """
        with private(self._settings, self._hooks) as mine:
            self._waiting.begin("listing")
            started = time.perf_counter()
            listed = swingby.open(self._choice.url, None, "always", settings=mine.settings, progress=self._waiting.show)
            listing = Listing(len(listed), self._record.listing_seconds, time.perf_counter() - started)
            listed.close()
            dataset, unreadable = self._chosen(mine)
            total = int(dataset.sizes.sum())
            self._source.check_size(total)
            loading = Epochs(dataset, self._record, lambda done, size: self._waiting.show(done, size, total))
            plain = self._by_file(loading)
            cold, settle_seconds = self._cold(loading, mine)
            warm = self._warm(loading, mine)
            facts = mine.keeper.control.facts()
            found = [*plain, cold, *warm, *self._from_burst(loading, mine)]
            dataset.close()
        results = self._results(found, listing, facts)
        return msgspec.structs.replace(
            results, unreadable=unreadable, settle_seconds=settle_seconds, wrong_keys=loading.checker.wrong_keys
        )

    def _chosen(self, mine: Private) -> tuple[Dataset, list[str]]:
        """What the patterns leave of the listing, and what this user may read of that; and what not."""
        url, include, exclude = self._choice.url, self._choice.include, self._choice.exclude
        dataset = swingby.open(url, None, "never", include, exclude, settings=mine.settings)
        unreadable = self._source.unreadable(dataset.keys)
        if unreadable:
            dataset.close()
            exclude = [*exclude, *map(glob.escape, unreadable)]
            dataset = swingby.open(url, None, "never", include, exclude, settings=mine.settings)
        return dataset, unreadable

    def _by_file(self, loading: Epochs) -> list[Epoch]:
        read = self._source.reader(self._terms.latency_seconds)
        found: list[Epoch] = []
        while len(found) < self._terms.epochs and sum(one.seconds for one in found) < BY_FILE_SECONDS_MAX:
            self._waiting.begin(f"file by file, epoch {len(found) + 1}")
            found.append(loading.by_file(len(found) + 1, read))
        return found

    def _cold(self, loading: Epochs, mine: Private) -> tuple[Epoch, float]:
        """The first epoch, and the seconds until what it fetched was copied down."""
        self._waiting.begin("through Swingby, cold")
        found = loading.by_swingby("cold", 1, mine)
        self._waiting.begin("copying to the burst level")
        return found, mine.settle()

    def _warm(self, loading: Epochs, mine: Private) -> list[Epoch]:
        found = []
        for number in range(2, self._terms.epochs + 1):
            self._waiting.begin(f"through Swingby, epoch {number}")
            found.append(loading.by_swingby("warm", number, mine))
        return found

    def _from_burst(self, loading: Epochs, mine: Private) -> list[Epoch]:
        if not mine.forget_memory():
            return []
        self._waiting.begin("through Swingby, from the burst level")
        return [loading.by_swingby("burst", self._terms.epochs + 1, mine)]

    def _results(self, epochs: list[Epoch], listing: Listing, facts: dict[str, Any]) -> Results:
        """What there is to tell, all but the sentences."""
        directory = self._source.directory
        memory = {
            "available_bytes": available_memory_bytes(),
            "headroom_bytes": assemble.memory_headroom(self._settings),
        }
        file_system = file_system_of(directory) if directory else ""
        results = Results(
            version=swingby.__version__,
            taken_at=datetime.now().astimezone().isoformat(timespec="seconds"),
            url=self._choice.url,
            objects=epochs[0].objects,
            bytes=epochs[0].bytes,
            latency_ms=self._terms.latency_seconds * 1000,
            epochs_wanted=self._terms.epochs,
            batch_size=BATCH_SIZE,
            listing=listing,
            epochs=epochs,
            speedups=speedups(epochs, listing),
            levels=[
                LevelUse(name, level["used_bytes"], level["budget_bytes"], level["directory"])
                for name, level in facts["levels"].items()
            ],
            is_near=any(base["near"] for base in facts["bases"].values()),
            machine=this_machine()._asdict() | memory | {"file_system": file_system},
        )
        return msgspec.structs.replace(results, verdicts=verdicts(results))
