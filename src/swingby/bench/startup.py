"""First use: importing the library, opening and reading in a new process, starting a keeper that finds much."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from swingby import assemble, config
from swingby.bench import data
from swingby.bench.context import Context, keeper
from swingby.bench.figures import Figure
from swingby.core.segment import Segment
from swingby.keeper import place as places
from swingby.keeper.protocol import Status, Stop
from swingby.levels.segment_file import Run, SegmentFile

if TYPE_CHECKING:
    from collections.abc import Iterator

IMPORT_SECONDS_MAX = 0.15
FIRST_USE_SECONDS_MAX = 0.02
KEEPER_SECONDS_MAX = 0.3
FILES, FILE_BYTES = 4096, 16 << 10
SEGMENTS = 10_000

_IMPORT = "import time; start = time.perf_counter(); import swingby; print(time.perf_counter() - start)"
_FIRST_USE = """
import sys, time
import swingby
start = time.perf_counter()
dataset = swingby.open(sys.argv[1], refresh=sys.argv[3], settings={"home": sys.argv[2]})
data, offsets = dataset.batch(range(64)).packed()
print(time.perf_counter() - start, len(data))
"""


def run(context: Context) -> Iterator[Figure]:
    """Import, first use, start."""
    repetitions = max(2, context.repetitions)
    yield _median("import swingby", [_child(_IMPORT) for _ in range(repetitions)], IMPORT_SECONDS_MAX)
    count = context.size(FILES, 100)
    root = data.make_files(context, FILE_BYTES, count)
    with keeper() as ours:
        home = ours.settings.home
        _child(_FIRST_USE, root, home, "auto")
        snapshot = [_child(_FIRST_USE, root, home, "never") for _ in range(repetitions)]
        listed = [_child(_FIRST_USE, root, home, "always") for _ in range(repetitions)]
    yield _median("first use of a snapshot, keeper running", snapshot, FIRST_USE_SECONDS_MAX)
    yield _median(f"the same, listing {count} files anew", listed, None)
    yield _median(f"start of a keeper, {SEGMENTS} segments", _starts(context, repetitions), KEEPER_SECONDS_MAX)


def _median(name: str, samples: list[float], at_most: float | None) -> Figure:
    return Figure("startup", name, statistics.median(samples), "s", at_most=at_most, samples=samples)


def _child(code: str, *arguments: str) -> float:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[0])


def _starts(context: Context, repetitions: int) -> list[float]:
    """From a client's first word to the keeper's answer, with segments on both levels, half each."""
    with keeper({"memory.budget_bytes": 3 << 30}) as ours:
        place = places.place_of(ours.settings)
        ours.facts()
        ours.session.client.call(Stop(), 10)
        _fill(ours.settings, place.memory, context.size(SEGMENTS, 100) // 2)
        _fill(ours.settings, assemble.burst_directory(ours.settings, place), context.size(SEGMENTS, 100) // 2)
        found = []
        for _ in range(repetitions):
            _await_end(place.socket)
            ours.session.client.close()
            started = time.perf_counter()
            facts = ours.facts()
            found.append(time.perf_counter() - started)
            held = sum(level["segments"] for level in facts["levels"].values())
            if held != context.size(SEGMENTS, 100):
                raise AssertionError(f"the keeper found {held} segments")
            ours.session.client.call(Stop(), 10)
        ours.session.client.call(Status(), 10)
        return found


def _fill(settings: config.Settings, directory: str, count: int) -> None:
    boot = assemble.boot_id(settings)
    for number in range(count):
        segment = Segment(number.to_bytes(16, "little"), 4096, 1, packed=True)
        file = SegmentFile.create(directory, segment, boot)
        file.write(Run(0, 0, b"x" * 100, (1,)))
        file.close()


def _await_end(path: str) -> None:
    while os.path.exists(path):
        time.sleep(0.01)
