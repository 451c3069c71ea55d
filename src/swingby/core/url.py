"""URLs and plain paths, taken apart."""

from __future__ import annotations

import os
from typing import NamedTuple
from urllib.parse import unquote

from swingby.errors import UrlError


class Address(NamedTuple):
    """Where something lies.

    Attributes:
        scheme: "file", "s3", …
        container: the bucket; empty for files.
        path: the key or prefix inside it, without a leading slash.
    """

    scheme: str
    container: str
    path: str

    @property
    def prefix(self) -> str:
        """The path as a folder: ends in a slash, or is empty for a whole bucket."""
        return self.path if not self.path or self.path.endswith("/") else self.path + "/"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.container}/{self.path}"


def parse(url: str | os.PathLike[str]) -> Address:
    """The address of a URL or of a path on this machine.

    Raises:
        UrlError: empty, without a bucket, or with a host where none belongs.
    """
    text = os.fspath(url)
    if not isinstance(text, str) or not text:
        raise UrlError(f"{text!r} is no URL", remedy="Give a path, or s3://bucket/prefix")
    if "\0" in text:
        raise UrlError(f"{text!r} holds a NUL character, which no base can store")
    scheme, separator, rest = text.partition("://")
    if not separator:
        return _file(text)
    if scheme == "file":
        host, slash, path = rest.partition("/")
        if host not in {"", "localhost"} or not slash:
            raise UrlError(f"{text!r} names the host {host!r}", remedy="Write file:///path for a local file")
        return _file("/" + unquote(path, errors="surrogateescape"))
    container, _, path = rest.partition("/")
    if not container:
        raise UrlError(f"{text!r} names no bucket", remedy=f"Write {scheme}://bucket/prefix")
    return Address(scheme, container, path)


def _file(path: str) -> Address:
    absolute = os.path.abspath(os.path.expanduser(path))
    slash = "/" if path.endswith("/") and absolute != "/" else ""
    return Address("file", "", absolute.lstrip("/") + slash)
