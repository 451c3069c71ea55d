"""Opens a prefix as the samples in its containers: lists the containers as any prefix, and indexes those that are new.

The manifest of samples is made of the manifest of the containers and the layout alone, so that it is as fresh as that one is.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

import msgspec

from swingby.core.containers.layouts import LAYOUTS, OBJECTS, bad_containers, check_layout
from swingby.core.manifest.build import build, refresh
from swingby.core.object import key_text
from swingby.errors import EmptyDatasetError, ManifestNotFoundError
from swingby.keeper.indexes import IndexFolder
from swingby.keeper.indexing import Indexer
from swingby.keeper.manifests import place_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from swingby.core.manifest.build import Sink
    from swingby.core.manifest.reassign import Move
    from swingby.core.manifest.root import Root
    from swingby.core.manifest.view import Manifest
    from swingby.keeper.manifests import Listing
    from swingby.keeper.protocol import Open
    from swingby.keeper.sources import Source, Sources

log = logging.getLogger("swingby")


def open_samples(sources: Sources, wanted: Open, progress: Callable[[int, int], None]) -> tuple[Source, Listing]:
    """As `Sources.open`, for any layout of containers.

    Raises:
        BadContainerError: no container can be read.
    """
    check_layout(wanted.layout)
    base, prefix = sources.bases.get(wanted.location), wanted.location.path
    with sources.listing(base, prefix, wanted.layout):
        old, record = sources.newest(base, prefix, wanted.layout)
        if wanted.refresh == "never":
            if old is None or record is None:
                raise ManifestNotFoundError(
                    f"{wanted.location.name} was never opened with layout={wanted.layout!r}",
                    remedy="Open it with refresh='auto'",
                )
            return sources.keep(old), record.listings[-1]
        containers, listing = sources.open(msgspec.structs.replace(wanted, layout=OBJECTS), progress)
        if old and _is_of(old.manifest, containers.manifest, wanted.refresh):
            return sources.keep(old), listing
        started = time.monotonic()
        folder = IndexFolder(
            os.path.join(sources.store.indexes, place_name(base.base.id, sources.scope, prefix, wanted.layout))
        )
        indexer = Indexer(base.base, wanted.layout, containers.manifest, folder)
        with sources.store.writing() as sink:
            root, moves = make_root(indexer, containers.manifest, old.manifest if old else None, (sink, progress))
            sources.on_moves(moves)
            saved = sources.store.save(root, time.monotonic() - started)
        indexer.finish()
        if root.contained and root.contained.left_out:
            log.info("%s: members that are no samples: %s", wanted.location.name, root.contained.left_out)
        return sources.keep(containers._replace(manifest=sources.store.load(saved.digest))), listing


def make_root(
    indexer: Indexer,
    containers: Manifest,
    old: Manifest | None,
    told: tuple[Sink, Callable[[int, int], None]],
) -> tuple[Root, list[Move]]:
    """The root of a manifest of samples, and the chunks that now belong to another pack.

    Args:
        indexer: of the containers.
        containers: the manifest that lists them.
        old: an earlier manifest of samples of the same place and layout.
        told: what is given each shard, and what is told samples and bytes.

    Raises:
        EmptyDatasetError: there is no container, or no sample in any.
        BadContainerError: no container can be read.
    """
    sink, progress = told
    pages, table = indexer.pages(progress), indexer.containers
    moves: list[Move] = []
    if old:
        root, moves, *_ = refresh(old, pages, sink, table)
    else:
        root = build(containers.root.origin, containers.root.prefix, pages, sink, table)
    root = msgspec.structs.replace(root, contained=indexer.contained())
    if not root.count:
        raise bad_containers(root) or nothing_contained(containers, root.layout)
    return root, moves


def nothing_contained(containers: Manifest, layout: str) -> EmptyDatasetError:
    """The error for a prefix without samples."""
    patterns = ", ".join(LAYOUTS[layout].patterns)
    prefix = key_text(containers.root.prefix)
    return EmptyDatasetError(
        f"of {len(containers)} objects under {prefix!r}, none named {patterns} holds a sample of layout {layout!r}",
        key=prefix,
        remedy="Check the layout and the names",
    )


def _is_of(samples: Manifest, containers: Manifest, mode: str) -> bool:
    """Whether a manifest of samples is what would be made of these containers; asked anew, bad ones are tried again."""
    made = samples.root.contained
    return made is not None and made.source == containers.digest and not (made.bad and mode == "always")
