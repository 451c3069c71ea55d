"""The fsspec door: over a base in memory that may fail, and over files."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import threading
from datetime import datetime

import pytest

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

from swingby.doors.fsspec import SwingbyFileSystem
from swingby.doors.fsspec.refusals import UnsupportedError
from swingby.errors import (
    AccessDeniedError,
    BaseUnavailableError,
    ClosedError,
    ConfigError,
    ObjectChangedError,
)
from swingby.testing.faulty_base import Faults, FaultyBase
from swingby.testing.harness import QUICK_RETRIES, inline
from swingby.testing.memory_base import MemoryBase

MIB = 1 << 20


@pytest.fixture
def objects():
    rng = random.Random(3)
    found = {
        b"d/%s/%03d.bin" % (folder, n): rng.randbytes(rng.randint(1, 9000))
        for folder in (b"a", b"b")
        for n in range(30)
    }
    return found | {
        b"d/large": rng.randbytes(22 * MIB + 7),
        b"d/empty": b"",
        b"d/text": b"one\ntwo\n\nlast",
        b"d.txt": b"beside",
    }


@pytest.fixture
def base(objects):
    return FaultyBase(MemoryBase(objects), Faults())


@pytest.fixture
def run(home, base):
    with inline(home, base=base) as found:
        yield found


@pytest.fixture
def make_fs(home, run):
    """A file system over bucket `x` of the base in memory."""
    settings = QUICK_RETRIES | {"keeper.mode": "inline", "home": home}

    def make(**more):
        return SwingbyFileSystem("memory", settings=settings, skip_instance_cache=True, **more)

    return make


@pytest.fixture
def fs(make_fs):
    return make_fs()


@pytest.fixture
def files(tmp_path, home, objects):
    """A file system over files, and the directory that holds the objects."""
    for key, data in objects.items():
        path = tmp_path / "files" / key.decode()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    settings = {"home": home, "keeper.mode": "off"}
    return SwingbyFileSystem(settings=settings, skip_instance_cache=True), str(tmp_path / "files")


# -- what is there -----------------------------------------------------------------------------------------------------


def test_folders_are_what_keys_have_before_a_slash(fs, objects):
    assert fs.ls("x", detail=False) == ["x/d", "x/d.txt"]
    assert fs.ls("memory://x/d/", detail=False) == ["x/d/a", "x/d/b", "x/d/empty", "x/d/large", "x/d/text"]
    assert fs.ls("x/d.txt", detail=False) == ["x/d.txt"]
    assert fs.find("x") == sorted("x/" + key.decode() for key in objects)
    assert fs.find("x/d", maxdepth=1) == ["x/d/empty", "x/d/large", "x/d/text"]
    assert fs.find("x/d", maxdepth=1, withdirs=True)[:3] == ["x/d", "x/d/a", "x/d/b"]
    assert fs.find("x/d/text") == ["x/d/text"]
    assert fs.find("x/nothing") == []
    assert fs.glob("x/d/*/00[01].bin") == ["x/d/a/000.bin", "x/d/a/001.bin", "x/d/b/000.bin", "x/d/b/001.bin"]
    assert fs.glob("x/**/l*") == ["x/d/large"]
    assert [(root, sorted(dirs), len(found)) for root, dirs, found in fs.walk("x/d")] == [
        ("x/d", ["a", "b"], 3),
        ("x/d/a", [], 30),
        ("x/d/b", [], 30),
    ]
    assert fs.du("x") == sum(map(len, objects.values()))
    assert fs.du("x/d/text", total=False) == {"x/d/text": 13}


def test_info_tells_files_from_directories_and_from_nothing(fs):
    assert fs.info("x/d/text") == {
        "name": "x/d/text",
        "size": 13,
        "type": "file",
        "version": fs.info("x/d/text")["version"],
    }
    assert fs.info("x/d") == {"name": "x/d", "size": 0, "type": "directory"}
    assert fs.isdir("x/d")
    assert fs.isdir("x")
    assert not fs.isfile("x/d")
    assert fs.isfile("x/d/text")
    assert not fs.exists("x/d/tex")
    for call in (fs.info, fs.ls, fs.open, fs.cat_file, fs.size, fs.ukey):
        with pytest.raises(FileNotFoundError):
            call("x/d/tex")
    with pytest.raises(FileNotFoundError):
        fs.open("x/d")
    with pytest.raises(ValueError, match="names no bucket"):
        fs.ls("")


def test_ukey_and_checksum_change_with_the_object(fs, base):
    before = fs.ukey("x/d/text"), fs.checksum("x/d/text")
    assert before == (fs.ukey("x/d/text"), fs.checksum("x/d/text"))
    base.write(b"d/text", b"ONE\ntwo\n\nlast")
    assert fs.ukey("x/d/text") != before[0]
    assert fs.checksum("x/d/text") != before[1]


def test_a_base_without_times_says_so(fs):
    with pytest.raises(NotImplementedError, match="nobody says when"):
        fs.modified("x/d/text")


def test_files_have_times_empty_directories_and_links(files):
    fs, root = files
    os.mkdir(f"{root}/hollow")
    os.symlink(f"{root}/d", f"{root}/link")
    os.symlink(f"{root}/nowhere", f"{root}/broken")
    assert fs.ls(root, detail=False) == [f"{root}/{name}" for name in ("d", "d.txt", "hollow", "link")]
    assert fs.isdir(f"{root}/hollow")
    assert f"{root}/hollow" in fs.find(root, withdirs=True)
    assert fs.cat_file(f"{root}/link/text") == b"one\ntwo\n\nlast"
    assert fs.modified(f"{root}/d.txt") == datetime.fromtimestamp(
        os.stat(f"{root}/d.txt").st_mtime, tz=fs.modified(root + "/d.txt").tzinfo
    )
    assert not fs.exists(f"{root}/broken")


# -- names -------------------------------------------------------------------------------------------------------------


def test_urls_paths_and_chains_name_the_same(fs, files):
    for name in (
        "x/d/text",
        "memory://x/d/text",
        "swingby::memory://x/d/text",
        "swingby://memory://x/d/text",
        "swingby://x/d/text",
        "x/d/text/",
    ):
        assert fs._strip_protocol(name) == "x/d/text"
    assert fs._strip_protocol(["x/a", "memory://x/b"]) == ["x/a", "x/b"]
    assert fs.unstrip_protocol("x/d/text") == "swingby://memory://x/d/text"
    local, root = files
    for name in (root, f"file://{root}", f"swingby::file://{root}/", f"swingby://{root}"):
        assert local._strip_protocol(name) == root
    assert local._strip_protocol("here") == os.path.join(os.getcwd(), "here")
    assert local._parent(f"{root}/d/text") == f"{root}/d"


def test_fsspec_finds_us_by_name_alone_and_shares_instances(tmp_path, home):
    (tmp_path / "a.txt").write_text("hello")
    options = {"settings": {"home": home, "keeper.mode": "off"}}
    with fsspec.open(f"swingby::file://{tmp_path}/a.txt", "rt", **options) as file:
        assert file.read() == "hello"
    one, path = fsspec.url_to_fs(f"swingby::{tmp_path}/a.txt", **options)
    two, _ = fsspec.url_to_fs(f"swingby::{tmp_path}/b.txt", **options)
    assert one is two
    assert path == f"{tmp_path}/a.txt"
    same, path = fsspec.url_to_fs(f"swingby://file://{tmp_path}/a.txt", **options)
    assert (path, same.unstrip_protocol(path)) == (f"{tmp_path}/a.txt", f"swingby://file://{tmp_path}/a.txt")
    assert fsspec.open(f"swingby://file://{tmp_path}/a.txt", **options).open().read() == b"hello"
    assert fsspec.filesystem("swingby", max_age_seconds=5, **options) is not one
    assert fsspec.filesystem("swingby", **options).cat_file(path) == b"hello"


def test_importing_swingby_imports_no_fsspec():
    code = "import swingby, sys; sys.exit('fsspec' in sys.modules or 'swingby.doors' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- what is in it -----------------------------------------------------------------------------------------------------


def test_files_behave_as_files(fs, objects):
    data = objects[b"d/large"]
    with fs.open("x/d/large") as file:
        assert (file.size, file.tell(), file.mode, file.readable(), file.seekable(), file.writable()) == (
            len(data),
            0,
            "rb",
            True,
            True,
            False,
        )
        assert file.read(10) == data[:10]
        assert file.seek(-7, os.SEEK_END) == len(data) - 7
        assert file.read() == data[-7:]
        assert file.read(5) == b""
        assert file.seek(3 * MIB) == 3 * MIB
        assert file.seek(2, os.SEEK_CUR) == 3 * MIB + 2
        buffer = bytearray(6 * MIB)
        assert file.readinto(buffer) == len(buffer)
        assert buffer == data[3 * MIB + 2 : 9 * MIB + 2]
        file.seek(len(data) + 5)
        assert (file.read(1), file.readinto(buffer)) == (b"", 0)
        for wrong in ((-1, os.SEEK_SET), (0, 9)):
            with pytest.raises(ValueError, match="leads nowhere"):
                file.seek(*wrong)
        file.seek(0)
        assert file.read() == data
    for call in (file.read, file.tell, lambda: file.seek(0), lambda: file.readinto(buffer), file.readline):
        with pytest.raises(ClosedError):
            call()
    assert fs.open("x/d/empty").read() == b""


def test_lines_are_read_alike_by_us_and_by_text_wrappers(fs):
    assert list(fs.open("x/d/text")) == [b"one\n", b"two\n", b"\n", b"last"]
    assert fs.open("x/d/text", "r").read().splitlines() == ["one", "two", "", "last"]
    file = fs.open("x/d/text")
    assert (file.readline(2), file.readline(), file.read(1), file.readline()) == (b"on", b"e\n", b"t", b"wo\n")
    assert file.readlines() == [b"\n", b"last"]
    assert fs.read_block("x/d/text", 2, 4, b"\n") == b"two\n"
    assert fs.open("x/d/empty").readline() == b""


@pytest.mark.parametrize("seed", range(3))
def test_any_mix_of_reads_gives_what_a_file_gives(fs, objects, seed):
    import io

    rng, data = random.Random(seed), objects[b"d/large"]
    ours, theirs = fs.open("x/d/large"), io.BytesIO(data)
    for _ in range(60):
        if rng.random() < 0.3:
            at = rng.randrange(len(data))
            ours.seek(at), theirs.seek(at)
        size = rng.choice([1, 100, 65536, 5 * MIB])
        way = rng.choice(["read", "readline", "readinto"])
        if way == "readinto":
            mine, other = bytearray(size), bytearray(size)
            assert ours.readinto(mine) == theirs.readinto(other)
            assert mine == other
        else:
            assert getattr(ours, way)(size) == getattr(theirs, way)(size)
        assert ours.tell() == theirs.tell()


def test_ranges_are_sliced_as_fsspec_says(fs, objects):
    data = objects[b"d/large"]
    for start, end in (
        (None, None),
        (0, 10),
        (-10, None),
        (5, -5),
        (-10, -5),
        (len(data) - 2, len(data) + 9),
        (7, 7),
        (9, 3),
    ):
        assert fs.cat_file("x/d/large", start, end) == data[slice(start, end)], (start, end)
    rng = random.Random(1)
    wanted = [(rng.choice(["x/d/large", "x/d/text", "x/d/a/001.bin"]), rng.randrange(0, 12000)) for _ in range(300)]
    found = fs.cat_ranges([one[0] for one in wanted], [one[1] for one in wanted], [one[1] + 50 for one in wanted])
    assert found == [objects[path[2:].encode()][at : at + 50] for path, at in wanted]
    assert fs.cat_ranges(["x/d/text", "x/d/large"], 0, 3) == [b"one", data[:3]]


def test_a_missing_file_among_many_is_an_error_in_its_place(fs):
    found = fs.cat_ranges(["x/d/text", "x/none", "x/d/text", "x/none"], [0, 0, 1, 2], [2, 2, 3, 4])
    assert found[::2] == [b"on", b"ne"]
    assert [type(one).__name__ for one in found[1::2]] == ["ObjectNotFoundError"] * 2
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(["x/d/text", "x/none"], 0, 2, on_error="raise")
    assert set(fs.cat(["x/d/text", "x/none"], on_error="omit")) == {"x/d/text"}
    with pytest.raises(ValueError, match="argument"):
        fs.cat_ranges(["x/d/text"], [0, 1], [2])


def test_many_files_are_read_together(fs, objects):
    assert fs.cat("x/d/a", recursive=True) == {
        f"x/{key.decode()}": data for key, data in objects.items() if key.startswith(b"d/a/")
    }
    assert fs.cat("x/d/text") == b"one\ntwo\n\nlast"
    assert fs.head("x/d/text", 3) == b"one"
    assert fs.tail("x/d/text", 4) == b"last"


def test_getting_leaves_a_whole_file_or_none(fs, base, objects, tmp_path):
    seen = []

    class Callback(fsspec.callbacks.Callback):
        def relative_update(self, inc=1):
            seen.append(inc)

    fs.get_file("x/d/large", str(tmp_path / "in" / "large"), callback=Callback())
    assert (tmp_path / "in" / "large").read_bytes() == objects[b"d/large"]
    assert sum(seen) == len(objects[b"d/large"])
    base.is_down = True
    with pytest.raises(BaseUnavailableError):
        fs.get_file("x/d/a/000.bin", str(tmp_path / "small"))
    assert not (tmp_path / "small").exists()


# -- freshness and the local cache -------------------------------------------------------------------------------------


def test_the_second_read_asks_the_base_for_nothing_but_the_version(fs, base, objects):
    for _ in range(3):
        assert fs.cat_file("x/d/large") == objects[b"d/large"]
        assert fs.open("x/d/a/000.bin").read() == objects[b"d/a/000.bin"]
    reads = base._base.reads
    assert len([read for read in reads if read[0] == b"d/a/000.bin"]) == 1
    assert sum(size or 0 for key, _, size in reads if key == b"d/large") <= len(objects[b"d/large"]) + 4 * MIB


def test_an_open_file_asks_once_and_then_reads_on_without_asking(fs, base):
    asked = []
    stat = base.stat
    base.stat = lambda key: asked.append(key) or stat(key)
    with fs.open("x/d/large") as file:
        for at in range(0, 22 * MIB, MIB):
            file.seek(at)
            file.read(100)
    assert len(asked) <= 2  # at opening; and the keeper, which had never seen it


def test_a_replaced_object_is_seen_by_the_next_open_at_once(fs, base):
    assert fs.cat_file("x/d/text") == b"one\ntwo\n\nlast"
    base.write(b"d/text", b"new")
    assert fs.cat_file("x/d/text") == b"new"
    assert fs.open("x/d/text").read() == b"new"
    assert fs.info("x/d/text")["size"] == 3
    base.delete(b"d/text")
    assert not fs.exists("x/d/text")
    with pytest.raises(FileNotFoundError):
        fs.cat_file("x/d/text")


def test_an_age_that_is_allowed_saves_asking(make_fs, base):
    fs = make_fs(max_age_seconds=60)
    assert fs.cat_file("x/d/text") == fs.open("x/d/text").read()
    base.write(b"d/text", b"new")
    assert fs.open("x/d/text").read() == b"one\ntwo\n\nlast"
    assert fs.info("x/d/text")["size"] == 13
    fs.invalidate_cache("x/d/text")
    assert fs.info("x/d/text")["size"] == 3


def test_an_object_replaced_between_info_and_read_is_an_error_never_a_mix(fs, base, objects):
    file = fs.open("x/d/large")
    base.write(b"d/large", bytes(len(objects[b"d/large"])))
    with pytest.raises(ObjectChangedError, match="Open it again") as caught:
        file.read()
    assert caught.value.key == "d/large"
    assert fs.open("x/d/large").read(9) == bytes(9)


def test_an_open_file_reads_on_in_its_version_what_is_cached(fs, base, objects):
    data = objects[b"d/large"]
    with fs.open("x/d/large") as file:
        file.read()
        base.write(b"d/large", b"short")
        assert fs.cat_file("x/d/large") == b"short"
        file.seek(9 * MIB)
        assert file.read(100) == data[9 * MIB : 9 * MIB + 100]


def test_one_message_shows_an_open_file_all_that_is_in_memory(fs, objects):
    data = objects[b"d/large"]
    assert fs.cat_file("x/d/large") == data
    with fs.open("x/d/large") as file:
        asked = []
        exchange = file._reader._client.exchange
        file._reader._client.exchange = lambda: asked.append(1) or exchange()
        try:
            for at in (21 * MIB, 0, 9 * MIB, 13 * MIB, 5 * MIB, 17 * MIB):
                file.seek(at)
                assert file.read(1000) == data[at : at + 1000]
        finally:
            del file._reader._client.exchange
        assert len(asked) == 1


def test_what_an_open_file_has_mapped_is_let_go_when_it_is_evicted(fs, run, objects):
    data = objects[b"d/large"]
    with fs.open("x/d/large") as file:
        file.read()
        assert file._reader._maps
        for level in run.keeper.engine.levels:
            for identity in level.identities():
                while not level.evict(identity):
                    gc.collect()
        file.seek(5)
        assert file.read(100) == data[5:105]
        assert len(file._reader._held) == 1


# -- faults ------------------------------------------------------------------------------------------------------------


def test_a_base_that_is_down_is_never_a_file_that_is_absent(fs, base):
    base.is_down = True
    for call in (
        fs.exists,
        fs.isfile,
        fs.isdir,
        fs.info,
        fs.ls,
        fs.find,
        fs.open,
        fs.cat_file,
        fs.du,
        lambda p: list(fs.walk(p)),
    ):
        with pytest.raises(BaseUnavailableError):
            call("x/d")
    with pytest.raises(BaseUnavailableError):
        fs.glob("x/d/*")


def test_a_base_that_goes_down_under_an_open_file_leaves_what_is_cached(fs, base, objects):
    file = fs.open("x/d/large")
    assert file.read(100) == objects[b"d/large"][:100]
    base.is_down = True
    file.seek(50)
    assert file.read(100) == objects[b"d/large"][50:150]
    file.seek(20 * MIB)
    with pytest.raises(BaseUnavailableError):
        file.read(1)
    base.is_down = False
    assert file.read(1) == objects[b"d/large"][20 * MIB : 20 * MIB + 1]


def test_passing_faults_are_tried_again(fs, base, objects):
    base.faults = Faults(error=0.2, truncate=0.2)
    for key in list(objects)[:20]:
        assert fs.cat_file("x/" + key.decode()) == objects[key]


def test_what_may_not_be_read_says_so(make_fs, base):
    def refuse(key, *_, **__):
        raise AccessDeniedError("these credentials may not", key=key.decode())

    base.stat = base.read = refuse
    fs = make_fs()
    for call in (fs.open, fs.info, fs.cat_file, fs.exists):
        with pytest.raises(PermissionError):
            call("x/d/text")


def test_reads_go_on_without_a_keeper(home, base, objects):
    settings = QUICK_RETRIES | {"keeper.mode": "inline", "home": home}
    with inline(home, base=base) as found:
        fs = SwingbyFileSystem("memory", settings=settings, skip_instance_cache=True)
        file = fs.open("x/d/large")
        found.keeper.stop()
        found.connector._thread.join()
        assert file.read() == objects[b"d/large"]
        assert fs.cat_ranges(["x/d/large"] * 2, [9 * MIB, 5], [9 * MIB + 5, 9]) == [
            objects[b"d/large"][9 * MIB : 9 * MIB + 5],
            objects[b"d/large"][5:9],
        ]


def test_writing_is_refused_with_a_way_out(fs, files, tmp_path):
    for one, path in ((fs, "x/new"), (files[0], str(tmp_path / "new"))):
        for mode in ("wb", "ab", "xb", "r+b", "w"):
            with pytest.raises(NotImplementedError, match="Write with fsspec"):
                one.open(path, mode)
        for call in (one.mkdir, one.makedirs, one.rm, one.rm_file, one.rmdir, one.touch):
            with pytest.raises(UnsupportedError):
                call(path)
        for call in (one.put, one.put_file, one.cp_file, one.mv, one.pipe_file):
            with pytest.raises(UnsupportedError):
                call(path, path)


def test_options_that_cannot_be_honoured_are_refused():
    with pytest.raises(ConfigError, match="s3="):
        SwingbyFileSystem("s3", anon=True)
    with pytest.raises(ConfigError, match="requester_pays"):
        SwingbyFileSystem("s3", {"requester_pays": True})


# -- processes and threads ---------------------------------------------------------------------------------------------


def test_threads_share_a_file_system(fs, objects):
    keys, failures = list(objects), []

    def read(seed):
        rng = random.Random(seed)
        for _ in range(40):
            key = rng.choice(keys)
            if fs.open("x/" + key.decode()).read() != objects[key]:
                failures.append(key)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_file_systems_and_open_files_are_pickled(files, objects):
    fs, root = files
    again = pickle.loads(pickle.dumps(fs))
    assert again.ls(root) == fs.ls(root)
    file = fs.open(f"{root}/d/large")
    file.seek(5 * MIB)
    copy = pickle.loads(pickle.dumps(file))
    assert (copy.tell(), copy.read(9)) == (5 * MIB, objects[b"d/large"][5 * MIB : 5 * MIB + 9])
    os.replace(f"{root}/d/text", f"{root}/d/large")
    with pytest.raises(ObjectChangedError):
        pickle.loads(pickle.dumps(file)).read()


def _length(job):
    fs, file, path = job
    return len(fs.cat_file(path)), len(file.read()), len(fs.find(os.path.dirname(path)))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_read_on_after_their_parent_did(tmp_path, home, objects, method):
    for name, data in (("a", objects[b"d/large"]), ("b", b"12345")):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    path = str(tmp_path / "in" / "a")
    fs = SwingbyFileSystem(settings={"home": home, "keeper.idle_exit_seconds": 1})
    file = fs.open(path)
    assert fs.cat_file(path) == file.read()
    file.seek(0)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_length, [(fs, file, path)] * 4) == [(len(objects[b"d/large"]),) * 2 + (2,)] * 4


def test_async_callers_wrap_it(fs, objects):
    async def read():
        wrapped = AsyncFileSystemWrapper(fs, asynchronous=True)
        found = await asyncio.gather(*(wrapped._cat_file(f"x/d/a/{n:03}.bin") for n in range(30)))
        assert (await wrapped._info("x/d/text"))["size"] == 13
        return found

    assert asyncio.run(read()) == [objects[b"d/a/%03d.bin" % n] for n in range(30)]
