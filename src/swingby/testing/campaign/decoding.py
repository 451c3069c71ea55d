"""Mutated bytes for everything that is decoded: only the decoder's own errors may come of it."""

from __future__ import annotations

import contextlib
import functools
import socket
from typing import TYPE_CHECKING

import numpy as np

from swingby.core.manifest.build import build
from swingby.core.manifest.root import decode_root, encode_root
from swingby.core.manifest.shard import Shard
from swingby.core.object import Page
from swingby.core.segment import Origin, Segment
from swingby.errors import FormatError, ProtocolError
from swingby.keeper import frames, protocol
from swingby.levels import map_file
from swingby.levels.map_file import MapHeader
from swingby.testing.campaign import containers
from swingby.testing.campaign.job import promise

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

DECODINGS = 200  # a step
HELLO = frames.encode(protocol.Hello(protocol.VERSION, 1))


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, insert or repeat."""
    mutated = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(mutated) + 1)
        kind = rng.randrange(4)
        if kind == 0 and at < len(mutated):
            mutated[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del mutated[at : at + rng.randint(1, 8)]
        elif kind == 2:
            mutated[at:at] = rng.randbytes(rng.randint(1, 8))
        else:
            mutated[at:at] = mutated[: rng.randint(0, 64)]
    return bytes(mutated)


@functools.cache
def _encoded() -> tuple[bytes, bytes, bytes]:
    """A root, a shard and a map."""
    shards: list[bytes] = []
    keys = [b"p/%03d" % number for number in range(100)]
    page = Page(keys, np.full(100, 1000, np.uint64), np.zeros((100, 16), np.uint8))
    root = build(Origin("base", ""), b"p/", [page], lambda _, data: shards.append(data))
    header = map_file.encode_header(MapHeader(Segment(b"s" * 16, 1 << 16, 4, packed=True), 7, b"b" * 16))
    return encode_root(root)[1], shards[0], header + bytes(4 * map_file.ENTRY_BYTES)


def decode_mutated(rng: random.Random) -> None:
    """Decode what is mutated.

    Raises:
        BrokenPromiseError: another error than the decoder's own.
    """
    root, shard, header = _encoded()
    kinds: list[tuple[str, bytes, Callable[[bytes], object]]] = [
        ("root", root, decode_root),
        ("shard", shard, lambda data: Shard(memoryview(data))),
        ("map", header, map_file.decode_header),
        ("frame", HELLO, _decode_frame),
        *containers.kinds(),
    ]
    for _ in range(DECODINGS):
        kind, data, decode = rng.choice(kinds)
        mutated = mutate(data, rng)
        try:
            decode(mutated)
        except (FormatError, ProtocolError):
            pass
        except Exception as error:
            promise(False, f"a {kind} ended in {error!r}: {mutated!r}")


def _decode_frame(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    parser = frames.Frames.of_requests()
    with ours, theirs, contextlib.closing(parser):
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        while parser.receive(ours):
            while parser.next() is not None:
                pass
