"""fsspec's own abstract suite, its reading side, over files and over a bucket of a real Ceph."""

from __future__ import annotations

import os

import pytest

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
from fsspec.tests.abstract import AbstractFixtures, AbstractGetTests

from swingby.doors.fsspec import SwingbyFileSystem


class OverTarget(SwingbyFileSystem):
    """The file system under test; what the suite writes first goes to the target's own file system."""

    cachable = False

    def __init__(self, target_protocol, target_options, **others):
        super().__init__(target_protocol, target_options, **others)
        target = fsspec.filesystem(self.target_protocol, **target_options)
        for name in ("mkdir", "makedirs", "touch", "pipe", "rm"):
            setattr(self, name, getattr(target, name))


class OverFiles(AbstractFixtures):
    @pytest.fixture
    def fs(self, home):
        return OverTarget("file", {"auto_mkdir": True}, settings={"home": home, "keeper.mode": "off"})

    @pytest.fixture
    def fs_path(self, tmp_path):
        path = tmp_path / "remote"
        path.mkdir()
        return str(path)


class OverBucket(AbstractFixtures):
    @pytest.fixture
    def fs(self, home, ceph, swingby_keeper_of_test):
        pytest.importorskip("s3fs", reason="s3fs writes what this suite reads")
        settings = ceph.settings()
        options = {"key": settings["s3.access_key_id"], "secret": settings["s3.secret_access_key"]}
        options |= {"endpoint_url": ceph.endpoint, "client_kwargs": {"region_name": settings["s3.region"]}}
        options |= {"use_listings_cache": False}
        return OverTarget("s3", options, settings={"home": home, "keeper.mode": "auto"})

    @pytest.fixture
    def fs_path(self, bucket):
        return bucket

    @pytest.fixture
    def supports_empty_directories(self):
        return False

    @pytest.fixture
    def swingby_keeper_of_test(self, home):
        yield
        from swingby import sessions
        from swingby.keeper.protocol import Stop

        for session in [one for one in sessions._sessions.values() if one.settings.home == home]:
            session.client.call(Stop(), 10)
            session.client.close()
            sessions.forget(session)


class TestGettingFromFiles(OverFiles, AbstractGetTests):
    pass


class TestGettingFromABucket(OverBucket, AbstractGetTests):
    pass


def test_the_rest_of_the_suite_writes():
    """Whoever adds the writing side adds these: they begin with fs.pipe or fs.open(…, "wb")."""
    import fsspec.tests.abstract as suite

    assert {name for name in dir(suite) if name.startswith("Abstract") and name.endswith("Tests")} == {
        "AbstractCopyTests",
        "AbstractGetTests",
        "AbstractOpenTests",
        "AbstractPipeTests",
        "AbstractPutTests",
    }
    assert os.path.basename(os.path.dirname(suite.__file__)) == "abstract"
