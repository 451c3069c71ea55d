"""Files without a name, in memory where the system can."""

from __future__ import annotations

import os
import tempfile


def unnamed_file(label: str) -> int:
    """A new, empty file; the descriptor is the caller's to close."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(label)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
