"""The command line over a real S3 gateway."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest

from swingby import assemble, config
from swingby.assemble import Hooks
from swingby.doors.cli.running import Running
from swingby.keeper.protocol import Location
from swingby.testing import ceph as ceph_s3

SWINGBY = [sys.executable, "-c", "from swingby.doors.cli.main import main; main()"]


@pytest.fixture
def access(ceph):
    return {
        "s3.endpoint": ceph.endpoint,
        "s3.access_key_id": ceph_s3.ACCESS_KEY_ID,
        "s3.secret_access_key": ceph_s3.SECRET_ACCESS_KEY,
    }


@pytest.fixture
def cli(home, access):
    settings = [f"--set={key}={value}" for key, value in access.items()]

    def run(*arguments, code=0):
        done = subprocess.run(
            [*SWINGBY, "--home", home, *settings, *arguments], check=False, capture_output=True, text=True
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert ceph_s3.SECRET_ACCESS_KEY not in done.stdout + done.stderr
        return done

    yield run
    if keeper := Running.find(config.load({"home": home})):
        keeper.stop()


@pytest.fixture
def sizes(bucket, access):
    """Objects in the bucket under data/, by key."""
    settings = config.load(access)
    base, _ = assemble.make_base(Location("s3", bucket, b"", settings.s3), settings, Hooks())
    rng = random.Random(0)
    found = {f"{number:03d} ü.bin": rng.randbytes(rng.randint(1, 20_000)) for number in range(50)}
    for key, data in found.items():
        base.write(f"data/{key}".encode(), data)
    base.close()
    return {key: len(data) for key, data in found.items()}


def test_a_bucket_is_warmed_verified_and_evicted(cli, bucket, sizes):
    url = f"s3://{bucket}/data"
    assert "50 objects present" in cli("warm", url).stdout
    facts = json.loads(cli("status", "--json").stdout)
    assert facts["base_bytes"] == sum(sizes.values())
    assert [base["near"] for base in facts["bases"].values()] == [False]
    cli("verify")
    assert "Evicted" in cli("evict", url).stdout


def test_doctor_reaches_a_bucket_and_keeps_its_secret(cli, bucket, sizes):
    report = json.loads(cli("doctor", f"s3://{bucket}/data", "--json").stdout)
    checks = {check["name"]: check for check in report["checks"]}
    assert f"{len(sizes)} objects" in checks["base"]["text"]
    assert ["s3.secret_access_key", "(set)", "--set"] in report["settings"]
    assert any("away, the burst level" in sentence for sentence in report["plan"])


def test_a_missing_bucket_is_not_found(cli, bucket):
    assert cli("warm", f"s3://{bucket}-absent", code=3).stderr.startswith("error: ")
    assert "problem" in cli("doctor", f"s3://{bucket}-absent", code=1).stdout


def test_the_demo_loads_a_bucket_both_ways(cli, bucket, sizes, tmp_path):
    results = json.loads(cli("demo", f"s3://{bucket}/data", "--json", "--report", str(tmp_path / "x.html")).stdout)
    assert results["objects"] == len(sizes)
    assert {epoch["wrong_objects"] for epoch in results["epochs"]} == {0}
    requests = {epoch["way"]: epoch["base_requests"] for epoch in results["epochs"]}
    assert requests == {"file by file": 50, "cold": 50, "warm": 0, "burst": 0}
