"""Finds the samples in the containers of a listing: the pages of a manifest of samples, in key order.

A sample's key is its container's, "/", and its name. Containers are read side by side, in bounded memory, and only as much of
them as tells where their samples lie. A container that cannot be read is noted and left out; an error of the base ends it all.

Threads: the iterator belongs to one; its readers end with it.
"""

from __future__ import annotations

import heapq
import threading
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from swingby.core.containers.layouts import LAYOUTS
from swingby.core.containers.reading import read_index, sample_versions
from swingby.core.containers.window import LOCAL, REMOTE, Window
from swingby.core.manifest.packs import Entries
from swingby.core.manifest.root import Contained
from swingby.core.object import ObjectInfo, Page, key_text
from swingby.errors import BadContainerError, TruncatedReadError
from swingby.keeper.indexes import index_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    from swingby.base.contract import Base
    from swingby.core.containers.index import ContainerIndex
    from swingby.core.manifest.view import Manifest
    from swingby.keeper.indexes import IndexFolder

LOCAL_THREADS, REMOTE_THREADS = 4, 16
WAITING_MAX = 2  # containers read and not yet taken, for each thread
REFUSED = "it is compressed, and parts of it cannot be read"


class _Container(NamedTuple):
    number: int  # in the listing
    key: bytes  # relative to the prefix
    info: ObjectInfo


class Indexer:
    """See the module's text.

    Args:
        base: that holds the containers.
        layout: of them.
        source: the manifest that lists them.
        kept: indexes that were made earlier; None: none is kept.

    Attributes:
        containers: all of them, in the order of the listing.
        bad: those that could not be read: key and reason. Whole after the last page.
    """

    def __init__(self, base: Base, layout: str, source: Manifest, kept: IndexFolder | None) -> None:
        self._base = base
        self._layout = LAYOUTS[layout]
        self._source = source
        self._kept = kept
        self._prefix = source.root.prefix
        self._giants = threading.Semaphore(1)
        self._names: list[str] = []
        self._left_out: Counter[str] = Counter()
        self.bad: list[tuple[bytes, str]] = []
        chosen = [n for n, key in enumerate(source.keys()) if self._layout.is_container(key_text(key))]
        versions = np.frombuffer(b"".join(map(source.version, chosen)), np.uint8).reshape(-1, 16)
        sizes = np.array([source.size(number) for number in chosen], np.uint64)
        self.containers = Entries([source.key(number) for number in chosen], sizes, versions)

    def contained(self) -> Contained:
        """What the root says of it all; after the last page."""
        return Contained(self._layout.name, self._source.digest, dict(sorted(self._left_out.items())), sorted(self.bad))

    def finish(self) -> None:
        """The manifest is saved: indexes of containers that are no more can go."""
        if self._kept:
            self._kept.keep_only(self._names)

    def pages(self, progress: Callable[[int, int], None]) -> Iterator[Page]:
        """The samples.

        Args:
            progress: told samples and bytes so far; may raise to end it.

        Raises:
            SwingbyError: the base's.
        """
        samples = size = 0
        for group in self._groups():
            for page in _merged(group):
                if page.keys:
                    yield page
                samples += len(page.keys)
                size += int(page.sizes.sum())
                progress(samples, size)

    def _groups(self) -> Iterator[list[Page]]:
        """Pages of containers whose samples' keys may stand between each other: mostly one at a time."""
        group: list[Page] = []
        first = b""
        for container, index in self._indexes():
            if group and not container.key.startswith(first):
                yield group
                group = []
            if not group:
                first = container.key + b"/"
            group.append(self._page(container, index))
        if group:
            yield group

    def _page(self, container: _Container, index: ContainerIndex) -> Page:
        before = self._prefix + container.key + b"/"
        index.locations["container"] = container.number
        versions = sample_versions(self._layout.name, container.info, index)
        self._left_out.update(index.left_out)
        return Page([before + name for name in index.names], index.sizes, versions, index.locations)

    def _indexes(self) -> Iterator[tuple[_Container, ContainerIndex]]:
        """Indexes in the order of their samples' keys; readers are a few containers ahead."""
        threads = LOCAL_THREADS if self._base.local else REMOTE_THREADS
        pool = ThreadPoolExecutor(threads, "swingby-index")
        waiting: deque[tuple[_Container, Future[ContainerIndex]]] = deque()
        try:
            for container in self._in_order():
                waiting.append((container, pool.submit(self._index, container)))
                if len(waiting) > threads * WAITING_MAX:
                    yield from self._taken(*waiting.popleft())
            while waiting:
                yield from self._taken(*waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _taken(
        self, container: _Container, future: Future[ContainerIndex]
    ) -> Iterator[tuple[_Container, ContainerIndex]]:
        try:
            yield container, future.result()
        except BadContainerError as error:
            self.bad.append((container.key, error.message))

    def _in_order(self) -> Iterator[_Container]:
        keys, sizes, versions = self.containers[:3]
        for number in sorted(range(len(keys)), key=lambda number: keys[number] + b"/"):
            yield _Container(number, keys[number], ObjectInfo(int(sizes[number]), versions[number].tobytes()))

    def _index(self, container: _Container) -> ContainerIndex:
        key = self._prefix + container.key
        name = index_name(key, container.info, self._layout.name)
        self._names.append(name)
        found = self._kept.load(name) if self._kept else None
        if found is None:
            found = self._read(key, container.info)
            if self._kept:
                self._kept.save(name, found)
        return found

    def _read(self, key: bytes, info: ObjectInfo) -> ContainerIndex:
        window = Window(self._reader(key, info), info.size, key_text(key), LOCAL if self._base.local else REMOTE)
        if self._layout.is_refused(key_text(key)):
            raise window.bad(0, REFUSED)
        held: list[threading.Semaphore] = []

        def on_many() -> None:
            self._giants.acquire()
            held.append(self._giants)

        try:
            return read_index(self._layout.name, window, on_many)
        finally:
            for one in held:
                one.release()

    def _reader(self, key: bytes, info: ObjectInfo) -> Callable[[int, int], Buffer]:
        def read(start: int, size: int) -> Buffer:
            payload = self._base.read(key, start, size, info.version)
            if len(memoryview(payload.data)) != size:
                raise TruncatedReadError(f"{key_text(key)}: the base sent fewer bytes than it lists", key=key_text(key))
            return payload.data

        return read


def _merged(pages: list[Page]) -> Iterator[Page]:
    """One page in key order."""
    if len(pages) == 1:
        yield pages[0]
        return
    located = [page.locations for page in pages if page.locations is not None]
    sizes = np.concatenate([page.sizes for page in pages])
    versions = np.concatenate([page.versions for page in pages])
    starts = np.cumsum([0, *(len(page.keys) for page in pages)]).tolist()
    runs = [
        zip(page.keys, range(start, start + len(page.keys)), strict=True)
        for page, start in zip(pages, starts, strict=False)
    ]
    keys, order = zip(*heapq.merge(*runs), strict=True)
    places = np.array(order)
    yield Page(list(keys), sizes[places], versions[places], np.concatenate(located)[places])
