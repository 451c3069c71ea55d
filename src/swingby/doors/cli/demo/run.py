"""Runs the demo from beginning to end."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import swingby
from swingby.assemble import Hooks
from swingby.doors.cli.demo.epochs import BATCH_SIZE, Epochs
from swingby.doors.cli.demo.far import FarBase, Record
from swingby.doors.cli.demo.private import private
from swingby.doors.cli.demo.results import LevelUse, Listing, Results, speedups
from swingby.doors.cli.demo.source import Source
from swingby.doors.cli.demo.story import verdicts
from swingby.doors.cli.machine import file_system_of, this_machine
from swingby.doors.cli.terminal import shown
from swingby.errors import ObjectChangedError

if TYPE_CHECKING:
    from swingby.config import Settings
    from swingby.data.dataset import Dataset
    from swingby.doors.cli.demo.private import Private
    from swingby.doors.cli.demo.results import Epoch
    from swingby.doors.cli.demo.source import Choice, Objects
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


class _Ours(NamedTuple):
    """What came of loading through Swingby."""

    epochs: list[Epoch]
    listing_seconds: float
    settle_seconds: float
    levels: list[LevelUse]
    is_near: bool


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
            SwingbyError: the base's, or ObjectChangedError where it changed meanwhile.
        """
        self._waiting.begin("listing")
        objects = self._source.find()
        total = sum(objects.sizes)
        epochs = Epochs(objects, self._record, lambda done, size: self._waiting.show(done, size, total))
        plain = self._by_file(epochs)
        listing_seconds = self._source.listing_seconds()
        with private(self._settings, self._hooks) as mine:
            ours = self._by_swingby(epochs, objects, mine)
        listing = Listing(objects.listed, listing_seconds, ours.listing_seconds)
        return self._results(objects, epochs.checker.wrong_keys, plain, listing, ours)

    def _by_file(self, epochs: Epochs) -> list[Epoch]:
        read = self._source.reader(self._terms.latency_seconds)
        found: list[Epoch] = []
        while len(found) < self._terms.epochs and sum(one.seconds for one in found) < BY_FILE_SECONDS_MAX:
            self._waiting.begin(f"file by file, epoch {len(found) + 1}")
            found.append(epochs.by_file(len(found) + 1, read))
        return found

    def _by_swingby(self, epochs: Epochs, objects: Objects, mine: Private) -> _Ours:
        self._waiting.begin("listing through Swingby")
        started = time.perf_counter()
        dataset = self._open(objects, mine)
        listing_seconds = time.perf_counter() - started
        if list(dataset.keys) != objects.keys:
            raise ObjectChangedError(
                f"what lies under {shown(self._choice.url)} changed while the demo ran",
                remedy="Choose something that nobody writes meanwhile",
            )
        self._waiting.begin("through Swingby, cold")
        found = [epochs.by_swingby("cold", 1, dataset, mine)]
        self._waiting.begin("copying to the burst level")
        settle_seconds = mine.settle()
        for number in range(2, self._terms.epochs + 2):
            self._waiting.begin(f"through Swingby, epoch {number}")
            found.append(epochs.by_swingby("warm", number, dataset, mine))
        facts = mine.keeper.control.facts()
        if mine.forget_memory():
            self._waiting.begin("through Swingby, from the burst level")
            found.append(epochs.by_swingby("burst", self._terms.epochs + 2, dataset, mine))
        dataset.close()
        levels = [
            LevelUse(name, level["used_bytes"], level["budget_bytes"], level["directory"])
            for name, level in facts["levels"].items()
        ]
        is_near = any(base["near"] for base in facts["bases"].values())
        return _Ours(found, listing_seconds, settle_seconds, levels, is_near)

    def _open(self, objects: Objects, mine: Private) -> Dataset:
        url, include = self._choice.url, self._choice.include
        return swingby.open(url, None, "always", include, self._source.exclusions(objects), settings=mine.settings)

    def _results(
        self, objects: Objects, wrong_keys: list[str], plain: list[Epoch], listing: Listing, ours: _Ours
    ) -> Results:
        wanted, epochs = self._terms.epochs, [*plain, *ours.epochs]
        ratios = speedups(epochs, listing, wanted)
        directory = self._source.directory
        return Results(
            version=swingby.__version__,
            taken_at=datetime.now().astimezone().isoformat(timespec="seconds"),
            url=self._choice.url,
            objects=len(objects.keys),
            bytes=sum(objects.sizes),
            unreadable=objects.unreadable,
            latency_ms=self._terms.latency_seconds * 1000,
            epochs_wanted=wanted,
            batch_size=BATCH_SIZE,
            listing=listing,
            epochs=epochs,
            speedups=ratios,
            verdicts=verdicts(epochs, listing, ratios, wanted, is_near=ours.is_near),
            levels=ours.levels,
            is_near=ours.is_near,
            settle_seconds=ours.settle_seconds,
            wrong_keys=wrong_keys,
            machine=this_machine()._asdict() | {"file_system": file_system_of(directory) if directory else ""},
        )
