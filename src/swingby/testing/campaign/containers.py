"""Small whole containers of every kind, for those who mutate them, and what decodes them."""

from __future__ import annotations

import functools
import io
import struct
import tarfile
import zipfile
from typing import TYPE_CHECKING

from swingby.core.containers.crc32c import crc32c, masked
from swingby.core.containers.index import Found, decode_index, encode_index, index_of
from swingby.core.containers.location import LOCATION_DTYPE, Coded, plain
from swingby.core.containers.reading import read_index
from swingby.core.containers.window import LOCAL, Window
from swingby.errors import BadContainerError, CorruptDataError
from swingby.testing.campaign.job import promise

if TYPE_CHECKING:
    from collections.abc import Callable

MEMBERS = 12


def kinds() -> list[tuple[str, bytes, Callable[[bytes], object]]]:
    """Name, bytes and decoder of each kind. Decoders raise FormatError for what is ours, and nothing for what is refused."""
    tar, zipped, records, index = _encoded()
    return [
        ("tar", tar, functools.partial(_read, "tar")),
        ("webdataset", tar, functools.partial(_read, "webdataset")),
        ("zip", zipped, functools.partial(_read, "zip")),
        ("tfrecord", records, functools.partial(_read, "tfrecord")),
        ("index", index, decode_index),
    ]


def _read(layout: str, data: bytes) -> None:
    """Index a container and read every sample that the index tells of."""
    window = Window(lambda start, size: data[start : start + size], len(data), layout, LOCAL)
    try:
        index = read_index(layout, window, lambda: None)
    except BadContainerError:
        return
    for size, row in zip(index.sizes.tolist(), index.locations.tolist(), strict=True):
        place = dict(zip(LOCATION_DTYPE.names or (), row, strict=True))
        stop = place["offset"] + place["stored_bytes"]
        promise(stop <= len(data), f"a {layout} of {len(data)} bytes has a sample that ends at {stop}")
        try:
            found = plain(Coded(place["codec"], place["check"], size), data[place["offset"] : stop])
        except CorruptDataError:
            continue
        promise(len(found) == size, f"a {layout} gave {len(found)} bytes of a sample of {size}")


@functools.cache
def _encoded() -> tuple[bytes, bytes, bytes, bytes]:
    tar, zipped, records = io.BytesIO(), io.BytesIO(), b""
    with tarfile.open(fileobj=tar, mode="w") as made, zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as other:
        for number in range(MEMBERS):
            name, data = "n" * number * 15 + f"{number // 2}.{number % 2}", bytes([number]) * number * 50
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
            other.writestr(name, data, zipfile.ZIP_STORED if number % 2 else zipfile.ZIP_DEFLATED)
            head = struct.pack("<Q", len(data))
            records += head + struct.pack("<I", masked(crc32c(head))) + data + bytes(4)
    index = index_of([Found(b"%d" % number, number, number * 512, number) for number in range(MEMBERS)], {"link": 1})
    return tar.getvalue(), zipped.getvalue(), records, encode_index(index)
