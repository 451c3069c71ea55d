"""What killed processes leave half-made is gone after a janitor's round; what somebody still writes is not taken for it."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import time

import numpy as np
import pytest

import swingby
from swingby import config
from swingby.core.manifest.build import build
from swingby.core.object import Page
from swingby.core.segment import Origin
from swingby.keeper import orphans, process
from swingby.keeper import place as places
from swingby.keeper.manifests import ManifestStore
from swingby.testing.harness import inline


def pages_of(keys):
    return [Page([b"p/" + key for key in keys], np.full(len(keys), 10, np.uint64), np.zeros((len(keys), 16), np.uint8))]


def saved(store, keys):
    with store.writing() as sink:
        return store.save(build(Origin("base", ""), b"p/", pages_of(keys), sink), 1.0)


def test_half_written_manifest_files_and_those_nobody_refers_to_are_removed(tmp_path):
    store = ManifestStore(str(tmp_path), 8)
    listing = saved(store, [b"a", b"b"])
    with store.writing() as sink:
        build(Origin("base", ""), b"p/", pages_of([b"killed", b"now"]), sink)
    for name in ("roots/12.root.99999.7.tmp", "shards/34.shard.99999.7.tmp", "places/56.99999.7.tmp", "roots/78.root"):
        (tmp_path / name).write_bytes(b"half")
    later = ManifestStore(str(tmp_path), 8)
    later.clean_left_over()
    assert later.is_whole(listing.digest)
    assert [len(os.listdir(tmp_path / folder)) for folder in ("roots", "shards", "places")] == [1, 1, 1]


def test_the_shards_of_a_listing_under_way_are_no_left_overs(tmp_path):
    store = ManifestStore(str(tmp_path), 1)
    with store.writing() as sink:
        root = build(Origin("base", ""), b"q/", [page_of_q()], sink)
        for number in range(3):
            saved(store, [b"%d" % number])  # each drops the listing before it
        listing = store.save(root, 1.0)
    assert store.is_whole(listing.digest)


def page_of_q():
    return Page([b"q/a"], np.full(1, 5, np.uint64), np.zeros((1, 16), np.uint8))


def test_a_keeper_removes_what_an_earlier_one_was_writing(home, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a").write_bytes(b"1")
    place = places.place_of(config.load({"home": home}))
    burst = os.path.join(place.state, "burst")
    shards = os.path.join(place.state, "manifests", "shards")
    left = [os.path.join(burst, "probe.0123abcd.tmp"), os.path.join(shards, "12.shard.99999.7.tmp")]
    for path in left:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"half")
    with inline(home) as found:
        swingby.open(folder, settings=found.settings)
        for _ in range(100):
            if not any(map(os.path.exists, left)):
                break
            threading.Event().wait(0.05)
    assert not any(map(os.path.exists, left))


def test_a_listener_removes_sockets_that_never_took_the_place(home):
    place = places.place_of(config.load({"home": home}))
    places.make_private(place.runtime)
    left = os.path.join(place.runtime, f"{process.OWN_SOCKET}99999")
    open(left, "w").close()
    with process._listen(place):
        assert sorted(os.listdir(place.runtime)) == ["socket"]


def test_a_keeper_that_does_not_start_says_why_and_leaves_no_file(home):
    place = places.place_of(config.load({"home": home}))
    places.make_private(place.runtime)
    with pytest.raises(OSError, match="no such luck"):
        process.spawn(place, ["sh", "-c", "echo no such luck >&2"], dict(os.environ), 10.0)
    assert os.listdir(place.runtime) == []


def memory_directory(tmp_path, name):
    """What a keeper of a home leaves in memory."""
    settings = config.load({"home": str(tmp_path / name), "memory.directory": str(tmp_path / "memory")})
    (tmp_path / "files").mkdir(exist_ok=True)
    (tmp_path / "files" / "one").write_bytes(b"x" * 100)
    (tmp_path / "memory").mkdir(exist_ok=True)
    with (
        inline(settings.home, settings={"memory.directory": settings.memory.directory}) as found,
        swingby.open(str(tmp_path / "files"), settings=found.settings) as dataset,
    ):
        assert bytes(dataset[0].data) == b"x" * 100
    place = places.place_of(found.settings)
    assert [name for name in os.listdir(place.memory) if name.endswith(".seg")]
    return place


def test_memory_of_a_home_that_is_gone_is_given_back(tmp_path):
    gone, stays, held = (memory_directory(tmp_path, name) for name in ("gone", "stays", "held"))
    for place in (gone, held):
        shutil.rmtree(os.path.dirname(place.state))
    with open(os.path.join(held.memory, "lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mine = memory_directory(tmp_path, "mine")
        until = time.monotonic() + 10
        while os.path.exists(gone.memory) and time.monotonic() < until:
            time.sleep(0.05)
        assert orphans.remove_orphans(mine) == []
    assert not os.path.exists(gone.memory)
    assert all(os.path.exists(place.memory) for place in (stays, held, mine))
    assert orphans.remove_orphans(mine) == [held.memory]


def test_a_keeper_that_has_closed_gives_its_memory_directory_back(home):
    for _ in range(2):
        with inline(home) as found:
            assert found.keeper.engine.levels.memory
