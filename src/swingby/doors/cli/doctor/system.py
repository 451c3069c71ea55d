"""Checks of kernel, memory, shared memory and open files."""

from __future__ import annotations

import os
import platform
import resource
from typing import TYPE_CHECKING

from swingby import assemble
from swingby.config import MIB
from swingby.doors.cli.doctor.finding import Finding, State
from swingby.doors.cli.machine import cgroup_of, file_system_of, this_machine
from swingby.doors.cli.quantities import number, size
from swingby.doors.cli.terminal import shown
from swingby.keeper.place import place_of
from swingby.levels.huge_pages import collapse
from swingby.levels.level import OPEN_FILES_MAX
from swingby.levels.mapping import HUGE_PAGE_BYTES
from swingby.levels.room import available_memory_bytes, usable_memory_bytes
from swingby.levels.unnamed_file import unnamed_file

if TYPE_CHECKING:
    from swingby.config import Settings
    from swingby.doors.cli.running import Running

CONTAINER_BYTES_MAX = 128 * MIB  # containers get a /dev/shm of 64 MiB unless told otherwise
SHARED = "shared memory"
MEMORY_FILE_SYSTEMS = {"tmpfs", "ramfs", ""}  # the last: where the system does not tell
SHARED_REMEDY = (
    "Start the container with --shm-size=8g (Kubernetes: an emptyDir with medium: Memory at /dev/shm), "
    "or set memory.directory to a larger tmpfs"
)


def kernel() -> Finding:
    """The kernel, and whether it gathers huge pages when asked."""
    machine = this_machine()
    text = f"{machine.system}, {machine.python}, {number(machine.cores)} cores of {machine.processor}"
    if platform.system() != "Linux":
        return Finding("system", State.NOTE, f"{text}; level 1 needs a tmpfs, which only Linux has")
    if not _gathers():
        note = f"{text}; MADV_COLLAPSE does not work: random reads of small samples take 15 to 20 % longer"
        return Finding("system", State.NOTE, note, "Linux 6.1 and later have it")
    return Finding("system", State.OK, f"{text}; MADV_COLLAPSE works")


def memory(settings: Settings, running: Running | None) -> Finding:
    """What level 1 may take, and whose memory it is."""
    usable, available = usable_memory_bytes(), available_memory_bytes()
    cgroup = cgroup_of(running.process) if running and running.process else cgroup_of(os.getpid())
    whose = "The keeper is" if running else "A keeper started here would be"
    charged = f" {whose} charged to the cgroup {shown(cgroup)}, and lives as long as it" if cgroup else ""
    headroom = assemble.memory_headroom(settings)
    text = f"{size(usable)} usable, {size(available)} available, of which {size(headroom)} stay free."
    if available < headroom:
        remedy = "Free memory, or lower memory.headroom_bytes"
        return Finding("memory", State.PROBLEM, f"{text} Level 1 takes nothing: too little is left.{charged}", remedy)
    return Finding("memory", State.OK, text + charged)


def shared_memory(settings: Settings) -> Finding:
    """The tmpfs of level 1."""
    directory = settings.memory.directory or "/dev/shm"
    shortcoming = _shortcoming(directory)
    if settings.memory.budget_bytes == 0:
        return Finding(SHARED, State.NOTE, "memory.budget_bytes is 0: level 1 is off")
    if shortcoming:
        return Finding(SHARED, State.PROBLEM, f"{shown(directory)} {shortcoming}", "Set memory.directory to a tmpfs")
    status = os.statvfs(directory)
    whole = status.f_blocks * status.f_frsize
    budget = assemble.memory_budget(settings, directory)
    wanted = settings.memory.budget_bytes or int(usable_memory_bytes() * assemble.MEMORY_SHARE)
    text = f"{shown(directory)} has {size(whole)}, {size(status.f_bavail * status.f_frsize)} free; level 1 "
    if budget < assemble.MEMORY_BYTES_MIN:
        return Finding(SHARED, State.PROBLEM, f"{text}is off: that is too little for it", SHARED_REMEDY)
    if whole <= CONTAINER_BYTES_MAX:
        text += f"has only {size(budget)}: containers get so little unless told otherwise"
        return Finding(SHARED, State.PROBLEM, text, SHARED_REMEDY)
    if budget < wanted:
        return Finding(SHARED, State.NOTE, f"{text}has {size(budget)} instead of {size(wanted)}", SHARED_REMEDY)
    return Finding(SHARED, State.OK, f"{text}has {size(budget)}")


def _shortcoming(directory: str) -> str:
    """Why a directory cannot hold level 1 at all; empty where it can."""
    if not os.path.isdir(directory):
        return "does not exist: level 1 is off"
    if not os.access(directory, os.W_OK):
        return "cannot be written: level 1 is off"
    kind = file_system_of(directory)
    return "" if kind in MEMORY_FILE_SYSTEMS else f"lies on {kind}, no tmpfs: level 1 would be on a disk"


def open_files() -> Finding:
    """The limit of open files, which the keeper raises as far as it may."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if 0 <= hard < 2 * OPEN_FILES_MAX:
        text = f"{number(hard)} at most; the keeper holds up to {number(2 * OPEN_FILES_MAX)}"
        return Finding("open files", State.NOTE, text, "Raise the hard limit: ulimit -Hn")
    return Finding("open files", State.OK, f"{number(hard)} at most" if hard >= 0 else "no limit")


def keeper(settings: Settings, running: Running | None) -> Finding:
    """The process behind the library."""
    place = place_of(settings)
    if running is None:
        return Finding("keeper", State.OK, f"none runs; the next use starts one for {shown(place.state)}")
    facts = running.facts()
    text = f"process {running.process} serves {shown(place.state)}; what it holds: `swingby status`"
    absent = [name for name in ("memory", "burst") if name not in facts["levels"]]
    if absent:
        return Finding(
            "keeper",
            State.NOTE,
            f"{text}. It has no {' and no '.join(absent)} level",
            "If the other checks are ok, run `swingby stop`: the next one takes the settings of now",
        )
    return Finding("keeper", State.OK, text)


def _gathers() -> bool:
    descriptor = unnamed_file("swingby-doctor")
    try:
        os.pwrite(descriptor, bytes(HUGE_PAGE_BYTES), 0)
        return collapse(descriptor, HUGE_PAGE_BYTES)
    except OSError:
        return False
    finally:
        os.close(descriptor)
