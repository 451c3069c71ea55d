"""Every base passes the same suite."""

from __future__ import annotations

import os
import re
import socket

import pytest

from swingby import config
from swingby.base.azure import azure_base
from swingby.base.meter import MeteredBase
from swingby.base.posix import PosixBase
from swingby.base.retry import RetryingBase, RetryLimits
from swingby.base.s3 import S3Base
from swingby.base.web import WebBase
from swingby.errors import ObjectExistsError
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


class TestS3BaseInTheHostName(TestS3BaseOnCeph):
    """Virtual-hosted addressing: the bucket is a part of the host name, and signed as such."""

    @pytest.fixture(autouse=True)
    def addressing(self, ceph, settings, monkeypatch):
        port = ceph.endpoint.rpartition(":")[2]
        endpoint = {"s3.endpoint": f"http://localhost:{port}", "s3.path_style": False}
        self.settings = config.load(ceph.settings() | endpoint)
        real = socket.getaddrinfo

        def on_loopback(host, *rest, **named):
            return real("127.0.0.1" if str(host).endswith(".localhost") else host, *rest, **named)

        monkeypatch.setattr(socket, "getaddrinfo", on_loopback)
        # obstore asks the system for the host's address; so writes take our own requests here.
        monkeypatch.setattr("swingby.base.s3._ODD_KEY", re.compile(b""))

    def test_the_bucket_is_in_the_host_name(self, base):
        assert base._place.origin.startswith(f"http://{self.bucket}.localhost:")
        assert base._place.path == ""
        assert base._wire is not None


class TestAzureBaseOnAzurite(BaseSuite):
    """Through obstore, which refuses control characters; Azure turns backslashes into slashes."""

    odd_keys = tuple(key for key in ODD_KEYS if not {b"\n", b"\t", b"\\"} & {key[i : i + 1] for i in range(len(key))})

    @pytest.fixture(autouse=True)
    def settings(self, azurite, container):
        self.settings = config.load(azurite.settings())
        self.container = container

    def make_base(self):
        return azure_base(self.container, self.settings.az, self.settings.fetch)

    def make_absent(self, base):
        return azure_base("no-such-container", self.settings.az, self.settings.fetch), b""


class ListOnWeb(WebBase):
    """A list whose files are put into the server by another way than the web."""

    def __init__(self, server, limits):
        super().__init__("http", f"{server.host}/list.txt", limits, 4)
        self._server = server

    def write(self, key, data, *, if_absent=False):
        if if_absent and key in self._server.objects:
            raise ObjectExistsError(key)
        self._server.objects[key] = bytes(data)
        return self.stat(key)

    def delete(self, key):
        self._server.objects.pop(key, None)


class TestWebBase(BaseSuite):
    """Lines of a list are URLs: `?` begins a query, `#` is no part of them, space around them does not count."""

    odd_keys = tuple(key for key in ODD_KEYS if key == key.strip() and not set(b"#%\n") & set(key))

    @pytest.fixture(autouse=True)
    def server(self, web):
        self.server = web

    def make_base(self):
        return ListOnWeb(self.server, config.load().fetch)

    def make_absent(self, base):
        return WebBase("http", f"{self.server.host}/no-list.txt", config.load().fetch, 4), b""


class TestWebBaseWithoutRanges(TestWebBase):
    @pytest.fixture(autouse=True)
    def habits(self, server):
        self.server.habits.ranges = False


class TestWebBaseWithoutHeadAndLength(TestWebBase):
    @pytest.fixture(autouse=True)
    def habits(self, server):
        self.server.habits.head = self.server.habits.length = False


class TestWebBaseOfUnknownLengthWithoutRanges(TestWebBaseWithoutHeadAndLength):
    @pytest.fixture(autouse=True)
    def no_ranges(self, habits):
        self.server.habits.ranges = False


def test_odd_keys_of_the_suite_are_distinct():
    assert len(set(ODD_KEYS)) == len(ODD_KEYS)
