"""The index of one container: its samples by name, and where they lie. Format: docs/formats/manifest.md.

header: magic, format, reserved, xxh3 of the body     body: msgpack of `_Body`
"""

from __future__ import annotations

import array
import struct
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from swingby.core.checksum import fast_digest
from swingby.core.containers.location import LOCATION_DTYPE, RAW
from swingby.core.manifest.keys import Keys, encode
from swingby.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

MAGIC = b"SWBYINDX"
FORMAT = 1

_NUMBERS = ("size", "offset", "stored_bytes", "codec", "check")  # of a `Found`, behind its name
_HEADER = struct.Struct("<8sIIQ")


class Found(NamedTuple):
    """One sample that a layout found in a container."""

    name: bytes
    size: int
    offset: int
    stored_bytes: int
    codec: int = RAW
    check: int = 0


class ContainerIndex(NamedTuple):
    """The samples of a container, by name in byte order.

    Attributes:
        names: relative to the container.
        sizes: uint64[n], of the samples.
        locations: LOCATION_DTYPE[n]; `container` is not set.
        left_out: how many members of each kind are no samples.
    """

    names: list[bytes]
    sizes: NDArray[np.uint64]
    locations: NDArray[np.void]
    left_out: dict[str, int]


class _Body(msgspec.Struct, frozen=True, array_like=True):
    count: int
    key_offsets: bytes
    keys: bytes
    sizes: bytes
    locations: bytes
    left_out: dict[str, int]


def index_of(found: Iterable[Found], left_out: dict[str, int]) -> ContainerIndex:
    """The index of samples in any order; of two with one name, the later one. About 200 bytes a sample while it is made."""
    names: list[bytes] = []
    numbers = array.array("Q")
    for one in found:
        names.append(one.name)
        numbers.extend(one[1:])
    fields = np.frombuffer(numbers, np.uint64).reshape(-1, len(_NUMBERS))
    order = sorted(range(len(names)), key=names.__getitem__)  # stable: the later one of two comes last
    chosen = [
        n for n, after in zip(order, [*order, None][1:], strict=True) if after is None or names[n] != names[after]
    ]
    locations = np.zeros(len(chosen), LOCATION_DTYPE)
    for column, field in enumerate(_NUMBERS[1:], 1):
        locations[field] = fields[chosen, column]
    return ContainerIndex([names[number] for number in chosen], fields[chosen, 0], locations, left_out)


def encode_index(index: ContainerIndex) -> bytes:
    """The bytes of a file."""
    offsets, keys = encode(index.names)
    body = msgspec.msgpack.encode(
        _Body(
            len(index.names),
            offsets.astype("<u4").tobytes(),
            keys,
            index.sizes.astype("<u8").tobytes(),
            index.locations.tobytes(),
            index.left_out,
        )
    )
    return _HEADER.pack(MAGIC, FORMAT, 0, fast_digest(body)) + body


def decode_index(data: bytes) -> ContainerIndex:
    """The inverse of `encode_index`.

    Raises:
        FormatError: not an index, damaged, or of a version this release does not read.
    """
    if len(data) < _HEADER.size:
        raise FormatError("the index of a container is cut short")
    magic, version, _, check = _HEADER.unpack_from(data)
    body = memoryview(data)[_HEADER.size :]
    if magic != MAGIC or version != FORMAT or fast_digest(body) != check:
        raise FormatError("the index of a container is damaged, or of another version")
    try:
        found = msgspec.msgpack.decode(body, type=_Body)
    except msgspec.MsgspecError as error:
        raise FormatError(f"the index of a container is damaged: {error}") from None
    keys = Keys(np.frombuffer(found.key_offsets, "<u4"), memoryview(found.keys), found.count)
    locations = np.frombuffer(found.locations, LOCATION_DTYPE).copy()
    return ContainerIndex(list(keys), np.frombuffer(found.sizes, "<u8"), locations, found.left_out)
