"""Reads of a part of one object: of a dataset, or of any key of a base, as fresh as the reader asks.

A key that a saved manifest lists is read through its pack or segment there, if the version is still the base's. What is cached is
validated when it is older than the reader allows; what is not is fetched and compared, which takes one request.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from swingby.core.containers.location import Where
from swingby.core.manifest.packs import ROW_PACK, ROW_SLOT
from swingby.core.object import ObjectInfo
from swingby.core.segment import CHUNK_BYTES, object_segment
from swingby.errors import KeeperError, ObjectChangedError, SwingbyError
from swingby.keeper.protocol import NeedRange
from swingby.keeper.wanted import ObjectWanted, PackWanted, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable

    from swingby.keeper.answers import Answer
    from swingby.keeper.bases import OpenBase
    from swingby.keeper.protocol import Location
    from swingby.keeper.sources import Source, Sources
    from swingby.keeper.supply import Request, Supply

VALIDATED_MAX = 100_000  # keys whose version is remembered
SEQUENCES_MAX = 10_000  # objects of which the end of the last read is remembered
ATTEMPTS_MAX = 3  # while an object keeps changing

log = logging.getLogger("swingby")


class _Object(NamedTuple):
    """One object, resolved."""

    base: OpenBase
    key: bytes
    info: ObjectInfo
    listed: tuple[Source, int] | None  # where a manifest has this very version


class RangeReader:
    """See the module's text."""

    def __init__(self, sources: Sources, supply: Supply, burst_seconds: Callable[[], float]) -> None:
        self._sources = sources
        self._burst_seconds = burst_seconds
        self._supply = supply
        self._lock = threading.Lock()
        self._validated: OrderedDict[tuple[str, bytes], tuple[ObjectInfo, float]] = OrderedDict()
        self._ends: OrderedDict[tuple[str, bytes], int] = OrderedDict()  # where the last read of an object ended

    def begin(self, message: NeedRange, answer: Answer, attempt: int = 1) -> None:
        """Begin to answer; never raises."""
        try:
            if message.location and self._is_direct(message.location):
                answer.send_direct()
                return
            found = self._resolve(message, is_retry=attempt > 1)
            wanted, start, size = self._wanted(found, message.start, message.size)
            answer.describe(start, size, found.info)
            if message.doubt:
                self._supply.check([wanted])

            def finish(request: Request) -> None:
                errors = [error for part in request.parts for error in part.errors.values()]
                changed = any(isinstance(error, ObjectChangedError) for error in errors)
                if changed and message.location and attempt < ATTEMPTS_MAX:
                    threading.Thread(target=self.begin, args=(message, answer, attempt + 1), daemon=True).start()
                else:
                    answer.complete(request)

            self._supply.begin(found.base, [wanted] if size else [], finish, urgent=True)
            self._read_ahead(found, start, start + size)
        except SwingbyError as error:
            answer.fail(error)
        except Exception as error:
            log.exception("a range cannot be read")
            answer.fail(KeeperError(f"the keeper failed: {error!r}"))

    def whole(self, location: Location) -> tuple[OpenBase, Wanted]:
        """One object as the base has it now, and where it comes from.

        Raises:
            ObjectNotFoundError: there is none of this name.
            SwingbyError: the base's.
        """
        found = self._resolve(NeedRange(0, -1, 0.0, location=location), is_retry=True)
        return found.base, self._wanted(found, 0, -1)[0]

    def _read_ahead(self, found: _Object, start: int, stop: int) -> None:
        """Begin with the next part of an object that is read from end to end."""
        key = found.base.base.id, found.key
        with self._lock:
            is_next = start > 0 and self._ends.pop(key, None) == start
            self._ends[key] = stop
            if len(self._ends) > SEQUENCES_MAX:
                self._ends.popitem(last=False)
        if is_next and stop < found.info.size:
            wanted, _, _ = self._wanted(found, stop, stop - start)
            self._supply.begin(found.base, [wanted], lambda _: None, urgent=False)

    def _resolve(self, message: NeedRange, *, is_retry: bool) -> _Object:
        if message.location is None:
            source = self._sources.get(message.digest)
            manifest, index = source.manifest, message.index
            info = ObjectInfo(manifest.size(index), manifest.version(index))
            return _Object(source.base, manifest.root.prefix + manifest.key(index), info, (source, index))
        base, key = self._sources.bases.get(message.location), message.location.path
        listed = self._sources.covering(base, key)
        known = self._known(base, key, message.max_age_seconds)
        if known:
            info = known
        elif listed and not is_retry and self._is_absent(listed):
            source, index = listed
            info = ObjectInfo(source.manifest.size(index), source.manifest.version(index))
        else:
            info = base.base.stat(key)
            self._remember(base, key, info)
        if listed:
            source, index = listed
            if info != (source.manifest.size(index), source.manifest.version(index)):
                listed = None
        return _Object(base, key, info, listed)

    def _wanted(self, found: _Object, start: int, size: int) -> tuple[Wanted, int, int]:
        """What to make present, and which bytes of the object that is: a small object whole, of others the chunks."""
        whole = found.info.size
        stop = whole if size < 0 else min(whole, start + size)
        if found.listed:
            manifest, index = found.listed[0].manifest, found.listed[1]
            rows = manifest.rows(np.array([index]))
            if not manifest.is_large(int(rows[0, ROW_PACK])):
                return PackWanted(manifest, int(rows[0, ROW_PACK]), rows, np.array([index]), np.array([0])), 0, whole
            where = manifest.where(index)
        else:
            where = Where(found.key, 0, whole, whole, found.info.version)
        segment = object_segment(self._sources.origin(found.base), found.key, *found.info)
        wanted = ObjectWanted(segment, where, (min(start, stop), stop), (0, 0))
        first = start // CHUNK_BYTES * CHUNK_BYTES
        return wanted, first, max(0, min(whole, first + len(wanted.chunks) * CHUNK_BYTES) - first)

    def _is_direct(self, location: Location) -> bool:
        """Whether the client reads this base itself: it can, and no level is nearer."""
        base = self._sources.bases.get(location)
        burst = self._supply.levels.burst
        if not base.is_measured and burst:
            base.measure(burst.reader, [os.fsdecode(b"/" + location.path)], self._burst_seconds())
        return base.base.local and base.is_near

    def _known(self, base: OpenBase, key: bytes, max_age_seconds: float) -> ObjectInfo | None:
        with self._lock:
            found = self._validated.get((base.base.id, key))
        return found[0] if found and time.monotonic() - found[1] < max_age_seconds else None

    def _remember(self, base: OpenBase, key: bytes, info: ObjectInfo) -> None:
        with self._lock:
            self._validated[base.base.id, key] = (info, time.monotonic())
            self._validated.move_to_end((base.base.id, key))
            if len(self._validated) > VALIDATED_MAX:
                self._validated.popitem(last=False)

    def _is_absent(self, listed: tuple[Source, int]) -> bool:
        """Whether a small object is on no level, so that fetching it tells its version too."""
        source, index = listed
        rows = source.manifest.rows(np.array([index]))
        if source.manifest.is_large(int(rows[0, ROW_PACK])):
            return False
        segment, slot = source.manifest.pack(int(rows[0, ROW_PACK])), int(rows[0, ROW_SLOT])
        for level in filter(None, self._supply.levels):
            with level.holding(segment, create=False) as file:
                if file and file.may_have(slot):
                    return False
        return True
