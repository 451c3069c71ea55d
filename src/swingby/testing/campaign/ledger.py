"""What a job was fed, attempt by attempt, and whether that is what it must be."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from swingby.testing.campaign.job import promise

if TYPE_CHECKING:
    from collections.abc import Sequence

Given = list[tuple[str | None, str]]  # key, where it is known, and digest of each sample


class Step(NamedTuple):
    """What one rank was given in one step.

    Attributes:
        state: behind it.
        samples: key and digest.
        bad: key, reason and substitute of those that were replaced in it.
    """

    state: dict[str, Any]
    samples: Given
    bad: list[tuple[str, str, str]]


class Report(NamedTuple):
    """What a rank wrote down in an attempt.

    Attributes:
        steps: one after another, over all epochs.
        end: the name of the error it ended with, empty without one; None if it was not heard of any more.
        text: of the error.
    """

    steps: list[Step]
    end: str | None
    text: str


def read_report(path: str) -> Report:
    """What a rank wrote; a half line at the end is none."""
    steps: list[Step] = []
    end, text, replaced = None, "", 0
    try:
        with open(path) as file:
            lines = [json.loads(line) for line in file if line.endswith("\n")]
    except FileNotFoundError:
        lines = []
    for line in lines:
        if "end" in line:
            end, text = line["end"], line.get("text", "")
            continue
        if steps and steps[-1].state["epoch"] != line["state"]["epoch"]:
            replaced = 0
        bad = [tuple(one) for one in line["bad"]]
        if len(bad) < replaced:  # another loader of the same epoch
            replaced = 0
        steps.append(Step(line["state"], [tuple(one) for one in line["samples"]], bad[replaced:]))
        replaced = len(bad)
    return Report(steps, end, text)


class Ledger:
    """The samples of committed steps of one snapshot.

    Args:
        orders: the keys of each epoch, in order.
        digests: of the samples, by key.
    """

    def __init__(self, orders: list[list[str]], digests: dict[str, str]) -> None:
        self._orders = orders
        self._digests = digests
        self._keys = {digest: key for key, digest in digests.items()}
        self._consumed = [0] * len(orders)
        self.replaced: dict[tuple[int, str], set[str]] = {}  # epoch and key: substitutes
        self.reasons: Counter[str] = Counter()

    @property
    def is_complete(self) -> bool:
        """Whether every epoch was given wholly."""
        return self._consumed == [len(order) for order in self._orders]

    def look(self, reports: Sequence[Report]) -> None:
        """Check everything that was given, committed or not, for right bytes, and that ranks keep step."""
        for report in reports:
            for step in report.steps:
                for key, digest in step.samples:
                    promise(digest in self._keys, f"WRONG BYTES of {key}")
                    promise(key is None or self._digests.get(key) == digest, f"WRONG BYTES of {key}: those of another")
        for steps in zip(*(report.steps for report in reports), strict=False):
            states = [step.state for step in steps]
            promise(all(state == states[0] for state in states), f"ranks stand at different places: {states}")
        if all(report.end == "" for report in reports):
            counts = [len(report.steps) for report in reports]
            promise(len(set(counts)) == 1, f"ranks were given {counts} batches")

    def commit(self, reports: Sequence[Report], steps: int) -> dict[str, Any] | None:
        """Count the first `steps` of all ranks as consumed; the state behind them, None without any."""
        state = None
        for number in range(steps):
            parts = [report.steps[number] for report in reports]
            state = parts[0].state
            self._count(state, parts)
        return state

    def _count(self, state: dict[str, Any], parts: list[Step]) -> None:
        """One step of all ranks."""
        epoch, first = state["epoch"], self._consumed[state["epoch"]]
        order = self._orders[epoch]
        left = state["consumed"] - first
        promise(0 < left <= len(order) - first, f"epoch {epoch}: a step goes from {first} to {state['consumed']}")
        given: list[tuple[str | None, str]] = []
        for rank, part in enumerate(parts):
            is_stand_in = left < len(parts) and rank >= left  # PyTorch's batches are never empty: the first again
            given += [] if is_stand_in else part.samples
        bad = [one for part in parts for one in part.bad]
        promise(
            len(given) == left, f"epoch {epoch}: {len(given)} samples were given between {first} and {first + left}"
        )
        for place, (key, digest) in enumerate(given):
            wanted, found = order[first + place], key or self._keys[digest]
            if wanted != found:
                why = [one for one in bad if one[0] == wanted and one[2] == found]
                promise(why, f"epoch {epoch}, sample {first + place} is {found}, not {wanted}, and `bad` is {bad}")
                self.replaced.setdefault((epoch, wanted), set()).add(found)
        for key, reason, _ in bad:
            promise(key in order[first : first + left], f"{key} was replaced in a step it is not of: {reason}")
            self.reasons[reason] += 1
        self._consumed[epoch] = state["consumed"]

    def commit_whole(self, reports: Sequence[Report]) -> dict[str, Any] | None:
        """Count epochs that all ranks were given wholly, of readers without positions."""
        state = None
        for parts in zip(*(report.steps for report in reports), strict=False):
            epoch = parts[0].state["epoch"] - 1
            found = Counter(key or self._keys[digest] for part in parts for key, digest in part.samples)
            wanted = Counter(self._orders[epoch])
            promise(found == wanted, f"epoch {epoch}: more {found - wanted}, fewer {wanted - found}")
            self._consumed[epoch] = len(self._orders[epoch])
            state = parts[0].state
        return state
