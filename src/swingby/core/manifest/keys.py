"""Sorted keys, prefix-compressed in blocks of 16, read without unpacking the rest.

A block: the length of the prefix that its keys share (u16), the lengths of what follows it in each (16 × u16, 0 past the end),
the prefix, the rest of every key. Offsets of the blocks stand in an array of u32, with one more for the end.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

BLOCK_KEYS = 16
KEY_BYTES_MAX = 65535

_HEAD = struct.Struct("<17H")


def encode(keys: list[bytes]) -> tuple[NDArray[np.uint32], bytes]:
    """Offsets uint32[blocks + 1] and the blocks themselves, of keys in byte order."""
    blocks: list[bytes] = []
    for start in range(0, len(keys), BLOCK_KEYS):
        block = keys[start : start + BLOCK_KEYS]
        shared = _shared(block[0], block[-1])
        lengths = [len(key) - shared for key in block]
        lengths += [0] * (BLOCK_KEYS - len(block))
        blocks.append(_HEAD.pack(shared, *lengths) + block[0][:shared] + b"".join([key[shared:] for key in block]))
    offsets = np.zeros(len(blocks) + 1, np.uint32)
    np.cumsum([len(block) for block in blocks], out=offsets[1:])
    return offsets, b"".join(blocks)


def _shared(first: bytes, last: bytes) -> int:
    """Length of the common prefix, by bisection: equality of slices is compiled, a loop over bytes is not."""
    low, high = 0, min(len(first), len(last))
    while low < high:
        middle = (low + high + 1) // 2
        if first[:middle] == last[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class Keys:
    """Read access to encoded keys.

    Args:
        offsets: uint32[blocks + 1].
        data: the blocks.
        count: number of keys.
    """

    def __init__(self, offsets: NDArray[np.uint32], data: memoryview, count: int) -> None:
        self._offsets = memoryview(offsets)  # indexed ten times as fast as an array
        self.data = data
        self._count = count

    def __len__(self) -> int:
        return self._count

    @property
    def stored_bytes(self) -> int:
        """What the encoded keys take."""
        return self._offsets[len(self._offsets) - 1]

    def __getitem__(self, index: int) -> bytes:
        number, place = divmod(index, BLOCK_KEYS)
        at = self._offsets[number] + _HEAD.size
        head = _HEAD.unpack_from(self.data, at - _HEAD.size)
        start = at + sum(head[: place + 1])
        return bytes(self.data[at : at + head[0]]) + bytes(self.data[start : start + head[place + 1]])

    def block(self, number: int) -> list[bytes]:
        """The keys of one block."""
        at = self._offsets[number]
        shared, *lengths = _HEAD.unpack_from(self.data, at)
        start = at + _HEAD.size
        prefix = bytes(self.data[start : start + shared])
        start += shared
        found = []
        for length in lengths[: min(BLOCK_KEYS, self._count - number * BLOCK_KEYS)]:
            found.append(prefix + bytes(self.data[start : start + length]))
            start += length
        return found

    def __iter__(self) -> Iterator[bytes]:
        for number in range(len(self._offsets) - 1):
            yield from self.block(number)

    def find(self, key: bytes) -> int | None:
        """The index of a key, or None."""
        low, high = 0, len(self._offsets) - 2
        while low < high:
            middle = (low + high + 1) // 2
            if self[middle * BLOCK_KEYS] <= key:
                low = middle
            else:
                high = middle - 1
        if self._count == 0:
            return None
        block = self.block(low)
        return low * BLOCK_KEYS + block.index(key) if key in block else None
