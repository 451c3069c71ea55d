"""Takes in a keeper's answer to Need or NeedRange: maps files, reads pieces, collects failures."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, NamedTuple

from swingby.core.checksum import word_of
from swingby.errors import CorruptDataError, DeadlineError, ProtocolError, SwingbyError, from_facts
from swingby.keeper.client import GRACE_SECONDS
from swingby.keeper.frames import close_all
from swingby.keeper.protocol import Files, Supplied
from swingby.levels.block_reader import BlockReader
from swingby.levels.mapping import map_read_only
from swingby.path.waits import WAITED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from swingby.keeper.client import Exchange
    from swingby.keeper.protocol import FileRef, Message, Piece
    from swingby.path.tables import Mapped

_reader = BlockReader(direct=True)


class Answer(NamedTuple):
    """A keeper's answer.

    Attributes:
        end: its last message.
        files: what came, in order: reference and descriptor; closed by `close`.
        mapped: what was mapped, by slot.
    """

    end: Supplied
    files: list[tuple[FileRef, int]]
    mapped: dict[int, Mapped]

    def failures(self) -> dict[int, SwingbyError]:
        """Errors by position."""
        return {one.position: from_facts(one.name, one.facts) for one in self.end.failures}

    def views(self) -> dict[int, memoryview]:
        """Bytes of the objects that came as pieces, by position.

        Raises:
            CorruptDataError: a piece does not match its checksum.
            OSError: it cannot be read.
        """
        by_position: dict[int, list[Piece]] = {}
        for piece in self.end.pieces:
            by_position.setdefault(piece.position, []).append(piece)
        loose: dict[int, memoryview] = {}
        return {position: self._object(pieces, loose) for position, pieces in by_position.items()}

    def parts(self, start: int, stop: int, pieces_start: int) -> Iterator[memoryview]:
        """Bytes [start, stop) of the one object asked for, in pieces, each valid until the next; then closes the files.

        The first piece is read here, so that the common error is raised here.

        Args:
            start, stop: offsets in the object.
            pieces_start: offset in the object of the first piece.
        """
        found = self._parts(start, stop, pieces_start)
        first = next(found, None)
        return itertools.chain([] if first is None else [first], found)

    def _parts(self, start: int, stop: int, pieces_start: int) -> Iterator[memoryview]:
        try:
            at = pieces_start
            for piece in self.end.pieces:
                first, last = max(start, at), min(stop, at + piece.size)
                if first < last:
                    yield self.read(piece)[first - at : last - at]
                at += piece.size
        finally:
            self.close()

    def close(self) -> None:
        """Close the descriptors."""
        close_all([descriptor for _, descriptor in self.files])

    def _object(self, pieces: list[Piece], loose: dict[int, memoryview]) -> memoryview:
        if len(pieces) == 1 and self.files[pieces[0].file][0].kind == "loose":
            number = pieces[0].file
            if number not in loose:
                ref, descriptor = self.files[number]
                loose[number] = map_read_only(descriptor, ref.size_bytes)
            return loose[number][pieces[0].offset : pieces[0].offset + pieces[0].size]
        buffer = bytearray(sum(piece.size for piece in pieces))
        at = 0
        for piece in pieces:
            buffer[at : at + piece.size] = self.read(piece)
            at += piece.size
        return memoryview(buffer).toreadonly()

    def read(self, piece: Piece) -> memoryview:
        """One piece, valid until this thread's next, and checked: what comes from a disk may have changed there.

        Raises:
            CorruptDataError: it does not match its checksum.
            OSError: it cannot be read.
        """
        data = _reader.read_open(self.files[piece.file][1], piece.offset, piece.size)
        if word_of(data) != piece.word:
            raise CorruptDataError("bytes on the burst level do not match their checksum", level="burst")
        return data


def ask(exchange: Exchange, message: Message, seconds: float, add: Callable[[FileRef, int, int], Mapped]) -> Answer:
    """Send a request and take its whole answer.

    Args:
        exchange: a connection.
        message: Need or NeedRange.
        seconds: the longest wait.
        add: maps a pair.

    Raises:
        ConnectionError: the keeper is gone.
        SwingbyError: the keeper's error, or DeadlineError.
    """
    until = time.monotonic() + seconds + GRACE_SECONDS
    began = time.perf_counter()
    exchange.send(message, seconds)
    files: list[tuple[FileRef, int]] = []
    mapped: dict[int, Mapped] = {}
    try:
        while True:
            reply = exchange.receive(until - time.monotonic())
            if isinstance(reply.message, Supplied):
                WAITED.add(min(reply.message.base_seconds, time.perf_counter() - began), reply.message.base_bytes)
                return Answer(reply.message, files, mapped)
            if not isinstance(reply.message, Files):
                close_all(reply.descriptors)
                raise ProtocolError(f"an unexpected {type(reply.message).__name__}")
            _take_files(reply.message.refs, reply.descriptors, files, mapped, add)
    except BaseException as error:
        close_all([descriptor for _, descriptor in files])
        if isinstance(error, DeadlineError):
            raise DeadlineError(
                f"the bytes did not come within {seconds:g} s", remedy="Is the base reachable?"
            ) from None
        raise


def refuse_map(ref: FileRef, segment: int, segment_map: int) -> Mapped:
    """For requests whose answers hold nothing to map."""
    del segment, segment_map
    raise ProtocolError(f"the keeper sent a {ref.kind} segment to map where pieces were asked for")


def _take_files(
    refs: list[FileRef],
    descriptors: list[int],
    files: list[tuple[FileRef, int]],
    mapped: dict[int, Mapped],
    add: Callable[[FileRef, int, int], Mapped],
) -> None:
    left = iter(descriptors)
    try:
        for ref in refs:
            if ref.kind == "memory":
                pair = [next(left), next(left)]
                try:
                    mapped[ref.slot] = add(ref, *pair)
                finally:
                    close_all(pair)
                files.append((ref, -1))
            else:
                files.append((ref, next(left)))
    except StopIteration:
        raise ProtocolError("descriptors are missing") from None
    finally:
        close_all(list(left))
