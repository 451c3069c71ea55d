"""Every base passes the same suite."""

from __future__ import annotations

import os

import pytest

from swingby import config
from swingby.base.meter import MeteredBase
from swingby.base.posix import PosixBase
from swingby.base.retry import RetryingBase, RetryLimits
from swingby.base.s3 import S3Base
from swingby.testing.base_suite import ODD_KEYS, BaseSuite
from swingby.testing.faulty_base import Faults, FaultyBase
from swingby.testing.memory_base import MemoryBase


class TestMemoryBase(BaseSuite):
    def make_base(self):
        return MemoryBase()


class TestPosixBase(BaseSuite):
    has_flat_keys = False

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path):
        self.prefix = os.fsencode(str(tmp_path / "suite")).lstrip(b"/") + b"/"
        os.makedirs(b"/" + self.prefix)

    def make_base(self):
        return PosixBase("file:test", 4)

    def make_absent(self, base):
        return base, self.prefix + b"missing/"


class TestPosixBaseThatIsSlow(TestPosixBase):
    """The listing's threads."""

    @pytest.fixture(autouse=True)
    def slow(self, monkeypatch):
        monkeypatch.setattr("swingby.base.posix_walk.SLOW_STAT_SECONDS", -1.0)


class TestStackOverABaseThatFails(BaseSuite):
    """Retries make a base that fails now and then as good as any."""

    def make_base(self):
        faulty = FaultyBase(MemoryBase(), Faults(error=0.2, truncate=0.2), seed=5, sleep=lambda _: None)
        limits = RetryLimits(count_max=50, delay_seconds_max=0.001, seconds_max=60)
        return RetryingBase(MeteredBase(faulty), limits, sleep=lambda _: None)


class TestS3BaseOnCeph(BaseSuite):
    """The quick way, and our own requests for odd keys."""

    odd_keys = (*ODD_KEYS, b"a/../b", b"a/./b", b"a//b", b"./x", b"..", b"delete\x7f", b"folder with bytes/")

    @pytest.fixture(autouse=True)
    def settings(self, ceph, bucket):
        self.settings = config.load(ceph.settings())
        self.bucket = bucket

    def make_base(self):
        return S3Base(self.bucket, self.settings.s3, self.settings.fetch)

    def make_absent(self, base):
        return S3Base("no-such-bucket", self.settings.s3, self.settings.fetch), b""


class TestS3BaseThroughObstore(TestS3BaseOnCeph):
    """The general way, which proxies and unusual answers take."""

    def make_base(self):
        base = super().make_base()
        base._wire = None
        return base


def test_odd_keys_of_the_suite_are_distinct():
    assert len(set(ODD_KEYS)) == len(ODD_KEYS)
