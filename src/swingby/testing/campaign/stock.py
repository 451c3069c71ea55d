"""What the feeding part reads: datasets of every kind whose samples, and their bytes, are known for each snapshot."""

from __future__ import annotations

import io
import os
import tarfile
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import swingby
from swingby.testing.campaign.truth import Shape, Truth, digest_of

if TYPE_CHECKING:
    import random

    from swingby.config import Settings
    from swingby.data.dataset import Dataset, Sample

MEMBERS = ("plain", "tar", "webdataset")
DAY_NS = 86_400 * 10**9


class Member(NamedTuple):
    """One dataset, as a process that reads it must know it.

    Attributes:
        name: in a mixture.
        folder: of the dataset.
        layout: of `swingby.open`.
    """

    name: str
    folder: str
    layout: str

    def open(self, settings: Settings, manifest: str | None = None, refresh: str = "auto") -> Dataset:
        """The dataset."""
        return swingby.open(self.folder, manifest, refresh, layout=self.layout, settings=settings)


class Stock:
    """See the module's text.

    Args:
        member: which dataset.
        seed: of the bytes.
        shape: of the objects, or of the samples in its containers.
    """

    def __init__(self, member: Member, seed: int, shape: Shape) -> None:
        self.member = member
        self._is_contained = member.layout != "objects"
        self._truth = Truth(member.folder + ".inside" if self._is_contained else member.folder, seed, shape)
        self._truth.write_all()
        self._written = 0
        self._packed: dict[str, dict[str, int]] = {}
        self._pack()

    def samples(self) -> dict[str, bytes]:
        """Keys of all samples of a snapshot that is taken now, and what their bytes are told by."""
        truth = self._truth
        if not self._is_contained:
            return {key: truth.digest(key, size) for key, size in truth.sizes.items()}
        return {
            f"{shard}/{key.removesuffix('.bin') if self.member.layout == 'webdataset' else key}": truth.digest(
                key, size
            )
            for shard, inside in self._packed.items()
            for key, size in inside.items()
        }

    @property
    def total_bytes(self) -> int:
        """Of all samples."""
        return self._truth.total_bytes

    def change(self, rng: random.Random, count: int) -> None:
        """Replace, add and remove some objects, or rewrite the containers they lie in."""
        self._truth.change(rng, count)
        self._pack()

    def _pack(self) -> None:
        """Write those containers whose samples have changed."""
        if not self._is_contained:
            return
        shards: dict[str, dict[str, int]] = {}
        for key, size in sorted(self._truth.sizes.items()):
            shards.setdefault(f"{key.partition('/')[0]}.tar", {})[key] = size
        for shard, inside in shards.items():
            if self._packed.get(shard) != inside:
                self._write(os.path.join(self.member.folder, shard), inside)
        for shard in self._packed.keys() - shards.keys():
            os.unlink(os.path.join(self.member.folder, shard))
        self._packed = shards

    def _write(self, path: str, inside: dict[str, int]) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        aside = self.member.folder + ".next"
        with tarfile.open(aside, "w") as file:
            for key, size in inside.items():
                info = tarfile.TarInfo(key)
                info.size = size
                file.addfile(info, io.BytesIO(self._truth.data(key, size)))
        self._written += 1
        when = time.time_ns() - DAY_NS + self._written * 10**9
        os.utime(aside, ns=(when, when))
        os.rename(aside, path)


def told(sample: Sample, layout: str) -> tuple[str, bytes]:
    """Key of a sample, and what its bytes are told by."""
    data: Any = sample.parts["bin"] if layout == "webdataset" else sample.data
    return sample.key, digest_of(data)
