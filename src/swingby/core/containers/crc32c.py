"""CRC-32C (Castagnoli) of a few bytes, for the headers of TFRecord."""

from __future__ import annotations

import functools

_POLYNOMIAL = 0x82F63B78


@functools.cache
def _table() -> list[int]:
    found = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        found.append(value)
    return found


def crc32c(data: bytes) -> int:
    """The checksum."""
    table, value = _table(), 0xFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """As TFRecord stores it."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
