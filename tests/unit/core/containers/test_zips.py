"""Zips as Python's zipfile makes them, and hostile ones."""

from __future__ import annotations

import io
import random
import struct
import zipfile

import numpy as np
import pytest

from swingby.core.containers import zip as zips
from swingby.core.containers.location import LOCATION_DTYPE, Coded, plain
from swingby.core.containers.reading import read_index
from swingby.core.containers.window import LOCAL, Window
from swingby.errors import BadContainerError, CorruptDataError

MIB = 1 << 20


def index(data):
    window = Window(lambda start, size: data[start : start + size], len(data), "x.zip", LOCAL)
    return read_index("zip", window, lambda: None)


def found(data):
    made = index(data)
    places = dict(zip(made.names, zip(made.sizes.tolist(), made.locations.tolist(), strict=True), strict=True))
    fields = LOCATION_DTYPE.names
    result = {}
    for name, (size, values) in places.items():
        place = dict(zip(fields, values, strict=True))
        stored = data[place["offset"] : place["offset"] + place["stored_bytes"]]
        result[name] = bytes(plain(Coded(place["codec"], place["check"], size), stored))
    return result


def zipped(members, method=zipfile.ZIP_STORED, before=b"", comment=b""):
    out = io.BytesIO(before)
    out.seek(len(before))
    with zipfile.ZipFile(out, "w" if not before else "a", method) as made:
        for name, data in members.items():
            made.writestr(name, data)
        made.comment = comment
    return out.getvalue()


def members(count=30, size=4000):
    rng = np.random.default_rng(8)
    found = {
        f"d/{number:03d}": rng.integers(0, 9, int(rng.integers(0, size)), np.uint8).tobytes() for number in range(count)
    }
    return found | {"empty": b"", "ümläut": b"name"}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("before", [b"", b"#!/bin/sh\n" * 100])
@pytest.mark.parametrize("comment", [b"", b"c" * 3000])
def test_members_are_those_of_zipfile(method, before, comment):
    inside = members()
    data = zipped(inside, method, before, comment)
    assert found(data) == {name.encode(): one for name, one in inside.items()}


def test_members_that_were_streamed_have_their_sizes_behind_them():
    class Stream(io.RawIOBase):
        def __init__(self):
            self.parts = []

        def writable(self):
            return True

        def write(self, data):
            self.parts.append(bytes(data))
            return len(data)

    stream = Stream()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members().items():
            made.writestr(name, data)
    assert found(b"".join(stream.parts)) == {name.encode(): data for name, data in members().items()}


def test_zip64_is_read():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name in ("a", "b"):
            with made.open(name, "w", force_zip64=True) as member:
                member.write(name.encode() * 100)
    assert found(out.getvalue()) == {b"a": b"a" * 100, b"b": b"b" * 100}
    many = zipped({f"{number:05d}": b"x" for number in range(70_000)})  # more than 16 bits count
    assert len(index(many).names) == 70_000


def test_a_large_stored_member_is_a_plain_range():
    data = zipped({"small": b"s", "large": bytes(5 * MIB)})
    made = index(data)
    large = made.locations[made.names.index(b"large")]
    assert (large["codec"], large["stored_bytes"]) == (0, 5 * MIB)
    assert found(data)[b"large"] == bytes(5 * MIB)


def test_folders_and_links_are_left_out():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("folder/", b"")
        link = zipfile.ZipInfo("link")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        made.writestr(link, b"target")
        made.writestr("file", b"data")
    made = index(out.getvalue())
    assert (made.names, made.left_out) == ([b"file"], {"folder": 1, "link": 1})


def test_other_methods_and_encryption_are_refused_by_name():
    with pytest.raises(BadContainerError, match="'m' is compressed by method 12"):
        index(zipped({"m": b"x" * 100}, zipfile.ZIP_BZIP2))
    data = bytearray(zipped({"secret": b"x" * 100}))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(BadContainerError, match="'secret' is encrypted"):
        index(bytes(data))


def directory_of(data):
    return data.index(b"PK\x01\x02")


def test_sizes_that_cannot_be_are_refused():
    data = bytearray(zipped({"bomb": bytes(10_000)}, zipfile.ZIP_DEFLATED))
    struct.pack_into("<I", data, directory_of(data) + 24, 1 << 31)
    with pytest.raises(BadContainerError, match="cannot be 2147483648 bytes"):
        index(bytes(data))


def test_a_member_that_inflates_to_more_than_is_told_is_corrupt():
    data = bytearray(zipped({"bomb": bytes(100_000)}, zipfile.ZIP_DEFLATED))
    struct.pack_into("<I", data, directory_of(data) + 24, 50_000)
    with pytest.raises(CorruptDataError, match="does not match the size"):
        found(bytes(data))


def test_a_large_deflated_member_is_refused(monkeypatch):
    monkeypatch.setattr(zips, "DEFLATED_BYTES_MAX", 1000)
    with pytest.raises(BadContainerError, match="is deflated and holds 5000 bytes"):
        index(zipped({"large": bytes(5000)}, zipfile.ZIP_DEFLATED))


def test_members_that_overlap_are_refused():
    """Fifield's bomb: many entries of the directory share one member."""
    data = bytearray(zipped({"a": bytes(100), "b": bytes(100)}))
    second = data.index(b"PK\x01\x02", directory_of(data) + 1)
    struct.pack_into("<I", data, second + 42, 0)
    with pytest.raises(BadContainerError, match="overlaps"):
        index(bytes(data))


def test_a_checksum_that_does_not_match_is_found_when_it_is_read():
    data = bytearray(zipped({"a": b"x" * 100}))
    data[50] ^= 1
    with pytest.raises(CorruptDataError, match="CRC-32"):
        found(bytes(data))


@pytest.mark.parametrize("cut", [0, 1, 21, 100, 3000])
def test_a_zip_that_is_cut_short_is_none(cut):
    with pytest.raises(BadContainerError, match="no end record"):
        index(zipped(members())[:cut])


def test_mutated_zips_end_in_an_index_or_in_our_error():
    rng = random.Random(6)
    whole = zipped(members(12, 300), zipfile.ZIP_DEFLATED)
    first = directory_of(whole)
    good = 0
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(first, len(data)) if rng.random() < 0.7 else rng.randrange(len(data))
            data[at] = rng.choice([0, 255, data[at] ^ 1 << rng.randrange(8)])
        try:
            for location in index(bytes(data)).locations:
                assert int(location["offset"]) + int(location["stored_bytes"]) <= len(data)
            found(bytes(data))
            good += 1
        except (BadContainerError, CorruptDataError):
            pass
    assert 0 < good < 1500
