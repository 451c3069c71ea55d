"""Datasets in use: lists and refreshes prefixes, and keeps manifest and base together by digest.

Freshness of `refresh="auto"`: a listing is reused for ten times as long as it took to make, at most ten minutes; so listing never
costs more than about a tenth, and a small directory is looked at every time. A base that is down leaves the last listing in use.

Threads: safe; one listing of a place at a time, the others wait for it and use it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, defaultdict
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from swingby.core.containers.layouts import OBJECTS
from swingby.core.manifest.build import build, refresh
from swingby.core.object import key_text
from swingby.core.segment import Origin
from swingby.core.selection import select
from swingby.errors import BaseUnavailableError, EmptyDatasetError, ManifestNotFoundError, NotOpenError
from swingby.keeper.manifests import Listing
from swingby.keeper.samples import open_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from swingby.config import Listing as ListingSettings
    from swingby.core.manifest.reassign import Move
    from swingby.core.manifest.view import Manifest
    from swingby.core.object import Page
    from swingby.keeper.bases import Bases, OpenBase
    from swingby.keeper.manifests import ManifestStore, PlaceRecord
    from swingby.keeper.protocol import Location, Open, Selection

OPEN_MAX = 64  # datasets held open; one opened again costs a few milliseconds

log = logging.getLogger("swingby")


class Source(NamedTuple):
    """A dataset: its manifest and the base it is of."""

    manifest: Manifest
    base: OpenBase


class Sources:
    """See the module's text.

    Args:
        bases: opens bases.
        store: saves manifests.
        settings: of listing.
        scope: of segment ids.
        on_moves: told of chunks that a refresh put into other packs, before the manifest is in use.
    """

    def __init__(
        self,
        bases: Bases,
        store: ManifestStore,
        settings: ListingSettings,
        scope: str,
        on_moves: Callable[[list[Move]], None],
    ) -> None:
        self.bases = bases
        self.store = store
        self.scope = scope
        self.on_moves = on_moves
        self._settings = settings
        self._lock = threading.Lock()
        self._listing: defaultdict[tuple[str, bytes, str], threading.Lock] = defaultdict(threading.Lock)
        self._open: OrderedDict[str, Source] = OrderedDict()
        self._selections: OrderedDict[tuple[str, bytes], NDArray[np.int64] | None] = OrderedDict()

    def open(self, wanted: Open, progress: Callable[[int, int], None]) -> tuple[Source, Listing]:
        """The dataset of a prefix.

        Args:
            wanted: base and prefix; whether to list; a saved manifest instead of the newest; the layout.
            progress: told objects and bytes as the listing goes; may raise to end it.

        Raises:
            EmptyDatasetError: nothing is there.
            ManifestNotFoundError: a manifest, or "never", and none is saved.
            SwingbyError: the base's.
        """
        location, mode = wanted.location, wanted.refresh
        base = self.bases.get(location)
        if wanted.manifest:
            return self._saved(wanted, wanted.manifest, base)
        if wanted.layout != OBJECTS:
            return open_samples(self, wanted, progress)
        with self.listing(base, location.path, OBJECTS):
            old, record = self.newest(base, location.path, OBJECTS)
            if old and record and (mode == "never" or (mode == "auto" and self._is_fresh(record.listings[-1]))):
                return self.keep(old), record.listings[-1]
            if mode == "never":
                raise ManifestNotFoundError(f"{location.name} was never listed", remedy="Open it with refresh='auto'")
            try:
                return self._list(location, base, old, progress)
            except BaseUnavailableError as error:
                if mode == "always" or old is None or record is None:
                    raise
                log.warning("%s: using the listing of %s", error, time.ctime(record.listings[-1].listed_at))
                return self.keep(old), record.listings[-1]

    def listing(self, base: OpenBase, prefix: bytes, layout: str) -> threading.Lock:
        """Held by who lists or indexes a place."""
        return self._listing[base.base.id, prefix, layout]

    def newest(self, base: OpenBase, prefix: bytes, layout: str) -> tuple[Source | None, PlaceRecord | None]:
        """The newest whole manifest of a place, and what is known of the place."""
        record = self.store.place(base.base.id, self.scope, prefix, layout)
        return self._newest(record, base), record

    def get(self, digest: str) -> Source:
        """An open dataset.

        Raises:
            NotOpenError: it is not open here; the client opens it again.
        """
        with self._lock:
            source = self._open.get(digest)
            if source is None:
                raise NotOpenError(f"dataset {digest[:16]}… is not open")
            self._open.move_to_end(digest)
            return source

    def selection(self, source: Source, filters: Selection) -> NDArray[np.int64] | None:
        """Indices that filters select; None: all."""
        key = (source.manifest.digest, msgspec.msgpack.encode(filters))
        with self._lock:
            if key in self._selections:
                return self._selections[key]
        found = select(source.manifest.keys(), filters.include, filters.exclude)
        with self._lock:
            self._selections[key] = found
            if len(self._selections) > OPEN_MAX:
                self._selections.popitem(last=False)
        return found

    def covering(self, base: OpenBase, key: bytes) -> tuple[Source, int] | None:
        """The newest saved manifest of the base that lists a key, and the key's index in it."""
        best: PlaceRecord | None = None
        for record in self.store.places():
            if record.layout != OBJECTS:
                continue
            covers = (record.base_id, record.scope) == (base.base.id, self.scope) and key.startswith(record.prefix)
            if covers and (best is None or record.listings[-1].listed_at > best.listings[-1].listed_at):
                best = record
        source = self._newest(best, base)
        index = source.manifest.find(key[len(source.manifest.root.prefix) :]) if source else None
        return (source, index) if source and index is not None else None

    def origin(self, base: OpenBase) -> Origin:
        """What segment ids of a base are made with."""
        return Origin(base.base.id, self.scope)

    def keep(self, source: Source) -> Source:
        """Hold a dataset open."""
        with self._lock:
            self._open[source.manifest.digest] = source
            self._open.move_to_end(source.manifest.digest)
            if len(self._open) > OPEN_MAX:
                self._open.popitem(last=False)
        return source

    # -- inside --------------------------------------------------------------------------------------------------------

    def _list(
        self, location: Location, base: OpenBase, old: Source | None, progress: Callable[[int, int], None]
    ) -> tuple[Source, Listing]:
        started = time.monotonic()
        pages = _reported(base.base.list(location.path), progress)
        with self.store.writing() as sink:
            result = refresh(old.manifest, pages, sink) if old else None
            root = result.root if result else build(self.origin(base), location.path, pages, sink)
            if not root.count:
                raise EmptyDatasetError(
                    f"nothing lies under {location.name}",
                    key=key_text(location.path),
                    remedy="Check the prefix's spelling",
                )
            if result:
                self.on_moves(result.moves)
            listing = self.store.save(root, time.monotonic() - started)
        return self.keep(Source(self.store.load(listing.digest), base)), listing

    def _saved(self, wanted: Open, digest: str, base: OpenBase) -> tuple[Source, Listing]:
        source = Source(self.store.load(digest), base)
        root = source.manifest.root
        if (root.base_id, root.prefix) != (base.base.id, wanted.location.path):
            raise ManifestNotFoundError(f"manifest {digest[:16]}… is not of {wanted.location.name}")
        if wanted.layout not in {OBJECTS, root.layout}:
            raise ManifestNotFoundError(f"manifest {digest[:16]}… is of layout {root.layout!r}, not {wanted.layout!r}")
        return self.keep(source), self._known(source)

    def _newest(self, record: PlaceRecord | None, base: OpenBase) -> Source | None:
        if record is None or not record.listings:
            return None
        digest = record.listings[-1].digest
        with self._lock:
            if digest in self._open:
                return Source(self._open[digest].manifest, base)
        return Source(self.store.load(digest), base) if self.store.is_whole(digest) else None

    def _is_fresh(self, listing: Listing) -> bool:
        age = time.time() - listing.listed_at
        limit = min(self._settings.reuse_cost_ratio * listing.list_seconds, self._settings.reuse_seconds_max)
        return 0 <= age < limit

    def _known(self, source: Source) -> Listing:
        root = source.manifest.root
        record = self.store.place(root.base_id, root.scope, root.prefix, root.layout)
        known = [one for one in (record.listings if record else []) if one.digest == source.manifest.digest]
        return known[0] if known else Listing(source.manifest.digest, 0.0, 0.0)


def _reported(pages: Iterator[Page], progress: Callable[[int, int], None]) -> Iterator[Page]:
    objects = total = 0
    for page in pages:
        yield page
        objects += len(page.keys)
        total += int(page.sizes.sum())
        progress(objects, total)
