"""Turns a finished request into what the client is told: files to map, pieces to read, failures."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from swingby.errors import DeadlineError, KeeperError, SwingbyError
from swingby.keeper.frames import close_all
from swingby.keeper.protocol import (
    DESCRIPTORS_MAX,
    FileRef,
    Files,
    Message,
    ObjectFailure,
    Piece,
    Supplied,
)
from swingby.levels.segment_file import MAP_SUFFIX, SEGMENT_SUFFIX
from swingby.levels.unnamed_file import unnamed_file

if TYPE_CHECKING:
    from swingby.core.object import ObjectInfo
    from swingby.keeper.server import Connection
    from swingby.keeper.supply import Part, Request

LOOSE_ALIGNMENT_BYTES = 64


class Answer:
    """The answer to one Need or NeedRange; sent once, by completion or by the deadline.

    Args:
        connection: where to.
        digest: of the dataset, for what the client already has; empty: nothing is remembered.
        seconds: until it is late.

    Without a digest nothing is mapped: all is given as pieces to read.
    """

    def __init__(self, connection: Connection, digest: str, seconds: float) -> None:
        self._connection = connection
        self._digest = digest
        self._seconds = seconds
        self._about: tuple[int, int, int, bytes] = (0, 0, 0, b"")
        self.late_at = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._sent = False

    @property
    def is_sent(self) -> bool:
        """Whether the client has it."""
        return self._sent

    def describe(self, start: int, size: int, info: ObjectInfo) -> None:
        """Say which part of which object will be supplied."""
        self._about = (start, size, info.size, info.version)

    def send_direct(self) -> None:
        """Tell the client to read the base itself."""
        if self._claim():
            self._connection.send(Supplied(direct=[0]))

    def expire(self) -> None:
        """The deadline is over."""
        if self._claim():
            self._connection.fail(DeadlineError(f"the base did not answer within {self._seconds:g} s"))

    def fail(self, error: SwingbyError) -> None:
        """The request cannot begin."""
        if self._claim():
            self._connection.fail(error)

    def complete(self, request: Request) -> None:
        """The request is done; a waiter of `Supply.begin`."""
        if not self._claim():
            return
        builder = _Builder(self._connection, self._digest)
        try:
            for part in request.parts:
                builder.add(part)
            builder.send(self._about, request.base_seconds, request.base_bytes)
        except SwingbyError as error:
            builder.abandon()
            self._connection.fail(error)
        except OSError as error:
            builder.abandon()
            self._connection.fail(KeeperError(f"the keeper cannot pass files: {error}"))

    def _claim(self) -> bool:
        with self._lock:
            sent, self._sent = self._sent, True
            return not sent


class _Builder:
    def __init__(self, connection: Connection, digest: str) -> None:
        self._connection = connection
        self._digest = digest
        self._refs: list[FileRef] = []
        self._descriptors: list[list[int]] = []
        self._pieces: list[tuple[int, int, Piece]] = []  # position, chunk, piece
        self._direct: list[int] = []
        self._ranges: list[int] = []
        self._failures: dict[int, ObjectFailure] = {}
        self._loose: list[tuple[Part, int]] = []

    def add(self, part: Part) -> None:
        """One segment's part of the answer."""
        wanted = part.wanted
        for chunk, error in part.errors.items():
            position = wanted.position_of(chunk)
            self._failures.setdefault(position, ObjectFailure(position, type(error).__name__, error.facts()))
        self._loose += [(part, chunk) for chunk in part.homeless]
        if part.kind == "memory" and self._digest and (wanted.segment.packed or not part.homeless):
            self._add_mapped(part)
        elif part.kind in {"memory", "burst"}:
            self._add_readable(part)
        elif part.kind in {"direct", "range"}:
            positions = {wanted.position_of(chunk) for chunk in wanted.chunks.tolist()}
            (self._direct if part.kind == "direct" else self._ranges).extend(sorted(positions))

    def send(self, about: tuple[int, int, int, bytes], base_seconds: float, base_bytes: int) -> None:
        """Send files, then the end of the answer."""
        if self._loose:
            self._add_loose()
        pieces = [piece for _, _, piece in sorted(self._pieces, key=lambda entry: entry[:2])]
        held: list[FileRef] = []
        descriptors: list[int] = []
        for ref, found in zip(self._refs, self._descriptors, strict=True):
            if len(descriptors) + len(found) > DESCRIPTORS_MAX:
                self._connection.send(Files(held), descriptors)
                held, descriptors = [], []
            held.append(ref)
            descriptors += found
        if held:
            self._connection.send(Files(held), descriptors)
        base = (base_seconds, base_bytes)
        end: Message = Supplied(pieces, self._direct, self._ranges, list(self._failures.values()), *about, *base)
        self._connection.send(end)

    def abandon(self) -> None:
        """Close what will not be sent."""
        for descriptors in self._descriptors:
            close_all(descriptors)

    def _file(self, ref: FileRef, *paths: str, flags: int = 0) -> int:
        descriptors: list[int] = []
        self._refs.append(ref)
        self._descriptors.append(descriptors)
        descriptors.extend(os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags) for path in paths)
        return len(self._refs) - 1

    def _add_mapped(self, part: Part) -> None:
        assert part.place is not None  # that is what the kind means
        file, slot = part.place.file, part.wanted.slot
        key = (self._digest, slot)
        if self._connection.known.get(key) == file.generation:
            return
        ref = FileRef(slot, "memory", file.segment.size_bytes, file.segment.chunk_count, file.generation)
        self._file(ref, file.path + SEGMENT_SUFFIX, file.path + MAP_SUFFIX)
        self._connection.known[key] = file.generation

    def _add_readable(self, part: Part) -> None:
        assert part.place is not None  # that is what the kind means
        file = part.place.file
        flags = os.O_DIRECT if part.place.level.reader.direct else 0
        kind = "burst" if part.kind == "burst" else "readable"
        ref = FileRef(part.wanted.slot, kind, file.segment.size_bytes, file.segment.chunk_count, file.generation)
        number = self._file(ref, file.path + SEGMENT_SUFFIX, flags=flags)
        if kind == "readable" and not part.wanted.segment.packed:
            self._file(msgspec.structs.replace(ref, kind="map"), file.path + MAP_SUFFIX)
        for chunk in part.wanted.chunks.tolist():
            if chunk not in part.errors and chunk not in part.homeless:
                offset, size = part.wanted.extent(chunk)
                self._add_piece(part, chunk, Piece(0, number, offset, size, file.word(chunk)))

    def _add_piece(self, part: Part, chunk: int, piece: Piece) -> None:
        position = part.wanted.position_of(chunk)
        self._pieces.append((position, chunk, msgspec.structs.replace(piece, position=position)))

    def _add_loose(self) -> None:
        """All homeless bytes in one file without a name."""
        descriptor = unnamed_file("swingby-loose")
        number, at = len(self._refs), 0
        self._descriptors.append([descriptor])
        for part, chunk in self._loose:
            data, word, size = part.homeless[chunk]
            os.pwrite(descriptor, data, at)
            self._add_piece(part, chunk, Piece(0, number, at, size, word))
            at += -(-size // LOOSE_ALIGNMENT_BYTES) * LOOSE_ALIGNMENT_BYTES
        os.ftruncate(descriptor, at)
        self._refs.append(FileRef(0, "loose", at, len(self._loose), 0))
