"""The root of a manifest: what it lists, and its shards in key order. Its digest names the snapshot."""

from __future__ import annotations

import struct

import msgspec

from swingby.core.checksum import content_digest, fast_digest
from swingby.core.segment import Origin
from swingby.errors import FormatError

MAGIC = b"SWBYROOT"
FORMAT = 1
FORMAT_OF_SAMPLES = 2  # of a manifest whose entries are samples in containers

_HEADER = struct.Struct("<8sIIQ")  # magic, format, reserved, xxh3 of the body


class ShardInfo(msgspec.Struct, frozen=True, array_like=True):
    """One shard.

    Attributes:
        digest: BLAKE3 of the file, 32 bytes; its name in hex.
        check: xxh3 of the file, what readers compare.
        file_bytes: size of the file.
        count: objects in it.
        packs: rows of its pack table.
        data_bytes: sum of the objects' sizes.
        first_key: its first key, relative to the prefix.
    """

    digest: bytes
    check: int
    file_bytes: int
    count: int
    packs: int
    data_bytes: int
    first_key: bytes


class Contained(msgspec.Struct, frozen=True, array_like=True):
    """What a manifest of samples in containers was made from.

    Attributes:
        layout: of the containers.
        source: digest of the manifest that lists them.
        left_out: members of each kind that are no samples.
        bad: containers that could not be read: key relative to the prefix, and the reason.
    """

    layout: str
    source: str
    left_out: dict[str, int]
    bad: list[tuple[bytes, str]]


class Root(msgspec.Struct, frozen=True, array_like=True):
    """All of a manifest but its shards.

    Attributes:
        base_id: identity of the base.
        scope: as in segment ids.
        prefix: what was listed: a key prefix that ends in a slash, or empty.
        shards: in key order.
        contained: None where the entries are objects of the base.
    """

    base_id: str
    scope: str
    prefix: bytes
    shards: list[ShardInfo]
    contained: Contained | None = None

    @property
    def layout(self) -> str:
        """Of the containers; "objects" where there are none."""
        return self.contained.layout if self.contained else "objects"

    @property
    def origin(self) -> Origin:
        """What segment ids are made with."""
        return Origin(self.base_id, self.scope)

    @property
    def count(self) -> int:
        """Objects in the manifest."""
        return sum(shard.count for shard in self.shards)


def shard_info(data: bytes, count: int, packs: int, data_bytes: int, first_key: bytes) -> ShardInfo:
    """The entry for an encoded shard."""
    return ShardInfo(content_digest(data), fast_digest(data), len(data), count, packs, data_bytes, first_key)


def encode_root(root: Root) -> tuple[str, bytes]:
    """The digest in hex and the bytes of the file."""
    fields = msgspec.structs.astuple(root)
    body = msgspec.msgpack.encode(fields if root.contained else fields[:-1])
    version = FORMAT_OF_SAMPLES if root.contained else FORMAT
    return content_digest(body).hex(), _HEADER.pack(MAGIC, version, 0, fast_digest(body)) + body


def decode_root(data: bytes) -> Root:
    """The inverse of `encode_root`.

    Raises:
        FormatError: not a root, damaged, or of a version this release does not read.
    """
    if len(data) < _HEADER.size:
        raise FormatError("a manifest root is cut short")
    magic, version, _, check = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise FormatError("this is no manifest root")
    if version not in {FORMAT, FORMAT_OF_SAMPLES}:
        raise FormatError(f"manifest root of format {version}; this release reads {FORMAT} and {FORMAT_OF_SAMPLES}")
    body = data[_HEADER.size :]
    if fast_digest(body) != check:
        raise FormatError("a manifest root is damaged")
    try:
        return msgspec.msgpack.decode(body, type=Root)
    except msgspec.MsgspecError as error:
        raise FormatError(f"a manifest root is damaged: {error}") from None
