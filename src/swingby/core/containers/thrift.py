"""Reads what is wanted of a struct in Thrift's compact protocol, and walks over the rest without keeping it.

A wish is a dict from field numbers to a wish for the struct there, a list with the wish for its elements, or None for a number;
a bytes field is told by its length. What is damaged raises ValueError.
"""

from __future__ import annotations

from typing import Any

DEPTH_MAX = 32
NUMBER_BITS_MAX = 63

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_LONG = 15  # a list whose length follows
_MORE = 128  # a byte after which the number goes on
_INTEGERS = (_I16, _I32, _I64)


class CompactReader:
    """See the module's text.

    Args:
        data: that holds one struct from its beginning.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self, wish: dict[int, Any], depth: int = 0) -> dict[int, Any]:
        """The wanted fields of the struct that begins here.

        Raises:
            ValueError: it is damaged.
        """
        if depth > DEPTH_MAX:
            raise ValueError("structs are nested too deeply")
        found: dict[int, Any] = {}
        field = 0
        while head := self._byte():
            kind, step = head & 15, head >> 4
            field = field + step if step else self._zigzag()
            value = self._value(kind, wish.get(field), depth)
            if field in wish:
                found[field] = value
        return found

    def _value(self, kind: int, wish: Any, depth: int) -> Any:
        if kind in {_TRUE, _FALSE}:
            return kind == _TRUE
        if kind in _INTEGERS:
            return self._zigzag()
        if kind == _STRUCT:
            return self.struct(wish if isinstance(wish, dict) else {}, depth + 1)
        if kind in {_LIST, _SET}:
            return self._list(wish[0] if isinstance(wish, list) else None, depth, is_kept=isinstance(wish, list))
        if kind == _MAP:
            return self._map(depth)
        sizes = {_BYTE: 1, _DOUBLE: 8}
        size = self._varint() if kind == _BINARY else sizes.get(kind)
        if size is None or self._at + size > len(self._data):
            raise ValueError("a field is of no known type, or longer than what is left")
        self._at += size
        return size

    def _list(self, wish: Any, depth: int, *, is_kept: bool) -> list[Any]:
        head = self._byte()
        kind, count = head & 15, head >> 4
        if count == _LONG:
            count = self._varint()
        if depth > DEPTH_MAX or count > len(self._data) - self._at:
            raise ValueError("a list is longer than what is left")
        found = []
        for _ in range(count):
            value = self._byte() if kind in {_TRUE, _FALSE} else self._value(kind, wish, depth + 1)
            if is_kept:
                found.append(value)
        return found

    def _map(self, depth: int) -> None:
        count = self._varint()
        if depth > DEPTH_MAX or count > len(self._data) - self._at:
            raise ValueError("a map is longer than what is left")
        kinds = self._byte() if count else 0
        for _ in range(count):
            for kind in (kinds >> 4, kinds & 15):
                if kind in {_TRUE, _FALSE}:
                    self._byte()
                else:
                    self._value(kind, None, depth + 1)

    def _byte(self) -> int:
        if self._at >= len(self._data):
            raise ValueError("it is cut short")
        self._at += 1
        return self._data[self._at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte % _MORE) << shift
            if byte < _MORE:
                return value
            shift += 7
            if shift > NUMBER_BITS_MAX:
                raise ValueError("a number is too long")

    def _zigzag(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
