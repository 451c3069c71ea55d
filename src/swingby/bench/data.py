"""Data for benchmarks, made once and checked by hash."""

from __future__ import annotations

import io
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from swingby import config
from swingby.core.checksum import word_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from swingby.bench.context import Context
    from swingby.data.dataset import Batch
    from swingby.testing.ceph import CephS3

FILES_A_FOLDER = 4096
WRITERS = 16
TARS = 8


def record(number: int, size: int) -> bytes:
    """The bytes of object `number`: pseudo-random, the same every time."""
    return np.random.default_rng([number, size]).bytes(size)


def make_files(context: Context, size: int, count: int) -> str:
    """A directory of `count` files of `size` bytes."""
    root = os.path.join(context.folder, f"files-{size}-{count}")
    mark = os.path.join(root, ".complete")
    if os.path.exists(mark):
        return os.path.join(root, "data")
    for number in range(count):
        folder = os.path.join(root, "data", f"{number // FILES_A_FOLDER:04d}")
        if number % FILES_A_FOLDER == 0:
            os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"{number:08d}"), "wb") as file:
            file.write(record(number, size))
    with open(mark, "w"):
        return os.path.join(root, "data")


def small_size(number: int) -> int:
    """Bytes of small file `number`: 4 to 16 KiB."""
    return 4096 + number * 7919 % 12289


def is_small_record(path: str, content: Buffer) -> bool:
    """Whether these are the bytes of the small file that the path names."""
    number = int(os.path.basename(path).partition(".")[0])
    return bytes(content) == record(number, small_size(number))


def make_small_files(context: Context, count: int) -> tuple[str, str]:
    """A directory of `count` files of 4 to 16 KiB, and one with the same in tar shards as WebDataset's writer makes them."""
    root = os.path.join(context.folder, f"small-{count}")
    files, shards = os.path.join(root, "data"), os.path.join(root, "shards")
    mark = os.path.join(root, ".complete")
    if os.path.exists(mark):
        return files, shards
    os.makedirs(shards, exist_ok=True)
    for first in range(0, count, FILES_A_FOLDER):
        folder = os.path.join(files, f"{first // FILES_A_FOLDER:04d}")
        os.makedirs(folder, exist_ok=True)
        with tarfile.open(os.path.join(shards, f"{first // FILES_A_FOLDER:04d}.tar"), "w") as shard:
            for number in range(first, min(count, first + FILES_A_FOLDER)):
                path = os.path.join(folder, f"{number:08d}.bin")
                with open(path, "wb") as file:
                    file.write(record(number, small_size(number)))
                shard.add(path, f"{number:08d}.bin")
    with open(mark, "w"):
        return files, shards


def make_tars(context: Context, size: int, count: int) -> str:
    """A directory of eight tars with `count` members of `size` bytes, named by number."""
    root = os.path.join(context.folder, f"tars-{size}-{count}")
    mark = os.path.join(root, ".complete")
    folder = os.path.join(root, "data")
    if os.path.exists(mark):
        return folder
    os.makedirs(folder, exist_ok=True)
    for shard, numbers in enumerate(np.array_split(np.arange(count), TARS)):
        with tarfile.open(os.path.join(folder, f"{shard:03d}.tar"), "w") as made:
            for number in numbers.tolist():
                info = tarfile.TarInfo(f"{number:08d}.bin")
                info.size = size
                made.addfile(info, io.BytesIO(record(number, size)))
    with open(mark, "w"):
        return folder


def upload(ceph: CephS3, bucket: str, folder: str) -> str:
    """The files of a directory as objects of a bucket; the URL of their prefix."""
    from swingby.base.s3 import S3Base

    prefix = os.path.basename(os.path.dirname(folder))
    settings = config.load(ceph.settings())
    base = S3Base(bucket, settings.s3, settings.fetch)
    base.make_bucket()
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            base.write(f"{prefix}/{name}".encode(), file.read())
    base.close()
    return f"s3://{bucket}/{prefix}"


def make_objects(ceph: CephS3, bucket: str, prefix: str, size: int, count: int) -> str:
    """A prefix of `count` objects of `size` bytes in a bucket; its URL."""
    from swingby.base.s3 import S3Base

    settings = config.load(ceph.settings())
    base = S3Base(bucket, settings.s3, settings.fetch)
    base.make_bucket()
    with ThreadPoolExecutor(WRITERS) as pool:
        list(
            pool.map(
                lambda number: base.write(b"%b/%08d" % (prefix.encode(), number), record(number, size)), range(count)
            )
        )
    base.close()
    return f"s3://{bucket}/{prefix}"


def words(size: int, count: int) -> list[int]:
    """Checksums of the records."""
    return [word_of(record(number, size)) for number in range(count)]


def check(batch: Batch, expected: Sequence[int]) -> None:
    """Every byte of a batch, against the checksums by number.

    Raises:
        AssertionError: a byte is wrong; a benchmark of wrong bytes is none.
    """
    for key, view in zip(batch.keys, batch.views, strict=True):
        number = int(key.rpartition("/")[2])
        if word_of(view) != expected[number]:
            raise AssertionError(f"{key} is not what was written")
