"""A directory of files whose right bytes everybody knows.

The bytes of an object are a pure function of (seed, key, size), and every revision of it has a size of its own. So the sizes of a
snapshot tell which revision it must show, in any process, however the directory has changed since.
"""

from __future__ import annotations

import functools
import os
import random
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xxhash

from swingby.core.manifest.packs import Entries, cut_after
from swingby.testing.campaign.job import promise

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

MIB = 1 << 20
DAY_NS = 86_400 * 10**9
NAMES_MAX = 100_000  # tried for one that ends a pack


class Shape(NamedTuple):
    """How large a directory is.

    Attributes:
        packs: of small objects, about; names are chosen so that a pack ends where it should.
        objects: in each pack.
        object_bytes_max: of a small object.
        large: objects with a segment of their own.
        large_bytes_max: of such an object.
        is_even: small objects have one size, the largest, until they change.
    """

    packs: int = 12
    objects: int = 30
    object_bytes_max: int = 60_000
    large: int = 5
    large_bytes_max: int = 6 * MIB
    is_even: bool = False


class Truth:
    """See the module's text.

    Args:
        folder: made and filled by `write_all`.
        seed: of the bytes.
        shape: of the directory.
    """

    def __init__(self, folder: str, seed: int, shape: Shape) -> None:
        self.folder = folder
        self.sizes: dict[str, int] = {}  # of the current revisions
        self._seed = seed
        self._shape = shape
        self._used: dict[str, set[int]] = {}  # sizes of all revisions
        self._digests: dict[tuple[str, int], bytes] = {}
        self._clock_ns = time.time_ns() - DAY_NS

    def write_all(self) -> None:
        """Fill the directory."""
        rng = random.Random(f"{self._seed}:sizes")
        for pack in range(self._shape.packs):
            for number in range(self._shape.objects):
                size = self._small(rng)
                key = f"{pack:02d}/{number:04d}.bin"
                if number == self._shape.objects - 1:
                    size = max(size, 20_000)
                    key = self._last_of_pack(key, size)
                self._put(key, size)
        for number in range(self._shape.large):
            self._put(f"large/{number}.bin", rng.randint(4 * MIB + 1, self._shape.large_bytes_max))

    def change(self, rng: random.Random, count: int) -> None:
        """Replace, add and remove some objects, as a user would: by rename."""
        for number in range(count):
            key = rng.choice(list(self.sizes))
            kind = rng.random()
            if kind < 0.6:
                large = key.startswith("large/")
                self._put(key, rng.randint(4 * MIB + 1, self._shape.large_bytes_max) if large else self._small(rng))
            elif kind < 0.8 or len(self.sizes) < 20:
                self._put(f"new/{rng.randrange(10**6):06d}-{number}.bin", self._small(rng))
            else:
                os.unlink(os.path.join(self.folder, key))
                del self.sizes[key]

    @property
    def total_bytes(self) -> int:
        """Of all current objects."""
        return sum(self.sizes.values())

    def data(self, key: str, size: int) -> bytes:
        """The bytes of a revision."""
        return random.Random(f"{self._seed}:{key}:{size}").randbytes(size)

    def check(self, key: str, size: int, data: Buffer) -> None:
        """Compare what was read with what it must be.

        Raises:
            BrokenPromiseError: a wrong byte.
        """
        if len(memoryview(data)) != size or digest_of(data) != self.digest(key, size):
            right, wrong = np.frombuffer(self.data(key, size), np.uint8), np.frombuffer(data, np.uint8)
            what = f"{len(wrong)} bytes came"
            if len(right) == len(wrong):
                places = np.flatnonzero(right != wrong)
                what = f"{len(places)} bytes differ, the first at {places[0]}"
            promise(False, f"WRONG BYTES of {key}, {size} bytes: {what}")

    def digest(self, key: str, size: int) -> bytes:
        """Of the bytes of a revision."""
        known = self._digests.get((key, size))
        if known is None:
            known = self._digests[key, size] = digest_of(self.data(key, size))
        return known

    def check_part(self, key: str, start: int, stop: int, data: Buffer) -> None:
        """Compare a part of the current revision.

        Raises:
            BrokenPromiseError: a wrong byte.
        """
        right = self.data(key, self.sizes[key])[start:stop]
        promise(right == bytes(data), f"WRONG BYTES of {key} from {start} to {stop}")

    def check_keys(self, keys: Iterable[str], sizes: Iterable[int]) -> None:
        """Compare a fresh listing with the directory.

        Raises:
            BrokenPromiseError: they differ.
        """
        found = dict(zip(keys, sizes, strict=True))
        odd = {key for key in found.keys() | self.sizes.keys() if found.get(key) != self.sizes.get(key)}
        promise(not odd, f"a fresh listing is wrong about {sorted(odd)[:5]}")

    def _small(self, rng: random.Random) -> int:
        kind, most = rng.random(), self._shape.object_bytes_max
        if self._shape.is_even:
            return most
        if kind < 0.02:
            return 0
        return rng.randint(1, most) if kind < 0.6 else int(most ** rng.uniform(0.3, 1.0))

    def _put(self, key: str, size: int) -> None:
        used = self._used.setdefault(key, set())
        while size in used:
            size += 1
        used.add(size)
        path = os.path.join(self.folder, key)
        aside = self.folder + ".next"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        data = self.data(key, size)
        with open(aside, "wb") as file:
            file.write(data)
        self._clock_ns += 10**9
        os.utime(aside, ns=(self._clock_ns, self._clock_ns))
        os.rename(aside, path)
        self.sizes[key] = size
        self._digests[key, size] = digest_of(data)

    def _last_of_pack(self, key: str, size: int) -> str:
        """A name like this one after which a pack is cut."""
        prefix = os.fsencode(self.folder).lstrip(b"/") + b"/"
        stem = key.removesuffix(".bin")
        return next(name for n in range(NAMES_MAX) if _cuts(prefix, name := f"{stem}-{n}.bin", size))


def digest_of(data: Buffer) -> bytes:
    """What bytes are compared by."""
    return xxhash.xxh3_128_digest(data)


@functools.cache
def _no_version() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.zeros((1, 16), np.uint8)


def _cuts(prefix: bytes, name: str, size: int) -> bool:
    return bool(cut_after(prefix, Entries([name.encode()], np.array([size], np.uint64), _no_version()))[0])
