"""The fault campaign, small; the full one is in docs/reliability.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from swingby.testing.campaign import __main__ as campaign

SECONDS_MAX = 180.0
PARTS = sorted(set(campaign.PARTS) - {"power"})  # which takes loop devices: tests/hardware


@pytest.mark.parametrize("part", PARTS)
def test_a_small_campaign_finds_nothing_and_leaves_nothing(part):
    command = [sys.executable, "-m", "swingby.testing.campaign", part, "--small", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        said, complained = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 0, complained
    (result,) = json.loads(said)
    assert result["counts"]["steps"] + len(result["skipped"]) > 0
    for root in (campaign.ROOT, campaign.SHARED_MEMORY):
        assert not os.path.exists(os.path.join(root, f"swingby-campaign-{process.pid}"))


def test_a_failure_says_how_to_see_it_again(capsys, monkeypatch):
    def fails(job):
        for steps in job.rounds(2):
            with job.guard():
                for step in steps:
                    job.begin(step)
                    assert step != 3

    monkeypatch.setitem(campaign.PARTS, "kills", campaign.Part(fails, 6, 6, "a step"))
    assert campaign.main(["kills", "--seed", "7"]) == 1
    assert "FAILED kills --seed 7 --step 3" in capsys.readouterr().err
    assert campaign.main(["kills", "--seed", "7", "--step", "2"]) == 0
