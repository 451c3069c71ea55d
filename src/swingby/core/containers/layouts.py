"""The layouts of containers: which objects are containers, and what in them is a sample."""

from __future__ import annotations

import fnmatch
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from swingby.core.checksum import name_digest
from swingby.core.containers import parquet, tfrecord, webdataset
from swingby.core.containers import tar as tars
from swingby.core.containers import zip as zips
from swingby.core.containers.index import ContainerIndex, Found, index_of
from swingby.core.manifest.keys import KEY_BYTES_MAX
from swingby.core.object import key_text
from swingby.errors import BadContainerError, UrlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from swingby.core.containers.window import Window
    from swingby.core.manifest.root import Root
    from swingby.core.object import ObjectInfo

OBJECTS = "objects"
PARSER = 1  # counted up when a layout finds other samples in the same bytes
MEMBERS_MAX = 4_000_000  # of one container
BAD_SHOWN_MAX = 20  # named in one error
MANY_MEMBERS = 250_000  # from here on, one container at a time

_CODEC_SHIFT = np.uint64(56)
_COMPRESSED_TARS = ("*.tar.gz", "*.tgz", "*.tar.bz2", "*.tar.xz", "*.tar.zst", "*.tar.zstd")


class Layout(NamedTuple):
    """One layout.

    Attributes:
        name: as users give it.
        patterns: of the keys of containers, in lower case; `fnmatch`.
        refused: of keys that look like containers and cannot be read without unpacking.
        samples: finds them; counts what it leaves out.
        hidden: pattern of entries of the manifest that are no samples; none: "".
    """

    name: str
    patterns: tuple[str, ...]
    refused: tuple[str, ...]
    samples: Callable[[Window, Counter[str]], Iterator[Found]]
    hidden: str = ""

    def is_container(self, key: str) -> bool:
        """Whether an object is one by its key."""
        return _matches(key, self.patterns + self.refused)

    def is_refused(self, key: str) -> bool:
        """Whether it is one that cannot be read without unpacking."""
        return _matches(key, self.refused)


def _tar_samples(window: Window, left_out: Counter[str]) -> Iterator[Found]:
    for member in tars.members(window):
        if member.kind == tars.FILE:
            yield Found(member.name, member.size, member.offset, member.size)
        else:
            left_out[member.kind] += 1


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("tar", ("*.tar",), _COMPRESSED_TARS, _tar_samples),
        Layout("webdataset", ("*.tar",), _COMPRESSED_TARS, webdataset.samples),
        Layout("zip", ("*.zip", "*.npz"), (), zips.members),
        Layout(
            "tfrecord",
            ("*.tfrecord", "*.tfrecords", "*.tfrec", "*.tfrecord-*", "*-?????-of-?????"),
            ("*.tfrecord.gz", "*.tfrecords.gz"),
            lambda window, _: tfrecord.records(window),
        ),
        Layout("parquet", ("*.parquet", "*.pq"), (), parquet.row_groups, f"*/{parquet.FOOTER.decode()}"),
    )
}
NAMES = (OBJECTS, *LAYOUTS)


def check_layout(layout: str) -> None:
    """Refuse a layout that there is not.

    Raises:
        UrlError: see there.
    """
    if layout not in NAMES:
        raise UrlError(f"layout={layout!r} is unknown", remedy=f"Give one of {', '.join(NAMES)}")


def hidden_by(layout: str) -> list[str]:
    """Patterns of what filters of a dataset of this layout leave out, whatever else they do."""
    pattern = LAYOUTS[layout].hidden if layout in LAYOUTS else ""
    return [pattern] if pattern else []


def bad_containers(root: Root) -> BadContainerError | None:
    """The error for containers that could not be read; None where all could."""
    bad = root.contained.bad if root.contained else []
    if not bad:
        return None
    shown = "; ".join(reason for _, reason in bad[:BAD_SHOWN_MAX])
    rest = len(bad) - BAD_SHOWN_MAX
    return BadContainerError(
        shown + (f"; and {rest} more" if rest > 0 else ""),
        key=key_text(root.prefix + bad[0][0]),
        remedy="Mend or remove what is named, or leave it out: on_bad='skip', or --skip-bad",
    )


def read_index(layout: Layout, window: Window, on_many: Callable[[], None]) -> ContainerIndex:
    """The samples of a container.

    Args:
        layout: how to read it.
        window: onto it.
        on_many: called when it turns out to hold many.

    Raises:
        BadContainerError: it is damaged, or holds what is refused.
    """
    left_out: Counter[str] = Counter()
    return index_of(_named(window, layout.samples(window, left_out), on_many), left_out)


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


def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(key.lower(), pattern) for pattern in patterns)
