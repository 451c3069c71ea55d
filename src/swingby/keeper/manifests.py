"""Saved manifests: roots and shards named by digest, and for each place the history of its listings.

    manifests/roots/<digest>.root    manifests/shards/<digest>.shard    manifests/places/<place>

A place is a (scope, base, prefix), and where samples in containers are meant their layout. Files are written aside, flushed and
renamed; what does not match its digest is set aside and listed anew. Where the home cannot be written, manifests live in memory for
as long as the keeper does.

Threads: safe.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from swingby.core.checksum import fast_digest, name_digest
from swingby.core.containers.layouts import OBJECTS
from swingby.core.manifest.root import Root, ShardInfo, decode_root, encode_root
from swingby.core.manifest.view import Manifest
from swingby.errors import FormatError, ManifestNotFoundError
from swingby.keeper.indexes import remove_stale
from swingby.levels.unnamed_file import unnamed_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECK_BYTES = 1 << 20
ASIDE_FILES_MAX = 16
PLACE_MAGIC = b"SWBYPLCE"
PLACE_FORMAT = 1
FOLDERS = ("roots", "shards", "places")

_PLACE_HEADER = struct.Struct("<8sIIQ")  # magic, format, reserved, xxh3 of the body


class Listing(msgspec.Struct, frozen=True, array_like=True):
    """One listing of a place."""

    digest: str
    listed_at: float  # seconds since 1970
    list_seconds: float


class PlaceRecord(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a place; the newest listing last."""

    base_id: str
    scope: str
    prefix: bytes
    listings: list[Listing]
    layout: str = OBJECTS


def place_name(base_id: str, scope: str, prefix: bytes, layout: str = OBJECTS) -> str:
    """The file name of a place."""
    more = [] if layout == OBJECTS else [layout.encode()]
    return name_digest(scope.encode(), base_id.encode(), prefix, *more).hex()


class ManifestStore:
    """See the module's text.

    Args:
        directory: for the files.
        kept_max: listings kept of one place.
    """

    def __init__(self, directory: str, kept_max: int) -> None:
        self._directory = directory
        self.indexes = os.path.join(directory, "indexes")
        self._kept_max = kept_max
        self._lock = threading.RLock()
        self._in_memory: dict[str, int] = {}  # file name -> descriptor, where the directory cannot be written
        self._checked: set[bytes] = set()  # digests of shards found right in this process
        self._unsaved: Counter[str] = Counter()  # names of shards whose root is not yet saved
        self._places: dict[str, PlaceRecord] | None = None
        for name in FOLDERS:
            with contextlib.suppress(OSError):
                os.makedirs(os.path.join(directory, name), mode=0o700, exist_ok=True)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Callable[[ShardInfo, bytes], None]]:
        """A sink for the shards of one listing. Until the block ends, which includes `save`, they are nobody's left-overs."""
        names: list[str] = []

        def write_shard(info: ShardInfo, data: bytes) -> None:
            name = f"{info.digest.hex()}.shard"
            with self._lock:
                self._unsaved[name] += 1
            names.append(name)
            if info.digest not in self._checked or not self._exists(f"shards/{name}"):
                self._write(f"shards/{name}", data)
            self._checked.add(info.digest)

        try:
            yield write_shard
        finally:
            with self._lock:
                self._unsaved -= Counter(names)

    def save(self, root: Root, list_seconds: float) -> Listing:
        """Save a root whose shards are saved, as the newest of its place; drop listings beyond the bound."""
        digest, data = encode_root(root)
        try:
            self.load(digest)
        except ManifestNotFoundError:  # or what was there could not be read, and is set aside now
            self._write(f"roots/{digest}.root", data)
        listing = Listing(digest, time.time(), list_seconds)
        with self._lock:
            record = self.place(root.base_id, root.scope, root.prefix, root.layout)
            earlier = [one for one in (record.listings if record else []) if one.digest != digest]
            listings = [*earlier, listing][-self._kept_max :]
            name = place_name(root.base_id, root.scope, root.prefix, root.layout)
            updated = PlaceRecord(root.base_id, root.scope, root.prefix, listings, root.layout)
            self._write(f"places/{name}", _seal(updated))
            self._known_places()[name] = updated
            if len(earlier) + 1 > len(listings):
                self._drop_unreferenced()
        return listing

    def place(self, base_id: str, scope: str, prefix: bytes, layout: str = OBJECTS) -> PlaceRecord | None:
        """What is known of a place."""
        return self._known_places().get(place_name(base_id, scope, prefix, layout))

    def places(self) -> list[PlaceRecord]:
        """All places."""
        return list(self._known_places().values())

    def _known_places(self) -> dict[str, PlaceRecord]:
        """Read once: the keeper is the only writer."""
        with self._lock:
            if self._places is None:
                records = {name: self._record(f"places/{name}") for name in self._names("places")}
                self._places = {name: record for name, record in records.items() if record}
            return self._places

    def load(self, digest: str) -> Manifest:
        """A saved manifest, its shards opened and checked when they are first used.

        Raises:
            ManifestNotFoundError: there is none, or it is damaged or of another version and set aside now.
        """
        try:
            descriptor = self.open_root(digest)
        except OSError:
            raise _absent(digest) from None
        try:
            root = decode_root(_read_all(descriptor))
        except (FormatError, OSError):
            root = None
        finally:
            os.close(descriptor)
        if root is None or encode_root(root)[0] != digest:
            self._set_aside(f"roots/{digest}.root")
            raise _absent(digest)
        return Manifest(root, digest, lambda number: self._map_shard(root.shards[number]))

    def open_root(self, digest: str) -> int:
        """A descriptor of a root file, for the caller to close."""
        if not digest.isalnum():
            raise FileNotFoundError(digest)
        return self._open(f"roots/{digest}.root")

    def open_shard(self, info: ShardInfo) -> int:
        """A descriptor of a shard file, checked once in this process; for the caller to close.

        Raises:
            FormatError: it is gone or damaged; opening the dataset again lists it anew.
        """
        name = f"shards/{info.digest.hex()}.shard"
        try:
            descriptor = self._open(name)
        except OSError:
            raise FormatError("a manifest shard is gone", remedy="Open the dataset again") from None
        if info.digest not in self._checked:
            if not check_shard(descriptor, info):
                os.close(descriptor)
                self._set_aside(name)
                raise FormatError("a manifest shard was damaged and is set aside", remedy="Open the dataset again")
            self._checked.add(info.digest)
        return descriptor

    def clean_left_over(self) -> None:
        """Remove what earlier keepers left: half-written files, and files that no place leads to. Once, soon after start."""
        own = f".{os.getpid()}."
        for folder in FOLDERS:
            with contextlib.suppress(OSError):
                for name in os.listdir(self._path(folder)):
                    if name.endswith(".tmp") and own not in name:
                        self._unlink(f"{folder}/{name}")
        with self._lock:
            self._drop_unreferenced()
            remove_stale(self.indexes, self._known_places())

    def is_whole(self, digest: str) -> bool:
        """Whether a manifest and all its shards are there and right."""
        try:
            for info in self.load(digest).root.shards:
                os.close(self.open_shard(info))
        except (FormatError, ManifestNotFoundError):
            return False
        return True

    def _map_shard(self, info: ShardInfo) -> memoryview:
        descriptor = self.open_shard(info)
        try:
            return memoryview(mmap.mmap(descriptor, info.file_bytes, prot=mmap.PROT_READ))
        finally:
            os.close(descriptor)

    # -- files ---------------------------------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def _exists(self, name: str) -> bool:
        return name in self._in_memory or os.path.exists(self._path(name))

    def _names(self, folder: str) -> list[str]:
        names = {name.partition("/")[2] for name in self._in_memory if name.startswith(folder + "/")}
        with contextlib.suppress(OSError):
            names |= set(os.listdir(self._path(folder)))
        return sorted(name for name in names if not name.endswith(".tmp"))

    def _open(self, name: str) -> int:
        if name in self._in_memory:
            return os.dup(self._in_memory[name])
        return os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)

    def _write(self, name: str, data: bytes) -> None:
        path = self._path(name)
        temporary = f"{path}.{os.getpid()}.{threading.get_ident()}.tmp"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                _write_all(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(temporary, path)
            sync_directory(os.path.dirname(path))
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            self._keep_in_memory(name, data)

    def _keep_in_memory(self, name: str, data: bytes) -> None:
        descriptor = unnamed_file(os.path.basename(name))
        _write_all(descriptor, data)
        with self._lock:
            old = self._in_memory.pop(name, None)
            self._in_memory[name] = descriptor
        if old is not None:
            os.close(old)

    def _record(self, name: str) -> PlaceRecord | None:
        try:
            descriptor = self._open(name)
        except OSError:
            return None
        try:
            return _unseal(_read_all(descriptor))
        except (FormatError, msgspec.MsgspecError, OSError):
            self._set_aside(name)
            return None
        finally:
            os.close(descriptor)

    def _set_aside(self, name: str) -> None:
        """Keep a file that is damaged or of another format, which another release may read; the oldest of many goes."""
        folder = self._path("aside")
        with contextlib.suppress(OSError):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            os.rename(self._path(name), os.path.join(folder, os.path.basename(name)))
            found = sorted(os.scandir(folder), key=lambda entry: entry.stat().st_ctime_ns)
            for entry in found[:-ASIDE_FILES_MAX]:
                os.unlink(entry.path)

    def _drop_unreferenced(self) -> None:
        digests = {listing.digest for record in self.places() for listing in record.listings}
        shards: set[str] = set()
        for digest in digests:
            with contextlib.suppress(FormatError, ManifestNotFoundError):
                shards |= {f"{info.digest.hex()}.shard" for info in self.load(digest).root.shards}
        for name in set(self._names("roots")) - {f"{digest}.root" for digest in digests}:
            with contextlib.suppress(ManifestNotFoundError):  # one that cannot be read is set aside
                self.load(name.removesuffix(".root"))
                self._unlink(f"roots/{name}")
        for name in set(self._names("shards")) - shards - set(self._unsaved):
            self._unlink(f"shards/{name}")

    def _unlink(self, name: str) -> None:
        with self._lock:
            held = self._in_memory.pop(name, None)
        if held is not None:
            os.close(held)
        with contextlib.suppress(OSError):
            os.unlink(self._path(name))


def check_shard(descriptor: int, info: ShardInfo) -> bool:
    """Whether a shard file is the one its root means, read without mapping it."""
    import xxhash

    hasher = xxhash.xxh3_64()
    offset = 0
    buffer = bytearray(CHECK_BYTES)
    try:
        while count := os.preadv(descriptor, [buffer], offset):
            hasher.update(memoryview(buffer)[:count])
            offset += count
    except OSError:
        return False
    return offset == info.file_bytes and hasher.intdigest() == info.check


def sync_directory(path: str) -> None:
    """Make renames in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _absent(digest: str) -> ManifestNotFoundError:
    return ManifestNotFoundError(
        f"no saved manifest {digest[:16]}…",
        remedy="Open the dataset without manifest=; it may have been listed too long ago",
    )


def _seal(record: PlaceRecord) -> bytes:
    body = msgspec.msgpack.encode(record)
    return _PLACE_HEADER.pack(PLACE_MAGIC, PLACE_FORMAT, 0, fast_digest(body)) + body


def _unseal(data: bytes) -> PlaceRecord:
    if len(data) < _PLACE_HEADER.size:
        raise FormatError("a place record is cut short")
    magic, version, _, check = _PLACE_HEADER.unpack_from(data)
    body = data[_PLACE_HEADER.size :]
    if magic != PLACE_MAGIC or version != PLACE_FORMAT or check != fast_digest(body):
        raise FormatError("a place record is damaged, or of another version")
    return msgspec.msgpack.decode(body, type=PlaceRecord)


def _read_all(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
