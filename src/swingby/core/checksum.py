"""The two digests: a fast 64-bit word for every chunk, and BLAKE3 where a name must not collide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import blake3
import xxhash

if TYPE_CHECKING:
    from typing_extensions import Buffer


def word_of(data: Buffer) -> int:
    """The word that says a chunk is present and what its bytes are: its xxh3, never 0 (0 means absent)."""
    return xxhash.xxh3_64_intdigest(data) or 1


def fast_digest(data: Buffer) -> int:
    """The xxh3 of a header or file, as an integer of 64 bits."""
    return xxhash.xxh3_64_intdigest(data)


def content_digest(data: Buffer) -> bytes:
    """The BLAKE3 of `data`, 32 bytes."""
    return blake3.blake3(data).digest()


def name_digest(*parts: Buffer) -> bytes:
    """BLAKE3 over length-prefixed parts, cut to 16 bytes: ids of segments and bases."""
    hasher = blake3.blake3()
    for part in parts:
        view = memoryview(part).cast("B")
        hasher.update(len(view).to_bytes(8, "little"))
        hasher.update(view)
    return hasher.digest(16)
