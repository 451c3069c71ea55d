"""Opens datasets: through the keeper, or by listing in this process where there is none."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from swingby.core.containers.layouts import OBJECTS, check_layout
from swingby.core.manifest.build import build
from swingby.core.manifest.root import Root, ShardInfo, decode_root, encode_root
from swingby.core.manifest.view import Manifest
from swingby.core.object import key_text
from swingby.core.segment import Origin
from swingby.errors import (
    EmptyDatasetError,
    FormatError,
    KeeperError,
    KeeperUnavailableError,
    ManifestNotFoundError,
    NotOpenError,
    ProtocolError,
    SwingbyError,
)
from swingby.keeper.frames import close_all
from swingby.keeper.protocol import Location, Open, Opened, Progress, Shards
from swingby.levels.mapping import map_read_only
from swingby.path.read import DatasetReader

if TYPE_CHECKING:
    from swingby.config import Settings
    from swingby.keeper.client import KeeperClient
    from swingby.path.fallback import Fallback

LISTING_SECONDS_MAX = 24 * 3600.0  # between two signs of life of a listing there are seconds; this is for giant ones
ATTEMPTS_MAX = 2

ProgressCall = Callable[[int, int], None]


class Opener:
    """Opens the dataset of one prefix.

    Args:
        settings: in force.
        client: to the keeper.
        location: base and prefix.
        fallback: the base, without a keeper.
        layout: of the containers there; "objects": none are meant.
    """

    def __init__(
        self, settings: Settings, client: KeeperClient, location: Location, fallback: Fallback, layout: str
    ) -> None:
        check_layout(layout)
        self._settings = settings
        self._client = client
        self._location = location
        self._fallback = fallback
        self._layout = layout

    def open(self, manifest: str | None, refresh: str, progress: ProgressCall | None) -> DatasetReader:
        """A reader of the prefix's snapshot.

        Args:
            manifest: digest of a saved one, instead of the newest.
            refresh: "auto", "always" or "never".
            progress: told objects and bytes while a listing goes on.

        Raises:
            SwingbyError: as `swingby.open`.
        """
        try:
            found = self._by_keeper(manifest, refresh, progress)
        except (KeeperError, ManifestNotFoundError, FormatError) as error:
            if manifest or refresh == "never":
                if isinstance(error, ManifestNotFoundError):
                    raise
                raise ManifestNotFoundError(
                    f"saved manifests are the keeper's, which cannot send them: {error}"
                ) from None
            found = self._by_listing(error, progress)
        self._layout = found.root.layout
        client = self._settings.client
        limits = (client.deadline_seconds, client.mapped_bytes_max)
        return DatasetReader(found, self._client, lambda: self._reopen(found.digest), self._fallback, limits)

    def _by_keeper(self, digest: str | None, refresh: str, progress: ProgressCall | None) -> Manifest:
        for attempt in range(ATTEMPTS_MAX):
            try:
                return self._ask(digest, refresh, progress)
            except SwingbyError:
                raise
            except ConnectionError as error:
                if attempt == ATTEMPTS_MAX - 1:
                    raise KeeperUnavailableError(f"the keeper went away twice: {error}") from None
        raise AssertionError("unreachable")

    def _ask(self, digest: str | None, refresh: str, progress: ProgressCall | None) -> Manifest:
        with self._client.exchange() as exchange:
            exchange.send(Open(self._location, refresh, digest, self._layout), self._settings.client.deadline_seconds)
            while True:
                reply = exchange.receive(LISTING_SECONDS_MAX)
                try:
                    if isinstance(reply.message, Opened):
                        return self._manifest(reply.message.digest, reply.descriptors)
                finally:
                    close_all(reply.descriptors)
                if not isinstance(reply.message, Progress):
                    raise ProtocolError(f"an unexpected {type(reply.message).__name__}")
                if progress:
                    progress(reply.message.objects, reply.message.bytes)

    def _manifest(self, digest: str, descriptors: list[int]) -> Manifest:
        try:
            data = os.pread(descriptors[0], os.fstat(descriptors[0]).st_size, 0)
        except OSError as error:  # the disk that the keeper has it on
            raise KeeperUnavailableError(f"the keeper's manifest cannot be read: {error}") from None
        root = decode_root(data)
        sent = [map_read_only(one, info.file_bytes) for one, info in zip(descriptors[1:], root.shards, strict=False)]

        def open_shard(number: int) -> memoryview:
            return sent[number] if number < len(sent) else self._open_shard(digest, root, number)

        return Manifest(root, digest, open_shard)

    def _reopen(self, digest: str) -> None:
        """Tell a keeper that was restarted; one whose home is gone lists again, and may find the same snapshot.

        Raises:
            ManifestNotFoundError: the snapshot cannot be had from the keeper any more.
        """
        try:
            self._by_keeper(digest, "never", None)
        except ManifestNotFoundError:
            if self._by_keeper(None, "always", None).digest != digest:
                raise

    def _open_shard(self, digest: str, root: Root, number: int) -> memoryview:
        """The bytes of a shard, which the keeper has checked, mapped."""
        message = Shards(digest, [number])
        try:
            reply = self._client.call(message, LISTING_SECONDS_MAX)
        except NotOpenError:
            self._reopen(digest)
            reply = self._client.call(message, LISTING_SECONDS_MAX)
        try:
            if len(reply.descriptors) != 1:
                raise ProtocolError("the keeper sent no shard")
            return map_read_only(reply.descriptors[0], root.shards[number].file_bytes)
        finally:
            close_all(reply.descriptors)

    def _by_listing(self, reason: SwingbyError, progress: ProgressCall | None) -> Manifest:
        """List the prefix in this process and keep the manifest in its memory."""
        base = self._fallback.base(reason)
        shards: dict[bytes, memoryview] = {}
        done = [0, 0]

        def keep(info: ShardInfo, data: bytes) -> None:
            shards[info.digest] = memoryview(data)
            done[:] = done[0] + info.count, done[1] + info.data_bytes
            if progress:
                progress(*done)

        def manifest_of(root: Root) -> Manifest:
            return Manifest(root, encode_root(root)[0], lambda number: shards[root.shards[number].digest])

        prefix = self._location.path
        root = build(Origin(base.id, self._settings.scope), prefix, base.list(prefix), keep)
        if not root.count:
            raise empty(self._location)
        if self._layout == OBJECTS:
            return manifest_of(root)
        from swingby.keeper.indexing import Indexer
        from swingby.keeper.samples import make_root

        containers = manifest_of(root)
        indexer = Indexer(base, self._layout, containers, None)
        return manifest_of(make_root(indexer, containers, None, (keep, lambda *_: None))[0])


def empty(location: Location) -> EmptyDatasetError:
    """The error for a prefix without objects."""
    return EmptyDatasetError(
        f"nothing lies under {location.name}", key=key_text(location.path), remedy="Check the prefix's spelling"
    )
