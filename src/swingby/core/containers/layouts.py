"""The layouts of containers: which objects are containers, by their names. What in them is a sample: `reading.py`."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, NamedTuple

from swingby.core.object import key_text
from swingby.errors import BadContainerError, UrlError

if TYPE_CHECKING:
    from swingby.core.manifest.root import Root

OBJECTS = "objects"
BAD_SHOWN_MAX = 20  # named in one error
FOOTER = b"footer"  # of Parquet: the name of the entry that is a file's footer, its length and the magic

_COMPRESSED_TARS = ("*.tar.gz", "*.tgz", "*.tar.bz2", "*.tar.xz", "*.tar.zst", "*.tar.zstd")


class Layout(NamedTuple):
    """One layout.

    Attributes:
        name: as users give it.
        patterns: of the keys of containers, in lower case; `fnmatch`.
        refused: of keys that look like containers and cannot be read without unpacking.
        hidden: pattern of entries of the manifest that are no samples; none: "".
    """

    name: str
    patterns: tuple[str, ...]
    refused: tuple[str, ...] = ()
    hidden: str = ""

    def is_container(self, key: str) -> bool:
        """Whether an object is one by its key."""
        return _matches(key, self.patterns + self.refused)

    def is_refused(self, key: str) -> bool:
        """Whether it is one that cannot be read without unpacking."""
        return _matches(key, self.refused)


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("tar", ("*.tar",), _COMPRESSED_TARS),
        Layout("webdataset", ("*.tar",), _COMPRESSED_TARS),
        Layout("zip", ("*.zip", "*.npz")),
        Layout(
            "tfrecord",
            ("*.tfrecord", "*.tfrecords", "*.tfrec", "*.tfrecord-*", "*-?????-of-?????"),
            ("*.tfrecord.gz", "*.tfrecords.gz"),
        ),
        Layout("parquet", ("*.parquet", "*.pq"), hidden=f"*/{FOOTER.decode()}"),
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


def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(key.lower(), pattern) for pattern in patterns)
