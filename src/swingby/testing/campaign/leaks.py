"""Looks for what a home should not hold: strays, files nobody refers to, bytes beyond the budgets, descriptors, processes."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Any

from swingby import assemble
from swingby.errors import SwingbyError
from swingby.keeper import orphans
from swingby.keeper.manifests import ManifestStore
from swingby.levels.directory import ASIDE
from swingby.testing.campaign.job import until

if TYPE_CHECKING:
    from swingby.testing.campaign.ground import Ground

JANITOR_SECONDS_MAX = 6.0  # a round a second, and time for a busy machine
DESCRIPTORS_BESIDE_MAX = 40  # of a keeper without clients, beside two for each segment that is open
STATE_NAMES = {"lock", "keeper.log", "burst", "manifests"}
LEVEL_NAMES = {"lock", "board", ASIDE, orphans.LINK}
SIZE_SLACK_BYTES = 64 << 10  # of a file system's own blocks, for each segment

_PAIR = re.compile(r"([0-9a-f]{32}\.[0-9a-f]{16})(\.seg|\.map|\.was)")


def check(ground: Ground, seconds_max: float = JANITOR_SECONDS_MAX) -> None:
    """Let the janitor do a round, then look everywhere.

    Raises:
        BrokenPromiseError: something is left that should not be.
    """
    ground.session.client.close()  # what threads of this process left idle is no leak
    ground.facts()
    until(lambda: "; ".join(_complaints(ground)), seconds_max, "A LEAK")


def _complaints(ground: Ground) -> list[str]:
    place = ground.place
    burst = assemble.burst_directory(ground.settings, place)
    facts = ground.facts()
    keepers = ground.keepers()
    found = [f"{len(keepers)} keepers"] if len(keepers) != 1 else []
    found += [f"stray {name} in state" for name in _names(place.state) - STATE_NAMES]
    found += [f"stray {name} in runtime" for name in _names(place.runtime) - {"lock", "socket"}]
    found += _level(place.memory) + _level(burst)
    found += _manifests(ground)
    for name, folder in (("memory", place.memory), ("burst", burst)):
        found += _sizes(folder, facts["levels"].get(name), name)
    if facts["plans"] or facts["clients"] > 1:
        found.append(f"{facts['plans']} plans, {facts['clients']} clients")
    for number in keepers:
        found += _descriptors(number, facts)
    return found


def _level(folder: str) -> list[str]:
    """Names that do not belong there or are half of a pair."""
    suffixes: dict[str, set[str]] = {}
    strays = []
    for name in _names(folder) - LEVEL_NAMES:
        if match := _PAIR.fullmatch(name):
            suffixes.setdefault(match[1], set()).add(match[2])
        else:
            strays.append(f"stray {name} on a level")
    halves = [name for name, found in suffixes.items() if not {".seg", ".map"} <= found]
    doubles = len(suffixes) - len({name.partition(".")[0] for name in suffixes})
    strays += [f"half a pair: {name}" for name in halves]
    return strays + ([f"{doubles} segments twice"] if doubles else [])


def _manifests(ground: Ground) -> list[str]:
    """Files that no place record leads to."""
    folder = os.path.join(ground.place.state, "manifests")
    store = ManifestStore(folder, ground.settings.listing.manifests_kept_max)
    digests = {listing.digest for record in store.places() for listing in record.listings}
    shards = set()
    for digest in digests:
        with contextlib.suppress(SwingbyError):
            shards |= {f"{info.digest.hex()}.shard" for info in store.load(digest).root.shards}
    found = [f"stray root {name}" for name in _names(f"{folder}/roots") - {f"{digest}.root" for digest in digests}]
    found += [f"stray shard {name}" for name in _names(f"{folder}/shards") - shards]
    return found + [f"stray {name} in places" for name in _names(f"{folder}/places") if "." in name]


def _sizes(folder: str, level: dict[str, Any] | None, name: str) -> list[str]:
    """Whether a level takes what it says, and no more than it may."""
    if level is None:
        return []
    segments, aside = _segments(folder), _segments(os.path.join(folder, ASIDE))
    taken = sum(segments) + sum(aside)
    slack = SIZE_SLACK_BYTES * (len(segments) + len(aside) + 1)
    found = []
    if taken > level["budget_bytes"] + slack:
        found.append(f"{name} takes {taken} bytes, its budget is {level['budget_bytes']}")
    if abs(taken - level["used_bytes"]) > slack or len(segments) != level["segments"]:
        found.append(f"{name} takes {taken} in {len(segments)} and says {level['used_bytes']} in {level['segments']}")
    return found


def _segments(folder: str) -> list[int]:
    """Bytes taken by each."""
    try:
        return [entry.stat().st_blocks * 512 for entry in os.scandir(folder) if entry.name.endswith(".seg")]
    except FileNotFoundError:
        return []


def _descriptors(number: int, facts: dict[str, Any]) -> list[str]:
    """Descriptors a keeper should not hold."""
    segments = sum(level["segments"] for level in facts["levels"].values())
    folder = f"/proc/{number}/fd"
    links = []
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"{folder}/{name}"))
    found = [f"the keeper holds {link}" for link in links if link.endswith(".seg (deleted)")]
    if len(links) > DESCRIPTORS_BESIDE_MAX + 2 * segments:
        found.append(f"the keeper holds {len(links)} descriptors with {segments} segments")
    with open(f"/proc/{number}/maps") as file:
        found += [f"the keeper has mapped {line.split()[-2]}" for line in file if line.endswith(".seg (deleted)\n")]
    return found


def _names(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()
