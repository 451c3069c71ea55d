"""What in a container is a sample: the index of one, and the versions of its samples."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from swingby.core.checksum import name_digest
from swingby.core.containers import parquet, tfrecord, webdataset
from swingby.core.containers import tar as tars
from swingby.core.containers import zip as zips
from swingby.core.containers.index import ContainerIndex, Found, index_of
from swingby.core.manifest.keys import KEY_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from swingby.core.containers.window import Window
    from swingby.core.object import ObjectInfo

PARSER = 1  # counted up when a layout finds other samples in the same bytes
MEMBERS_MAX = 4_000_000  # of one container
MANY_MEMBERS = 250_000  # from here on, one container at a time

_CODEC_SHIFT = np.uint64(56)


def _tar_samples(window: Window, left_out: Counter[str]) -> Iterator[Found]:
    for member in tars.members(window):
        if member.kind == tars.FILE:
            yield Found(member.name, member.size, member.offset, member.size)
        else:
            left_out[member.kind] += 1


# What finds the samples of each layout, and counts what it leaves out.
SAMPLES: dict[str, Callable[[Window, Counter[str]], Iterator[Found]]] = {
    "tar": _tar_samples,
    "webdataset": webdataset.samples,
    "zip": zips.members,
    "tfrecord": lambda window, _: tfrecord.records(window),
    "parquet": parquet.row_groups,
}


def read_index(layout: str, window: Window, on_many: Callable[[], None]) -> ContainerIndex:
    """The samples of a container.

    Args:
        layout: name of how to read it.
        window: onto it.
        on_many: called when it turns out to hold many.

    Raises:
        BadContainerError: it is damaged, or holds what is refused.
    """
    left_out: Counter[str] = Counter()
    return index_of(_named(window, SAMPLES[layout](window, left_out), on_many), left_out)


def _named(window: Window, samples: Iterable[Found], on_many: Callable[[], None]) -> Iterator[Found]:
    """The samples with clean names: without "./" and "/" in front."""
    for number, one in enumerate(samples):
        if number == MANY_MEMBERS:
            on_many()
        if number == MEMBERS_MAX:
            raise window.bad(one.offset, f"it has more than {MEMBERS_MAX} members")
        name = one.name
        while name.startswith((b"./", b"/")):
            name = name[2:] if name.startswith(b"./") else name[1:]
        shown = repr(one.name[:100].decode("utf-8", "replace"))
        if b".." in name and b".." in name.split(b"/"):
            raise window.bad(one.offset, f"the name {shown} leads out of it")
        if not name or len(window.name) + len(name) > KEY_BYTES_MAX // 2:
            raise window.bad(one.offset, f"the name {shown} is empty or too long")
        yield one if name is one.name else one._replace(name=name)


def sample_versions(layout: str, container: ObjectInfo, index: ContainerIndex) -> NDArray[np.uint8]:
    """Versions of a container's samples, uint8[n, 16]: what names the container's version, then offset and codec.

    The same version of a container has the same sample at the same offset, so that two samples of one key and version are one.
    """
    tokens = np.empty((len(index.names), 2), "<u8")
    size = container.size.to_bytes(8, "little")
    tokens[:, 0] = int.from_bytes(name_digest(container.version, size, layout.encode(), bytes([PARSER]))[:8], "little")
    tokens[:, 1] = index.locations["offset"] | index.locations["codec"].astype(np.uint64) << _CODEC_SHIFT
    return tokens.view(np.uint8)
