"""A file system on a disk whose power can be cut: a volatile disk served by nbdkit, seen as a file, on a loop device.

It needs root, nbdkit with its Python plugin, nbdfuse and loop devices, and leaves none of them in use.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from typing import Self

from swingby.testing.campaign import volatile_disk
from swingby.testing.campaign.job import promise, until

PROGRAMS = ("nbdkit", "nbdfuse", "losetup", "mount", "umount", "fusermount3")
MAKE = {"ext4": ("mkfs.ext4", "-q", "-F", "-E", "nodiscard"), "xfs": ("mkfs.xfs", "-q", "-f", "-K")}
SIZE_BYTES = 384 << 20  # xfs takes no less than 300 MiB
WAIT_SECONDS_MAX = 20.0


def missing() -> str:
    """What this machine lacks; empty when nothing."""
    if os.geteuid() != 0:
        return "power cuts need root"
    for name in (*PROGRAMS, *(make[0] for make in MAKE.values())):
        if not shutil.which(name):
            return f"power cuts need {name}"
    if _run("nbdkit", "--dump-plugin", "python").returncode:
        return "power cuts need nbdkit's plugin for Python"
    if _run("losetup", "-f").returncode or not os.path.exists("/dev/fuse"):
        return "power cuts need loop devices and /dev/fuse"
    return ""


class Disk:
    """See the module's text. A context manager: at its end everything is undone.

    Args:
        folder: for the image and the places it is mounted at; made.
        kind: "ext4" or "xfs".

    Attributes:
        root: of the file system.
    """

    def __init__(self, folder: str, kind: str) -> None:
        self.root = os.path.join(folder, "root")
        self._fuse = os.path.join(folder, "fuse")
        self._image = os.path.join(folder, "image")
        self._control = os.path.join(folder, "control")
        self._kind = kind
        self._server: subprocess.Popen[bytes] | None = None
        self._loop = ""
        self._is_mounted = False  # a dead file system does not tell
        for path in (self.root, self._fuse):
            os.makedirs(path)
        with open(self._image, "wb") as file:
            file.truncate(SIZE_BYTES)
        try:
            self._attach()
            _must(*MAKE[kind], self._loop)
        finally:
            self._detach()

    def on(self) -> None:
        """Switch the power on and mount what survived."""
        self._attach()
        _must("mount", "-t", self._kind, self._loop, self.root)
        self._is_mounted = True

    def cut_after(self, operations: int, seed: int) -> None:
        """Cut the power after so many more writes and flushes."""
        with open(self._control + ".new", "w") as file:
            file.write(f"{operations} {seed}")
        os.rename(self._control + ".new", self._control)

    @property
    def is_cut(self) -> bool:
        """Whether the power is off by now."""
        return os.path.exists(self._control + ".cut")

    def cut(self, seed: int) -> None:
        """Cut the power at once, if that has not happened."""
        if not self.is_cut:
            self.cut_after(0, seed)
        until(self._lives_on, WAIT_SECONDS_MAX, "the disk was not cut off")

    def off(self) -> tuple[int, int]:
        """Let go of the dead disk; unflushed sectors that survived, and that were lost."""
        with open(self._control + ".cut") as file:
            kept, lost = map(int, file.read().split())
        self._detach()
        os.unlink(self._control + ".cut")
        return kept, lost

    def close(self) -> None:
        """Undo everything."""
        self._detach()
        os.unlink(self._image)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lives_on(self) -> bool:
        """Send the disk a request that nothing answers in its place; whether there is still power."""
        with contextlib.suppress(OSError):
            descriptor = os.open(os.path.join(self._fuse, "disk"), os.O_RDWR)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return not self.is_cut

    def _attach(self) -> None:
        file = os.path.join(self._fuse, "disk")
        plugin = ["nbdkit", "-f", "python", volatile_disk.__file__, f"image={self._image}", f"control={self._control}"]
        self._server = subprocess.Popen(
            ["nbdfuse", file, "--socket-activation", *plugin], stderr=subprocess.DEVNULL, start_new_session=True
        )
        until(lambda: "" if os.path.exists(file) else "absent", WAIT_SECONDS_MAX, "nbdfuse does not serve the disk")
        self._loop = _must("losetup", "-f", "--show", file).strip()

    def _detach(self) -> None:
        holders = ""
        if self._is_mounted and _retried("umount", self.root):
            holders = _holders(self.root)
            _run("umount", "-l", self.root)
        self._is_mounted = False
        if self._loop:
            _run("losetup", "-d", self._loop)
            until(lambda: _is_used(self._loop), WAIT_SECONDS_MAX, f"the loop device stays in use: {holders}")
            self._loop = ""
        if self._server:
            if _retried("fusermount3", "-u", self._fuse):
                _run("fusermount3", "-uz", self._fuse)
            try:
                self._server.wait(WAIT_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
            self._server = None


def _is_used(device: str) -> str:
    backing = f"/sys/block/{os.path.basename(device)}/loop/backing_file"
    try:
        with open(backing) as file:
            return file.read().strip()
    except OSError:
        return ""


def _holders(folder: str) -> str:
    """Who has what open there."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            links = [os.readlink(f"/proc/{process}/fd/{name}") for name in os.listdir(f"/proc/{process}/fd")]
            found += [f"{process} {link}" for link in links if link.startswith(folder)]
    return "; ".join(found)


def _retried(*command: str) -> bool:
    """Run a command until it succeeds; whether it never did."""
    for _ in range(50):
        if _run(*command).returncode == 0:
            return False
        time.sleep(0.1)
    return True


def _must(*command: str) -> str:
    done = _run(*command)
    promise(done.returncode == 0, f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)
