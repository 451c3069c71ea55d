"""Power cuts of a real file system; they take root, nbdkit and loop devices."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from swingby.testing.campaign import disk

SECONDS_MAX = 300.0


def test_after_a_few_power_cuts_every_byte_is_right_and_nothing_is_left():
    if absent := disk.missing():
        pytest.skip(absent)
    command = [sys.executable, "-m", "swingby.testing.campaign", "power", "--small", "--count", "12"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        _, said = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 0, said
    with open("/proc/self/mounts") as file:
        assert f"swingby-campaign-{process.pid}" not in file.read()
    assert not os.path.exists(f"/tmp/swingby-campaign-{process.pid}")
