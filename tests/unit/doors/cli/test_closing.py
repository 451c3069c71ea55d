"""A keeper inside a process leaves nothing behind that still writes, and the library says nothing unasked."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time

import swingby
from swingby.core.segment import Segment
from swingby.levels.block_reader import BlockReader
from swingby.levels.level import Level, LevelOptions
from swingby.levels.room import DiskRoom
from swingby.testing.harness import inline
from swingby.testing.memory_base import MemoryBase


def test_no_copy_to_burst_goes_on_after_the_keeper_has_closed(home, caplog):
    base = MemoryBase({b"data/%03d" % n: random.Random(n).randbytes(200_000) for n in range(300)})
    with inline(home, base=base) as found, swingby.open("memory://x/data", settings=found.settings) as dataset:
        level, began = found.keeper.engine.levels.burst, threading.Event()
        fill = level.fill
        level.fill = lambda *args: (began.set(), time.sleep(0.01), fill(*args))
        dataset.batch(range(300))
        assert began.wait(10)
    assert not [thread for thread in threading.enumerate() if thread.name == "swingby-janitor"]
    assert not caplog.records


def test_the_segment_being_copied_counts_as_waiting(home):
    base = MemoryBase({b"data/%d" % n: random.Random(n).randbytes(200_000) for n in range(3)})
    seen = []
    with inline(home, base=base) as found, swingby.open("memory://x/data", settings=found.settings) as dataset:
        upkeep = found.keeper.upkeep
        copy = upkeep._copy
        upkeep._copy = lambda *args: (seen.append(upkeep.waiting_count), copy(*args))
        dataset.batch(range(3))
        end = time.monotonic() + 10
        while upkeep.waiting_count and time.monotonic() < end:
            time.sleep(0.01)
        assert upkeep.waiting_count == 0
    assert seen
    assert min(seen) >= 1


def test_a_file_held_when_the_level_closes_is_closed_by_its_release(tmp_path):
    options = LevelOptions("burst", str(tmp_path), 1 << 30, bytes(16))
    level = Level(options, DiskRoom(str(tmp_path), 0.0), BlockReader(direct=False))
    file = level.acquire(Segment(b"s" * 16, 100, 1, packed=True), create=True)
    level.close()
    os.fstat(file.descriptor)
    level.release(file)
    assert file.descriptor == -1


def test_the_library_logs_nothing_unless_asked():
    code = "import swingby, logging; logging.getLogger('swingby.keeper').warning('to be heard by nobody')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
