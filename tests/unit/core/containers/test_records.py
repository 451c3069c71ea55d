"""TFRecord and Parquet: as the formats say, as pyarrow writes them, and damaged."""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from swingby.core.containers import parquet, reading
from swingby.core.containers.crc32c import crc32c, masked
from swingby.core.containers.layouts import FOOTER, LAYOUTS
from swingby.core.containers.reading import read_index
from swingby.core.containers.thrift import CompactReader
from swingby.core.containers.window import LOCAL, Window
from swingby.errors import BadContainerError


def index(data, layout):
    window = Window(lambda start, size: data[start : start + size], len(data), f"x.{layout}", LOCAL)
    return read_index(layout, window, lambda: None)


def record(payload):
    head = struct.pack("<Q", len(payload))
    return head + struct.pack("<I", masked(crc32c(head))) + payload + struct.pack("<I", masked(crc32c(payload)))


def test_the_checksum_is_the_one_of_the_format():
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C
    assert (crc32c(bytes(32)), crc32c(b"\xff" * 32)) == (0x8A9136AA, 0x62A8AB43)  # RFC 3720, B.4


def test_a_sample_is_the_payload_of_a_record():
    payloads = [np.random.default_rng(n).bytes(n * 37) for n in range(50)]
    data = b"".join(map(record, payloads))
    made = index(data, "tfrecord")
    assert made.names == [b"%010d" % number for number in range(50)]
    starts = made.locations["offset"].tolist()
    assert [data[start : start + len(one)] for start, one in zip(starts, payloads, strict=True)] == payloads
    assert index(b"", "tfrecord").names == []


def test_damaged_records_are_named_with_their_place():
    data = bytearray(record(b"a" * 10) + record(b"b" * 10))
    data[26] ^= 1
    with pytest.raises(BadContainerError, match=r"x\.tfrecord, byte 26: the checksum of a record's length is wrong"):
        index(bytes(data), "tfrecord")
    for cut, what in ((5, "cut short"), (20, "a record of 10 bytes does not fit")):
        with pytest.raises(BadContainerError, match=what):
            index(record(b"a" * 10)[:cut], "tfrecord")
    with pytest.raises(BadContainerError, match="it is no TFRecord"):
        index(bytes(100), "tfrecord")
    with pytest.raises(BadContainerError, match="compressed by gzip"):
        index(gzip.compress(record(b"a")), "tfrecord")


def test_names_of_tfrecord_files_are_known():
    is_container = LAYOUTS["tfrecord"].is_container
    assert all(map(is_container, ["a.tfrecord", "b/c.TFRecords", "x.tfrecord-00000-of-00010", "train-00001-of-01024"]))
    assert not any(map(is_container, ["a.txt", "_SUCCESS", "a.tfrecord.idx"]))


# -- parquet -----------------------------------------------------------------------------------------------------------


def table(rows=1000):
    rng = np.random.default_rng(2)
    nested = [{"x": int(number), "l": [1.0] * (number % 4)} for number in range(rows)]
    words = rng.integers(0, 50, rows).astype(str).tolist()
    return pa.table({"id": np.arange(rows), "value": rng.random(rows), "word": words, "nested": nested})


def written(rows=1000, **options):
    out = io.BytesIO()
    pq.write_table(table(rows), out, row_group_size=100, **options)
    return out.getvalue()


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
@pytest.mark.parametrize("use_dictionary", [True, False])
def test_a_sample_is_the_stretch_of_a_row_group(compression, use_dictionary):
    data = written(compression=compression, use_dictionary=use_dictionary, write_page_index=True)
    made = index(data, "parquet")
    footer = pq.read_metadata(io.BytesIO(data))
    assert made.names == [*(b"%06d" % number for number in range(10)), FOOTER]
    for number, (start, size) in enumerate(zip(made.locations["offset"][:-1], made.sizes[:-1], strict=True)):
        group = footer.row_group(number)
        columns = [group.column(place) for place in range(group.num_columns)]
        starts = [one.dictionary_page_offset or one.data_page_offset for one in columns]
        assert start == min(starts)
        assert size == max(s + one.total_compressed_size for s, one in zip(starts, columns, strict=True)) - start


def test_a_file_without_rows_has_no_samples():
    out = io.BytesIO()
    pq.write_table(table().slice(0, 0), out)
    made = index(out.getvalue(), "parquet")
    assert (made.names, made.left_out) == ([FOOTER], {"empty row group": 1})


def test_what_is_no_parquet_is_refused(monkeypatch):
    data = written()
    for bad, what in (
        (b"", "too short"),
        (b"PAR1" + bytes(100), "it is none, or cut short"),
        (data[:-1], "it is none, or cut short"),
        (data[:-4] + b"PARE", "encrypted"),
        (data[:-8] + b"\xff\xff\xff\x7fPAR1", "it is none, or cut short"),
    ):
        with pytest.raises(BadContainerError, match=what):
            index(bad, "parquet")
    monkeypatch.setattr(parquet, "FOOTER_BYTES_MAX", 100)
    with pytest.raises(BadContainerError, match="a footer of"):
        index(data, "parquet")


def test_mutated_footers_end_in_an_index_or_in_our_error():
    rng = random.Random(7)
    whole = written(300)
    size = int.from_bytes(whole[-8:-4], "little")
    good = 0
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            at = len(data) - 8 - rng.randrange(size)
            data[at] = rng.choice([0, 255, rng.randrange(256), data[at] ^ 1 << rng.randrange(8)])
        try:
            for location in index(bytes(data), "parquet").locations:
                assert int(location["offset"]) + int(location["stored_bytes"]) <= len(data)
            good += 1
        except BadContainerError:
            pass
    assert 0 < good < 1500


def test_nonsense_for_thrift_ends_in_a_value_error():
    rng = random.Random(8)
    for _ in range(3000):
        with contextlib.suppress(ValueError):
            CompactReader(rng.randbytes(rng.randrange(60))).struct({1: None, 2: [{1: None}], 3: {4: None}})
    with pytest.raises(ValueError, match="too deeply"):
        CompactReader(b"\x1c" * 100).struct({})
    with pytest.raises(ValueError, match=r"too deeply|longer"):
        CompactReader(b"\x19" + b"\x19" * 200).struct({})


def test_a_container_of_too_many_members_is_refused(monkeypatch):
    monkeypatch.setattr(reading, "MEMBERS_MAX", 10)
    many = []
    monkeypatch.setattr(reading, "MANY_MEMBERS", 5)
    data = b"".join(record(b"x") for _ in range(12))
    window = Window(lambda start, size: data[start : start + size], len(data), "x", LOCAL)
    with pytest.raises(BadContainerError, match="more than 10 members"):
        read_index("tfrecord", window, lambda: many.append(1))
    assert many == [1]
