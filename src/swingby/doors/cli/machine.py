"""What this machine is: for reports, whose figures mean little without it."""

from __future__ import annotations

import os
import platform
from typing import NamedTuple

from swingby.levels.room import usable_memory_bytes


class Machine(NamedTuple):
    """This machine.

    Attributes:
        processor: its model.
        cores: that this process may use.
        memory_bytes: that this process may use.
        system: kernel and architecture.
        python: implementation and version.
    """

    processor: str
    cores: int
    memory_bytes: int
    system: str
    python: str


def this_machine() -> Machine:
    """Look at it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return Machine(_processor(), cores, usable_memory_bytes(), system, python)


def file_system_of(path: str) -> str:
    """The type of the file system that a path lies on: "ext4", "tmpfs", "nfs4"; empty where the system does not tell."""
    target = os.path.realpath(path)
    best = ("", "")
    for line in _lines("/proc/self/mountinfo"):
        fields, _, rest = line.partition(" - ")
        point = fields.split()[4].encode().decode("unicode_escape")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):
            best = (point, rest.split()[0])
    return best[1]


def cgroup_of(process: int) -> str:
    """The control group that a process is charged to; empty where there is none."""
    for line in _lines(f"/proc/{process}/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "memory" in controllers.split(","):
            return path
    return ""


def _processor() -> str:
    for line in _lines("/proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().splitlines()
    except OSError:
        return []
