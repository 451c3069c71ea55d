"""zarr's own tests of a store, `zarr.testing`, for its FsspecStore over the fsspec door; what they write goes beneath."""

from __future__ import annotations

import asyncio
import os
import re

import pytest

pytest.importorskip("fsspec", reason="fsspec is not installed")
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from fsspec.implementations.local import LocalFileSystem

from swingby.doors.fsspec import SwingbyFileSystem

zarr_store = pytest.importorskip("zarr.testing.store", reason="zarr is not installed")
zarr_storage = pytest.importorskip("zarr.storage", reason="zarr is not installed")
cpu = pytest.importorskip("zarr.core.buffer.cpu", reason="zarr is not installed")


class WritingBeneath(SwingbyFileSystem):
    """Reads through Swingby, writes to the files themselves."""

    def pipe_file(self, path, value, mode="overwrite", **_):
        LocalFileSystem(auto_mkdir=True).pipe_file(path, value, mode)

    def rm(self, path, recursive=False, maxdepth=None):
        LocalFileSystem().rm(path, recursive=recursive, maxdepth=maxdepth)

    def rm_file(self, path):
        LocalFileSystem().rm_file(path)


class TestStore(zarr_store.StoreTests):
    store_cls = zarr_storage.FsspecStore
    buffer_cls = cpu.Buffer
    # FsspecStore has no synchronous side.
    test_get_sync = test_get_sync_missing = test_get_bytes_sync = test_get_json_sync = None
    test_set_sync = test_delete_sync = test_delete_sync_missing = None

    @pytest.fixture
    def store_kwargs(self, tmp_path, home):
        (tmp_path / "store").mkdir()
        fs = WritingBeneath(settings={"home": home, "keeper.mode": "off"})
        return {"fs": AsyncFileSystemWrapper(fs, asynchronous=True), "path": str(tmp_path / "store")}

    @pytest.fixture
    def store(self, open_kwargs):
        return asyncio.run(self.store_cls.open(**open_kwargs))

    @pytest.fixture
    def store_not_open(self, store_kwargs):
        return self.store_cls(**store_kwargs)

    async def get(self, store, key):
        return cpu.Buffer.from_bytes(LocalFileSystem().cat_file(os.path.join(store.path, key)))

    async def set(self, store, key, value):
        LocalFileSystem(auto_mkdir=True).pipe_file(os.path.join(store.path, key), value.to_bytes())

    def test_store_repr(self, store):
        assert re.search("FsspecStore", str(store))

    def test_store_supports_writes(self, store):
        assert store.supports_writes

    def test_store_supports_listing(self, store):
        assert store.supports_listing
