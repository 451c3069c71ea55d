"""What a process copies into is its own after a fork, in parent and child."""

from __future__ import annotations

import os

import numpy as np

from swingby.levels.block_reader import BlockReader
from swingby.path.deliver import JOIN_BYTES_MAX, packed


def in_a_child(work):
    process = os.fork()
    if process == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(process, 0)


def test_a_childs_reads_do_not_change_what_its_parent_has_read(tmp_path):
    (tmp_path / "mine").write_bytes(b"m" * 5000)
    (tmp_path / "its").write_bytes(b"i" * 5000)
    reader = BlockReader(direct=False)
    data = reader.read(str(tmp_path / "mine"), 10, 4000)
    in_a_child(lambda: reader.read(str(tmp_path / "its"), 10, 4000))
    assert bytes(data) == b"m" * 4000


def test_a_childs_packed_batch_does_not_change_its_parents():
    size = JOIN_BYTES_MAX + 1
    views = {letter: memoryview(letter * size) for letter in (b"m", b"i")}
    packed([views[b"m"]], np.array([size]), None)  # its memory is given back, and known to parent and child
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        os.read(reader, 1)
        packed([views[b"i"]], np.array([size]), None)
        os._exit(0)
    mine = packed([views[b"m"]], np.array([size]), None)[0]
    os.write(writer, b"x")
    os.waitpid(process, 0)
    os.close(reader)
    os.close(writer)
    assert mine.tobytes() == b"m" * size
