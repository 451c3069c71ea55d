"""What leaves a level first when nothing is known of the accesses to come. Pure: no clock, no I/O, no thread.

Sieve (Zhang et al., NSDI 2024): a queue in order of arrival and a hand that passes over what was used since it came by last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class _Node:
    __slots__ = ("identity", "newer", "older", "visited")

    def __init__(self, identity: bytes) -> None:
        self.identity = identity
        self.visited = False
        self.newer: _Node | None = None
        self.older: _Node | None = None


class Sieve:
    """See the module's text. Ids are segment ids; unknown ones are let be. All operations take constant time, amortised."""

    def __init__(self) -> None:
        self._nodes: dict[bytes, _Node] = {}
        self._newest: _Node | None = None
        self._oldest: _Node | None = None
        self._hand: _Node | None = None

    def add(self, identity: bytes) -> None:
        """A segment came."""
        if identity in self._nodes:
            return
        node = self._nodes[identity] = _Node(identity)
        node.older = self._newest
        if self._newest:
            self._newest.newer = node
        self._newest = node
        self._oldest = self._oldest or node

    def touch(self, identity: bytes) -> None:
        """A segment was used."""
        if node := self._nodes.get(identity):
            node.visited = True

    def demote(self, identity: bytes) -> None:
        """A segment is needed no more: it stands where the hand is, and is the next to leave."""
        if identity not in self._nodes:
            return
        self.remove(identity)
        node = self._nodes[identity] = _Node(identity)
        after = node.newer = self._hand or self._oldest
        if after is None:
            self._newest = node
        else:
            node.older, after.older = after.older, node
        if node.older:
            node.older.newer = node
        else:
            self._oldest = node
        self._hand = node

    def remove(self, identity: bytes) -> None:
        """A segment left."""
        node = self._nodes.pop(identity, None)
        if node is None:
            return
        if self._hand is node:
            self._hand = node.newer
        if node.newer:
            node.newer.older = node.older
        else:
            self._newest = node.older
        if node.older:
            node.older.newer = node.newer
        else:
            self._oldest = node.newer

    def next(self, may_leave: Callable[[bytes], bool]) -> bytes | None:
        """Who goes next among those that may leave, or None. The second round meets only what the first has unmarked."""
        node = self._hand or self._oldest
        for _ in range(2 * len(self._nodes)):
            assert node is not None  # there are nodes
            if node.visited:
                node.visited = False
            elif may_leave(node.identity):
                self._hand = node
                return node.identity
            node = node.newer or self._oldest
        return None
