"""One segment on one level: `<id>.<generation>.seg`, its bytes, sparse while partial, and `<id>.<generation>.map`.

Guarantees: an entry of the map is stored after the bytes it stands for; present bytes are never rewritten, truncated or punched.
Threads: `write`, `read` and `entries` from any; open, close and retire under the level's lock.
Failure: LevelError for what the file system refuses, CorruptDataError for bytes that do not match their entry.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import struct
import threading
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import numpy as np

from swingby.core.checksum import word_of
from swingby.errors import CorruptDataError, FormatError, LevelError
from swingby.levels import map_file
from swingby.levels.map_file import ENTRIES_OFFSET, ENTRY_BYTES, MapHeader, extent_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from swingby.core.segment import Segment
    from swingby.levels.block_reader import BlockReader

SEGMENT_SUFFIX, MAP_SUFFIX, OLD_MAP_SUFFIX, TEMPORARY_SUFFIX = ".seg", ".map", ".was", ".tmp"
PAGE_BYTES = 4096
AHEAD_CHUNKS_MAX = 1024  # confirmed beside those that are asked for

_ENTRY = struct.Struct("<QQ")


class Run(NamedTuple):
    """Neighbouring chunks to store.

    Attributes:
        chunk: number of the first.
        offset: of it in the segment.
        data: their bytes.
        words: their checksums; in a pack, one.
    """

    chunk: int
    offset: int
    data: Buffer
    words: Sequence[int]


def file_name(identity: bytes, generation: int) -> str:
    """The common part of a pair's names."""
    return f"{identity.hex()}.{generation:016x}"


class SegmentFile:
    """An open pair. Made by `create` or `open`.

    Attributes:
        segment: what it holds.
        generation: which pair of that segment.
        entries: uint64[chunks, 2], the keeper's own copy: word, extent.
        descriptor, map_descriptor: read-write, for the keeper; clients are sent them and map them read-only.
        present_count: how many chunks are present.
        is_found: it was there already, left by an earlier keeper or closed for a while.
        users: how many operations hold it open.
    """

    def __init__(self, path: str, header: MapHeader, descriptors: tuple[int, int], entries: NDArray[np.uint64]) -> None:
        self.path = path
        self.segment = header.segment
        self.generation = header.generation
        self.descriptor, self.map_descriptor = descriptors
        self.entries = entries
        self.present_count = int(np.count_nonzero(entries[:, 0]))
        self.is_found = False
        self.users = 0
        self._header = header
        self._candidates: NDArray[np.uint64] | None = None
        self._lock = threading.Lock()
        self._confirming = threading.Lock()

    @classmethod
    def create(cls, directory: str, segment: Segment, boot_id: bytes) -> SegmentFile:
        """A new pair with nothing present.

        Raises:
            LevelError: the file system refuses it.
        """
        header = MapHeader(segment, secrets.randbits(64), boot_id)
        path = os.path.join(directory, file_name(segment.id, header.generation))
        descriptors: list[int] = []
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptors.append(os.open(path + SEGMENT_SUFFIX, flags, 0o600))
            os.ftruncate(descriptors[0], -(-segment.size_bytes // PAGE_BYTES) * PAGE_BYTES)
            descriptors.append(_write_map(path, header))
        except OSError as error:
            for descriptor in descriptors:
                os.close(descriptor)
            unlink_pair(path)
            _refuse(error, path)
        return cls(path, header, (descriptors[0], descriptors[1]), np.zeros((segment.chunk_count, 2), np.uint64))

    @classmethod
    def open(cls, path: str, boot_id: bytes, *, is_trusted: bool = True) -> SegmentFile:
        """An existing pair, given the common part of its path.

        Entries of another boot, or of a pair that is not trusted, do not count until their chunk has been read and found right:
        they are kept beside the map, and absent in it.

        Args:
            path: without the suffixes.
            boot_id: of this boot.
            is_trusted: whether entries of this boot are believed.

        Raises:
            FormatError: the pair is damaged, half-made, dead or of another version.
            LevelError: it cannot be read.
        """
        descriptors: list[int] = []
        try:
            descriptors.append(os.open(path + MAP_SUFFIX, os.O_RDWR | os.O_CLOEXEC))
            header, entries = _read_map(descriptors[0], path)
            descriptors.insert(0, os.open(path + SEGMENT_SUFFIX, os.O_RDWR | os.O_CLOEXEC))
            status = os.fstat(descriptors[0])
            if status.st_size < header.segment.size_bytes:
                raise FormatError(f"{path}: the segment is shorter than its map says")
            candidates = _old_entries(path, header)
            if header.boot_id != boot_id or not is_trusted:
                candidates = _doubt(path, header, entries, candidates)
                header = header._replace(boot_id=boot_id)
                entries = np.zeros_like(entries)
                _write_all(descriptors[1], map_file.encode_header(header) + entries.tobytes(), 0)
            self = cls(path, header, (descriptors[0], descriptors[1]), entries)
            self.is_found = True
            self._candidates = candidates
        except FileNotFoundError:
            _close(descriptors)
            raise FormatError(f"{path}: half of the pair is missing") from None
        except FormatError:
            _close(descriptors)
            raise
        except OSError as error:
            _close(descriptors)
            _refuse(error, path)
        return self

    @property
    def is_complete(self) -> bool:
        """Whether every chunk is present."""
        return self.present_count >= self.segment.chunk_count

    def taken_bytes(self) -> int:
        """What the bytes take on the level."""
        return os.fstat(self.descriptor).st_blocks * 512

    def word(self, chunk: int) -> int:
        """The checksum of a chunk, 0 when it is absent."""
        return int(self.entries[chunk, 0])

    def extent(self, chunk: int) -> tuple[int, int]:
        """Offset and size in bytes of a present chunk."""
        return extent_of(self.segment, self.entries, chunk)

    def absent(self, chunks: NDArray[np.intp]) -> NDArray[np.intp]:
        """Which of these chunks are absent."""
        missing: NDArray[np.intp] = chunks[self.entries[chunks, 0] == 0]
        return missing

    def present(self) -> NDArray[np.intp]:
        """All present chunks."""
        return np.flatnonzero(self.entries[:, 0])

    def write(self, *runs: Run) -> None:
        """Store chunks, then their entries. Several runs are of a pack, and each begins where the one before is aligned to end.

        Raises:
            LevelError: the file system refuses the bytes; nothing became present.
        """
        try:
            sizes = _write_runs(self.descriptor, runs)
            entries = []
            for run, size in zip(runs, sizes, strict=True):
                extent = map_file.pack_extent(run.offset, size) if self.segment.packed else 0
                entries += [(word, extent) for word in run.words]
            self._enter(runs[0].chunk, entries)
        except OSError as error:
            _refuse(error, self.path)

    def _enter(self, chunk: int, entries: list[tuple[int, int]]) -> None:
        """Make neighbouring chunks present: in the map, then in our copy."""
        packed = b"".join([_ENTRY.pack(*entry) for entry in entries])
        with self._lock:
            _write_all(self.map_descriptor, packed, ENTRIES_OFFSET + chunk * ENTRY_BYTES)
            for number, entry in enumerate(entries, chunk):
                self.present_count += not self.entries[number, 0]
                self.entries[number] = entry

    def read(self, chunk: int, reader: BlockReader) -> memoryview:
        """The bytes of a present chunk, checked; valid until the thread's next read.

        Raises:
            CorruptDataError: they do not match the entry.
            LevelError: the disk cannot read them.
        """
        try:
            data = reader.read(self.path + SEGMENT_SUFFIX, *self.extent(chunk))
        except OSError as error:
            _refuse(error, self.path)
        if word_of(data) != self.word(chunk):
            raise CorruptDataError(f"{self.path}: chunk {chunk} does not match its checksum")
        return data

    def is_map_right(self) -> bool:
        """Whether the map, which clients see, is what we have entered there."""
        with self._lock:
            right = map_file.encode_header(self._header) + self.entries.tobytes()
            return os.pread(self.map_descriptor, len(right), 0) == right

    @property
    def has_candidates(self) -> bool:
        """Whether there may be chunks that are not confirmed."""
        return self._candidates is not None

    def may_have(self, chunk: int) -> bool:
        """Whether the chunk is present, or was and is not confirmed."""
        candidates = self._candidates
        return bool(self.entries[chunk, 0]) or (candidates is not None and bool(candidates[chunk, 0]))

    def candidates(self) -> list[int]:
        """Chunks that are not confirmed yet."""
        return [] if self._candidates is None else np.flatnonzero(self._candidates[:, 0]).tolist()

    def confirm(self, chunks: Iterable[int], reader: BlockReader, ahead_bytes: int = 0) -> int:
        """Enter chunks again that were present and are still right; how many are not.

        Args:
            chunks: numbers, ascending.
            reader: of the level.
            ahead_bytes: go on behind the last one for so many bytes. Then one thread confirms at a time.
        """
        candidates = self._candidates
        if candidates is None:
            return 0
        bad = 0
        with self._confirming if ahead_bytes else contextlib.nullcontext():
            for chunk in self._and_ahead(chunks, candidates, ahead_bytes):
                word, candidates[chunk, 0] = int(candidates[chunk, 0]), 0
                if word and not self.word(chunk):
                    bad += not self._is_right(chunk, word, candidates, reader)
            if not candidates[:, 0].any():
                self._candidates = None
                with contextlib.suppress(OSError):
                    os.unlink(self.path + OLD_MAP_SUFFIX)
        return bad

    def _and_ahead(self, chunks: Iterable[int], candidates: NDArray[np.uint64], ahead_bytes: int) -> Iterator[int]:
        last = -1
        for chunk in chunks:
            yield chunk
            last = chunk
        behind = candidates[last + 1 : last + 1 + AHEAD_CHUNKS_MAX if ahead_bytes else 0, 0]
        for chunk in (np.flatnonzero(behind) + last + 1).tolist():
            if ahead_bytes <= 0:
                return
            ahead_bytes -= extent_of(self.segment, candidates, chunk)[1]
            yield chunk

    def _is_right(self, chunk: int, word: int, candidates: NDArray[np.uint64], reader: BlockReader) -> bool:
        """Read a candidate, and enter it if it matches."""
        offset, size = extent_of(self.segment, candidates, chunk)
        if offset + size > self.segment.size_bytes:
            return False
        try:
            is_right = word_of(reader.read(self.path + SEGMENT_SUFFIX, offset, size)) == word
            if is_right:
                self._enter(chunk, [(word, int(candidates[chunk, 1]))])
        except OSError:
            return False
        return is_right

    def retire(self) -> None:
        """Mark the map dead and unlink the pair; whoever has it mapped keeps right bytes."""
        with contextlib.suppress(OSError):
            _write_all(self.map_descriptor, map_file.DEAD, map_file.MARK_OFFSET)
        unlink_pair(self.path)

    def close(self) -> None:
        """Close the descriptors."""
        _close([self.descriptor, self.map_descriptor])
        self.descriptor = self.map_descriptor = -1


def _write_map(path: str, header: MapHeader) -> int:
    """A new, empty map under its name; its descriptor."""
    descriptor = os.open(
        path + MAP_SUFFIX + TEMPORARY_SUFFIX, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
    )
    try:
        os.posix_fallocate(descriptor, 0, map_file.map_bytes(header.segment.chunk_count))
        _write_all(descriptor, map_file.encode_header(header), 0)
        os.rename(path + MAP_SUFFIX + TEMPORARY_SUFFIX, path + MAP_SUFFIX)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _read_map(descriptor: int, path: str) -> tuple[MapHeader, NDArray[np.uint64]]:
    size = os.fstat(descriptor).st_size
    data = os.pread(descriptor, size, 0)
    header = map_file.decode_header(data)
    if file_name(header.segment.id, header.generation) != os.path.basename(path):
        raise FormatError(f"{path}: the map belongs to another segment")
    if map_file.is_dead(data):
        raise FormatError(f"{path}: evicted")
    if size != map_file.map_bytes(header.segment.chunk_count):
        raise FormatError(f"{path}: the map has the wrong length")
    entries = np.frombuffer(data, "<u8", offset=ENTRIES_OFFSET).reshape(-1, 2).copy()
    return header, entries


def _old_entries(path: str, header: MapHeader) -> NDArray[np.uint64] | None:
    """What is kept beside the map; None where there is nothing, or nothing that can be used."""
    try:
        old = os.open(path + OLD_MAP_SUFFIX, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        before, entries = _read_map(old, path)
    except FormatError:
        return None
    finally:
        os.close(old)
    return entries if before.segment == header.segment else None


def _doubt(
    path: str, header: MapHeader, entries: NDArray[np.uint64], old: NDArray[np.uint64] | None
) -> NDArray[np.uint64]:
    """Keep the entries of a map, and those that were kept before, beside it; where there is no room for them, in memory alone."""
    kept = entries if old is None else np.where(entries[:, :1] == 0, old, entries)
    temporary = path + MAP_SUFFIX + TEMPORARY_SUFFIX
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(descriptor, map_file.encode_header(header) + kept.tobytes(), 0)
        finally:
            os.close(descriptor)
        os.rename(temporary, path + OLD_MAP_SUFFIX)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    return kept


def _write_all(descriptor: int, data: Buffer, offset: int) -> int:
    done = os.pwrite(descriptor, data, offset)
    size = len(memoryview(data))
    while done < size:
        done += os.pwrite(descriptor, memoryview(data).cast("B")[done:], offset + done)
    return size


def _write_runs(descriptor: int, runs: Sequence[Run]) -> list[int]:
    """Write runs and what is between them by one call; their sizes."""
    if len(runs) == 1:
        return [_write_all(descriptor, runs[0].data, runs[0].offset)]
    parts: list[Buffer] = []
    sizes, at = [len(memoryview(run.data)) for run in runs], runs[0].offset
    for run, size in zip(runs, sizes, strict=True):
        parts += [bytes(run.offset - at), run.data]
        at = run.offset + size
    if os.pwritev(descriptor, parts, runs[0].offset) < at - runs[0].offset:  # interrupted, or the disk is full
        _write_all(descriptor, b"".join(parts), runs[0].offset)
    return sizes


def _refuse(error: OSError, path: str) -> NoReturn:
    raise LevelError(f"{path}: {errno.errorcode.get(error.errno or 0, '')} {error.strerror or error}") from None


def unlink_pair(path: str) -> None:
    """Remove all files of a pair."""
    for suffix in (MAP_SUFFIX, OLD_MAP_SUFFIX, SEGMENT_SUFFIX, MAP_SUFFIX + TEMPORARY_SUFFIX):
        with contextlib.suppress(OSError):
            os.unlink(path + suffix)


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)
