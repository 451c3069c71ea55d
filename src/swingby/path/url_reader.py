"""Reads of one object by URL, as fresh as asked. An object that changes meanwhile is read again, never mixed."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from swingby.core.object import ObjectInfo
from swingby.errors import CorruptDataError, FormatError, KeeperError, KeeperUnavailableError, ObjectChangedError
from swingby.keeper.protocol import Location, NeedRange
from swingby.path.supplied import Answer, ask, refuse_map

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swingby.keeper.client import KeeperClient
    from swingby.path.fallback import Fallback

RANGE_BYTES_MAX = 64 << 20  # a request
ATTEMPTS_MAX = 3


class UrlReader:
    """Reads one object.

    Args:
        client: to the keeper.
        location: base and key.
        fallback: the base, without a keeper.
        seconds: the longest one request may take.
        max_age_seconds: how long ago what is cached may have been validated.
    """

    def __init__(
        self, client: KeeperClient, location: Location, fallback: Fallback, seconds: float, max_age_seconds: float
    ) -> None:
        self._client = client
        self._location = location
        self._fallback = fallback
        self._seconds = seconds
        self._max_age_seconds = max_age_seconds

    def read(self, start: int, stop: int | None) -> bytes:
        """Bytes [start, stop), to the end where stop is None; fewer where the object ends before."""
        for attempt in range(ATTEMPTS_MAX):
            out = io.BytesIO()
            try:
                for part in self._parts(start, stop):
                    out.write(part)
                return out.getvalue()
            except ObjectChangedError:
                if attempt == ATTEMPTS_MAX - 1:
                    raise
        raise AssertionError("unreachable")

    def read_into(self, buffer: memoryview, start: int) -> int:
        """Fill a buffer from offset `start` on; how many bytes, fewer than its length where the object ends before."""
        for attempt in range(ATTEMPTS_MAX):
            done = 0
            try:
                for part in self._parts(start, start + len(buffer)):
                    buffer[done : done + len(part)] = part
                    done += len(part)
            except ObjectChangedError:
                if attempt == ATTEMPTS_MAX - 1:
                    raise
            else:
                return done
        raise AssertionError("unreachable")

    def _parts(self, start: int, stop: int | None) -> Iterator[memoryview]:
        """Pieces in order; each is valid until the next."""
        first: ObjectInfo | None = None
        at = start
        while stop is None or at < stop:
            want = RANGE_BYTES_MAX if stop is None else min(RANGE_BYTES_MAX, stop - at)
            info, parts = self._request(at, want)
            if first not in {None, info}:
                raise ObjectChangedError(f"{self._name} changed while it was read", key=self._name)
            first = info
            for part in parts:
                yield part
                at += len(part)
            if at >= info.size:
                return

    def _request(self, start: int, size: int) -> tuple[ObjectInfo, Iterator[memoryview]]:
        """The keeper, then the keeper once more in doubt, then the base."""
        reason: BaseException | None = None
        for attempt in range(ATTEMPTS_MAX):
            message = NeedRange(
                start, size, self._seconds, "", -1, self._location, self._max_age_seconds, doubt=attempt > 0
            )
            try:
                with self._client.exchange() as exchange:
                    answer = ask(exchange, message, self._seconds, refuse_map)
            except KeeperUnavailableError as error:
                reason = error
                break
            except (ConnectionError, KeeperError, FormatError) as error:
                reason = error
                continue
            if answer.end.direct:
                break
            try:
                return self._taken(answer, start, size)
            except CorruptDataError as error:
                reason = error
        payload = self._fallback.read(self._location.path, start, size, reason=reason)
        return payload.info, iter([memoryview(payload.data).cast("B")])

    def _taken(self, answer: Answer, start: int, size: int) -> tuple[ObjectInfo, Iterator[memoryview]]:
        try:
            failures = answer.failures()
            if failures:
                raise failures[min(failures)]
            parts = answer.parts(start, start + size, answer.end.start)
        except BaseException:
            answer.close()
            raise
        return ObjectInfo(answer.end.object_size, answer.end.version), parts

    @property
    def _name(self) -> str:
        return self._location.name
