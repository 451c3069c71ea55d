"""Reads of one version of one object by URL, again and again: an open file's.

The first answer, or whoever opened it, says which version; bytes of another are never given. What the keeper has supplied on the
memory level stays mapped until something is evicted there, so reading it again sends no message and copies once.

Threads: safe. Forks: safe; maps go on in the child.
"""

from __future__ import annotations

import io
import itertools
import threading
from typing import TYPE_CHECKING, NamedTuple

from swingby.core import forks
from swingby.core.object import ObjectInfo, key_text
from swingby.core.segment import CHUNK_BYTES
from swingby.errors import (
    BaseUnavailableError,
    CorruptDataError,
    KeeperError,
    KeeperUnavailableError,
    ObjectChangedError,
)
from swingby.keeper.protocol import Location, NeedRange
from swingby.levels import map_file
from swingby.levels.mapping import map_read_only
from swingby.path.supplied import ask, refuse_map
from swingby.path.tables import WORDS_AN_ENTRY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swingby.keeper.client import KeeperClient
    from swingby.path.fallback import Fallback
    from swingby.path.supplied import Answer

REQUEST_BYTES_MAX = 64 << 20
AHEAD_BYTES_MAX = 16 << 20  # asked for at once by one who reads on, however little at a time
COPIES_HELD_MAX = 8  # chunks that are not mapped; two times what may be asked for ahead
ATTEMPTS_MAX = 4
ANY_AGE_SECONDS = 1e9  # whatever the keeper holds will do, if it is the version that is wanted


class _Held(NamedTuple):
    """A chunk of the object.

    Attributes:
        view: its bytes.
        is_mapped: on the memory level, and not a copy.
    """

    view: memoryview
    is_mapped: bool


class _Mapped(NamedTuple):
    """A segment on the memory level.

    Attributes:
        view: its bytes.
        words: of an object's own segment, its map's entries: nonzero where a chunk is present.
    """

    view: memoryview
    words: memoryview | None

    def chunk(self, number: int) -> _Held | None:
        """A chunk, if it is present."""
        if self.words is None or not self.words[number * WORDS_AN_ENTRY]:
            return None
        return _Held(self.view[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES], is_mapped=True)


class ObjectReader:
    """See the module's text.

    Args:
        client: to the keeper.
        location: base and key.
        fallback: the base, without a keeper.
        seconds: the longest one request may take.
        max_age_seconds: how long ago what is cached may have been validated, where `info` is None.
        info: the version to read; None: what the first answer is of.
    """

    def __init__(
        self,
        client: KeeperClient,
        location: Location,
        fallback: Fallback,
        seconds: float,
        *,
        max_age_seconds: float = 0.0,
        info: ObjectInfo | None = None,
    ) -> None:
        self.info = info
        self._client = client
        self._location = location
        self._fallback = fallback
        self._seconds = seconds
        self._max_age_seconds = max_age_seconds
        self._held: dict[int, _Held] = {}
        self._maps: dict[int, _Mapped] = {}
        self._board: memoryview | None = None
        self._evictions = 0
        self._next = self._ahead_bytes = 0
        self._is_direct = False
        self._lock = threading.Lock()
        forks.register(self)

    def read(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop); fewer where the object ends before.

        Raises:
            ObjectChangedError: the version that is read is gone.
            SwingbyError: the base's, or DeadlineError.
        """
        self._let_go_of_evicted()
        number, first = divmod(start, CHUNK_BYTES)
        held = self._held.get(number)
        if held and first <= (last := first + stop - start) <= len(held.view):
            return bytes(held.view[first:last])
        out = io.BytesIO()
        for part in self._parts(start, stop):
            out.write(part)
        return out.getvalue()

    def read_into(self, buffer: memoryview, start: int) -> int:
        """Fill a buffer from offset `start` on; how many bytes, fewer than its length where the object ends before.

        Raises:
            As `read`.
        """
        self._let_go_of_evicted()
        done = 0
        for part in self._parts(start, start + len(buffer)):
            buffer[done : done + len(part)] = part
            done += len(part)
        return done

    def close(self) -> None:
        """Let go of maps and copies."""
        self._held, self._maps = {}, {}

    def after_fork(self) -> None:
        """See `forks`."""
        self._lock = threading.Lock()

    def _let_go_of_evicted(self) -> None:
        board = self._board
        if board is not None and board[0] != self._evictions:
            self._evictions = board[0]
            self._held = {number: held for number, held in self._held.items() if not held.is_mapped}
            self._maps = {}

    def _parts(self, start: int, stop: int) -> Iterator[memoryview]:
        """Pieces in order; each is valid until the next."""
        at = start
        while at < (stop if self.info is None else min(stop, self.info.size)):
            number, first = divmod(at, CHUNK_BYTES)
            held = self._held.get(number) or self._present(number)
            if held:
                part = held.view[first : first + stop - at]
                yield part
                at += len(part)
            else:
                before = at
                for part in self._fetched(at, stop):
                    yield part
                    at += len(part)
                if at == before and self.info and at < self.info.size:
                    raise KeeperError("the keeper supplied less than was asked for")

    def _present(self, number: int) -> _Held | None:
        """A chunk that the keeper did not speak of, but that is on the memory level."""
        for mapped in list(self._maps.values()):
            if held := mapped.chunk(number):
                with self._lock:  # the barrier between the word and the bytes
                    self._held[number] = held
                return held
        return None

    def _fetched(self, at: int, stop: int) -> Iterator[memoryview]:
        """At least one piece from `at` on; what lies beyond `stop`, or is mapped, is held."""
        size = min(REQUEST_BYTES_MAX, max(stop - at, self._ahead(at)))
        self._next = -(-(at + size) // CHUNK_BYTES) * CHUNK_BYTES
        for offset, found in self._request(at, size):
            first, last = max(at, offset), min(stop, offset + len(found.view))
            if found.is_mapped or last - first < len(found.view):
                self._hold(offset, found)
            if first < last:
                yield found.view[first - offset : last - offset]

    def _ahead(self, at: int) -> int:
        """How much to ask for of an object that is read on: twice as much each time."""
        is_next = 0 < at == self._next
        self._ahead_bytes = min(AHEAD_BYTES_MAX, max(CHUNK_BYTES, 2 * self._ahead_bytes)) if is_next else 0
        return self._ahead_bytes

    def _hold(self, offset: int, found: _Held) -> None:
        number, rest = divmod(offset, CHUNK_BYTES)
        if rest:
            return
        self._held[number] = found if found.is_mapped else _Held(memoryview(bytes(found.view)), is_mapped=False)
        copies = [number for number, held in list(self._held.items()) if not held.is_mapped]
        for number in copies[:-COPIES_HELD_MAX]:
            self._held.pop(number, None)

    def _request(self, at: int, size: int) -> Iterator[tuple[int, _Held]]:
        """The keeper, then the keeper once more in doubt, then the base."""
        reason: BaseException | None = None
        age = self._max_age_seconds if self.info is None else ANY_AGE_SECONDS
        doubt = False
        for attempt in range(0 if self._is_direct else ATTEMPTS_MAX):
            message = NeedRange(at, size, self._seconds, "", -1, self._location, age, doubt)
            try:
                with self._client.exchange() as exchange:
                    evictions = exchange.board[0]
                    answer = ask(exchange, message, self._seconds, refuse_map)
            except BaseUnavailableError:  # a ConnectionError too, but not to the keeper
                raise
            except KeeperUnavailableError as error:
                reason = error
                break
            except (ConnectionError, KeeperError) as error:
                reason = error
                continue
            if answer.end.direct:
                self._is_direct = True
                break
            self._board, self._evictions = exchange.board, evictions
            try:
                return self._taken(answer)
            except CorruptDataError as error:
                reason, doubt = error, True
            except ObjectChangedError:
                if age == 0 or attempt == ATTEMPTS_MAX - 1:
                    raise
                age = 0.0
        return self._from_base(at, size, reason)

    def _taken(self, answer: Answer) -> Iterator[tuple[int, _Held]]:
        """The pieces of an answer with their offsets in the object; the first is read here, for its errors."""
        try:
            failures = answer.failures()
            if failures:
                raise failures[min(failures)]
            self._compare(ObjectInfo(answer.end.object_size, answer.end.version))
            pieces = self._pieces(answer)
            first = next(pieces, None)
        except BaseException:
            answer.close()
            raise
        return itertools.chain([] if first is None else [first], pieces)

    def _pieces(self, answer: Answer) -> Iterator[tuple[int, _Held]]:
        try:
            offset = answer.end.start
            for piece in answer.end.pieces:
                if answer.files[piece.file][0].kind == "burst":
                    held = _Held(answer.read(piece), is_mapped=False)
                else:
                    view = self._mapped(answer, piece.file).view
                    held = _Held(view[piece.offset : piece.offset + piece.size], is_mapped=True)
                yield offset, held
                offset += piece.size
        finally:
            answer.close()

    def _mapped(self, answer: Answer, number: int) -> _Mapped:
        """A file of an answer, mapped; again by the next answer that speaks of it, until something is evicted."""
        ref, descriptor = answer.files[number]
        found = self._maps.get(ref.generation) if ref.kind == "readable" else None
        if found is None:
            words = None
            if number + 1 < len(answer.files) and answer.files[number + 1][0].kind == "map":
                size = map_file.map_bytes(ref.chunk_count)
                words = map_read_only(answer.files[number + 1][1], size)[map_file.ENTRIES_OFFSET :].cast("Q")
            found = _Mapped(map_read_only(descriptor, ref.size_bytes), words)
            if ref.kind == "readable":
                self._maps[ref.generation] = found
        return found

    def _from_base(self, at: int, size: int, reason: BaseException | None) -> Iterator[tuple[int, _Held]]:
        """Local bases are read as asked; of others whole chunks, because each request is a round trip."""
        base = self._fallback.base(reason)
        if not base.local:
            first = at // CHUNK_BYTES * CHUNK_BYTES
            at, size = first, -(-(at + size - first) // CHUNK_BYTES) * CHUNK_BYTES
        payload = base.read(self._location.path, at, size, self.info.version if self.info else None)
        self._compare(payload.info)
        data = memoryview(payload.data).cast("B")
        if base.local:
            return iter([(at, _Held(data, is_mapped=False))])
        return (
            (at + start, _Held(data[start : start + CHUNK_BYTES], is_mapped=False))
            for start in range(0, len(data), CHUNK_BYTES)
        )

    def _compare(self, info: ObjectInfo) -> None:
        if self.info is None:
            self.info = info
        elif info != self.info:
            key = key_text(self._location.path)
            raise ObjectChangedError(
                f"{self._location.scheme}://{self._location.container}/{key} was replaced after it was opened",
                key=key,
                remedy="Open it again",
            )
