"""What a campaign leaves if it is killed, found by the folder it all lies in, and removed by the next one."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess

from swingby.testing.campaign.ground import ROOT, SHARED_MEMORY, processes_with

PREFIX = "swingby-campaign-"


def remove_dead() -> None:
    """Remove what campaigns left that live no more."""
    for root in (ROOT, SHARED_MEMORY):
        for name in os.listdir(root):
            number = name.removeprefix(PREFIX)
            if name.startswith(PREFIX) and number.isdigit() and not os.path.exists(f"/proc/{number}"):
                remove(os.path.join(root, name))


def remove(folder: str) -> None:
    """End every process that names the folder, unmount everything in it, and remove it."""
    for number in processes_with(folder + os.sep):
        if number != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
    for device in os.listdir("/sys/block"):
        with contextlib.suppress(OSError), open(f"/sys/block/{device}/loop/backing_file") as file:
            if file.read().startswith(folder + os.sep):
                subprocess.run(["losetup", "-d", f"/dev/{device}"], capture_output=True, check=False)
    for mounted in reversed(_mounted(folder)):
        subprocess.run(["umount", "-l", mounted], capture_output=True, check=False)
    shutil.rmtree(folder, ignore_errors=True)


def _mounted(folder: str) -> list[str]:
    with open("/proc/self/mounts") as file:
        paths = [line.split()[1].replace("\\040", " ") for line in file]
    return [path for path in paths if path.startswith(folder + os.sep)]
