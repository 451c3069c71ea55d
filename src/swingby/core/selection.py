"""Filters over a manifest: which objects a dataset is made of."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

import numpy as np

from swingby.core.checksum import name_digest
from swingby.core.object import key_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray


def select(keys: Iterable[bytes], include: Sequence[str], exclude: Sequence[str]) -> NDArray[np.int64] | None:
    """Indices of the keys that some pattern of `include` matches (all, where it is empty) and none of `exclude`.

    Patterns are those of `fnmatch`, over the whole relative key: `*` crosses slashes. None means all.
    """
    if not include and not exclude:
        return None
    wanted, unwanted = _compile(include), _compile(exclude)
    return np.array(
        [
            number
            for number, key in enumerate(keys)
            if (wanted is None or wanted.match(key)) and not (unwanted and unwanted.match(key))
        ],
        np.int64,
    )


def dataset_digest(manifest_digest: str, include: Sequence[str], exclude: Sequence[str]) -> str:
    """What names a selection of a manifest; the manifest's own digest where all is selected."""
    if not include and not exclude:
        return manifest_digest
    patterns = ["+" + one for one in include] + ["-" + one for one in exclude]
    return name_digest(manifest_digest.encode(), *map(key_bytes, patterns)).hex()


def _compile(patterns: Sequence[str]) -> re.Pattern[bytes] | None:
    if not patterns:
        return None
    return re.compile("|".join(f"(?:{fnmatch.translate(one)})" for one in patterns).encode("utf-8", "surrogateescape"))
