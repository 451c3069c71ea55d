"""Tars as their real writers make them, and damaged ones."""

from __future__ import annotations

import io
import os
import random
import tarfile
from collections import Counter

import numpy as np
import pytest
import webdataset

from swingby.core.containers import tar
from swingby.core.containers import webdataset as samples
from swingby.core.containers.reading import read_index
from swingby.core.containers.window import LOCAL, REMOTE, Window
from swingby.errors import BadContainerError, FormatError

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def window(data, costs=LOCAL):
    return Window(lambda start, size: data[start : start + size], len(data), "x.tar", costs)


def index(data, layout="tar", costs=LOCAL):
    return read_index(layout, window(data, costs), lambda: None)


def found(data, layout="tar", costs=LOCAL):
    """What the index says, as name to bytes."""
    made = index(data, layout, costs)
    starts = made.locations["offset"].tolist()
    sizes = made.sizes.tolist()
    return {name: data[start : start + size] for name, start, size in zip(made.names, starts, sizes, strict=True)}


def tarred(members, kind=tarfile.PAX_FORMAT, **fields):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind, **fields) as made:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("costs", [LOCAL, REMOTE])
def test_members_are_where_tarfile_finds_them(kind, costs):
    rng = np.random.default_rng(3)
    names = [f"folder/{number:03d}.bin" for number in range(40)] + ["p" * 90 + "/" + "n" * 90, "ümläut.txt", "empty"]
    names += ["long/" * 40 + "name"] if kind != "ustar" else []
    members = [(name, rng.bytes(int(rng.integers(0, 3000)))) for name in names] + [
        ("zero", b""),
        ("large", bytes(300_000)),
    ]
    data = tarred(members, FORMATS[kind])
    with tarfile.open(fileobj=io.BytesIO(data)) as theirs:
        expected = {info.name.encode(): theirs.extractfile(info).read() for info in theirs}
    assert found(data, costs=costs) == expected


def test_what_holds_no_sample_is_counted_and_left_out(tmp_path):
    (tmp_path / "file").write_bytes(b"data")
    (tmp_path / "folder").mkdir()
    os.symlink("file", tmp_path / "soft")
    os.link(tmp_path / "file", tmp_path / "zhard")
    os.mkfifo(tmp_path / "pipe")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        made.add(tmp_path, arcname=".")
        made.add(tmp_path / "zhard", arcname="after")
    made = index(out.getvalue())
    assert b"file" in made.names or b"zhard" in made.names
    assert sum(made.left_out.values()) + len(made.names) == 7
    assert made.left_out["folder"] == 2
    assert made.left_out["device"] == 1
    assert made.left_out["link"] >= 2


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_sparse_files_are_left_out_and_what_follows_is_found(tmp_path, form):
    with open(tmp_path / "sparse", "wb") as file:
        for hole in range(1, 40):
            file.seek(hole << 20)
            file.write(b"x" * 4096)
    (tmp_path / "z").write_bytes(b"after")
    os.system(f"cd {tmp_path} && tar --format={form} --sparse -cf x.tar sparse z")
    made = index((tmp_path / "x.tar").read_bytes())
    assert (made.names, made.left_out) == ([b"z"], {"sparse file": 1})


def test_sizes_beyond_octal_digits_are_read():
    """A member of 9 GiB: GNU writes base 256, pax a record."""
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        info = tarfile.TarInfo("huge")
        info.size = 9 << 30
        head = info.tobuf(kind)
        tail = tarred([("last", b"data")], kind)
        size = len(head) + info.size + len(tail)

        def read(start, count, head=head, tail=tail, size=size):
            parts = [head, tail]
            at = {0: 0, 1: size - len(tail)}
            out = bytearray(count)
            for number, part in enumerate(parts):
                first, last = max(start, at[number]), min(start + count, at[number] + len(part))
                if first < last:
                    out[first - start : last - start] = part[first - at[number] : last - at[number]]
            return bytes(out)

        made = read_index("tar", Window(read, size, "x.tar", REMOTE), lambda: None)
        assert dict(zip(made.names, made.sizes.tolist(), strict=True)) == {b"huge": 9 << 30, b"last": 4}


def test_large_members_are_hopped_over_and_small_ones_read_in_one_go():
    for size, most_bytes, most_reads in ((4 << 20, 200_000, 30), (16 << 10, 10 << 20, 14)):
        data = tarred([(f"{number:04d}", bytes(size)) for number in range((10 << 20) // size)])
        reads = []

        def read(start, count, data=data, reads=reads):
            reads.append(count)
            return data[start : start + count]

        read_index("tar", Window(read, len(data), "x.tar", REMOTE), lambda: None)
        assert sum(reads) <= max(most_bytes, len(data))
        assert len(reads) <= most_reads


def test_of_two_members_of_one_name_the_later_counts_and_dots_in_front_do_not():
    data = tarred([("./a", b"first"), ("b", b"b"), ("a", b"second"), ("/c", b"c")])
    assert found(data) == {b"a": b"second", b"b": b"b", b"c": b"c"}


@pytest.mark.parametrize("name", ["../a", "x/../../a", ".."])
def test_names_that_lead_out_are_refused(name):
    with pytest.raises(BadContainerError, match="leads out"):
        index(tarred([("fine", b""), (name, b"data")]))


@pytest.mark.parametrize("cut", [1, 511, 512, 700, 1024, 5000, 9000])
def test_a_tar_that_is_cut_short_says_where(cut):
    whole = tarred([(f"{number}", b"x" * 1000) for number in range(6)])
    with pytest.raises(BadContainerError, match=r"x\.tar, byte \d+: .*(short)"):
        index(whole[:cut])


def test_damage_is_named_with_its_place():
    whole = bytearray(tarred([("a", b"x" * 10), ("b", b"y" * 10)]))
    whole[1024 + 3] ^= 1
    with pytest.raises(BadContainerError, match=r"x\.tar, byte 1024: the checksum of a header is wrong"):
        index(bytes(whole))
    with pytest.raises(BadContainerError, match="byte 0: it is no tar"):
        index(b"nonsense" * 1000)
    with pytest.raises(BadContainerError, match="too short"):
        index(b"")
    assert index(bytes(10240)).names == []


@pytest.mark.parametrize("mode", ["gz", "bz2", "xz"])
def test_a_compressed_tar_is_refused_with_what_to_do(mode):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{mode}") as made:
        made.addfile(tarfile.TarInfo("a"))
    with pytest.raises(BadContainerError, match=r"compressed by .*Decompress it"):
        index(out.getvalue().ljust(512, b"\0"))


def test_absurd_lengths_are_refused_before_anything_is_allocated():
    info = tarfile.TarInfo("a")
    info.size = 1 << 60
    with pytest.raises(BadContainerError, match="cut short"):
        index(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    with pytest.raises(BadContainerError, match="longer than any should be"):
        index(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


# -- webdataset --------------------------------------------------------------------------------------------------------


def written(path, count=20):
    with webdataset.TarWriter(str(path)) as sink:
        for number in range(count):
            sink.write(
                {
                    "__key__": f"sub/{number:04d}",
                    "jpg": os.urandom(number * 100),
                    "cls": str(number).encode(),
                    "seg.png": b"png",
                }
            )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves its file open
def test_samples_are_those_that_webdataset_reads(tmp_path):
    written(tmp_path / "x.tar")
    data = (tmp_path / "x.tar").read_bytes()
    theirs = list(webdataset.WebDataset(str(tmp_path / "x.tar"), shardshuffle=False, empty_check=False))
    ours = found(data, "webdataset")
    assert len(ours) == len(theirs) == 20
    for sample, (name, stretch) in zip(theirs, ours.items(), strict=True):
        parts = samples.parts_of(memoryview(stretch), name.decode())
        assert sample["__key__"] == parts["__key__"] == name.decode()
        fields = {key for key in sample if not key.startswith("__")}
        assert fields == parts.keys() - {"__key__"}
        assert all(bytes(parts[field]) == sample[field] for field in fields)


def test_extensions_are_in_lower_case_and_others_are_left_out():
    members = [("__meta__", b"m"), ("a.JPG", b"1"), ("readme", b"r"), ("a.Seg.PNG", b"2"), ("dir.v1/b.c.txt", b"3")]
    data = tarred(members)
    made = index(data, "webdataset")
    assert made.names == [b"a", b"dir.v1/b"]
    assert made.left_out == Counter({"member of no sample": 2})
    (first, second) = found(data, "webdataset").values()
    assert {k: bytes(v) for k, v in samples.parts_of(memoryview(first), "a").items() if k != "__key__"} == {
        "jpg": b"1",
        "seg.png": b"2",
    }
    assert bytes(samples.parts_of(memoryview(second), "b")["c.txt"]) == b"3"


def test_a_key_that_comes_again_is_another_sample():
    made = index(tarred([("a.x", b"1"), ("b.x", b"2"), ("a.x", b"3")]), "webdataset")
    assert made.names == [b"a", b"a~2", b"b"]


def test_an_extension_twice_in_one_sample_is_refused():
    with pytest.raises(BadContainerError, match="two parts 'x'"):
        index(tarred([("a.x", b"1"), ("a.X", b"3")]), "webdataset")


@pytest.mark.parametrize("data", [b"", b"no tar", bytes(2000), os.urandom(2000)])
def test_bytes_that_are_no_sample_have_no_parts(data):
    with pytest.raises(FormatError, match="layout='webdataset'"):
        samples.parts_of(memoryview(data), "key")


def test_a_long_name_belongs_to_its_sample():
    name = "n" * 300
    data = tarred([("a.x", b"1"), (name + ".x", b"2")], tarfile.GNU_FORMAT)
    stretch = found(data, "webdataset")[name.encode()]
    assert bytes(samples.parts_of(memoryview(stretch), name)["x"]) == b"2"


# -- nonsense ----------------------------------------------------------------------------------------------------------


def test_mutated_tars_end_in_an_index_or_in_our_error():
    whole = tarred(
        [(f"d/{number}" + "n" * (number * 10), b"x" * number * 60) for number in range(12)], tarfile.GNU_FORMAT
    )
    whole += tarred([("ü" * 150, b"y")])
    rng = random.Random(5)
    good = 0
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(data))
            if rng.random() < 0.7:
                data[at] ^= 1 << rng.randrange(8)
            else:
                del data[at : at + rng.randint(1, 600)]
        for layout in ("tar", "webdataset"):
            try:
                for start, stored in index(bytes(data), layout).locations[["offset", "stored_bytes"]].tolist():
                    assert start + stored <= len(data)
                good += 1
            except BadContainerError:
                pass
    assert 0 < good < 800
    assert tar.BLOCK_BYTES == 512
