"""The fsspec door: `fsspec.open("swingby::s3://bucket/key")`. Needs the extra `fsspec`."""

from __future__ import annotations

from swingby.doors.fsspec.filesystem import SwingbyFileSystem

__all__ = ["SwingbyFileSystem"]
