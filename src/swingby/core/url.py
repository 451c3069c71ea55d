"""URLs and plain paths, taken apart."""

from __future__ import annotations

import os
from typing import NamedTuple
from urllib.parse import unquote

from swingby.errors import UrlError

WEB = frozenset({"http", "https"})


class Address(NamedTuple):
    """Where something lies.

    Attributes:
        scheme: "file", "s3", …
        container: the bucket; the host for the web; empty for files.
        path: the key or prefix inside it, without a leading slash; for the web with its query.
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
    if scheme in WEB:
        return _web(scheme, rest)
    container, _, path = rest.partition("/")
    if not container:
        raise UrlError(f"{text!r} names no bucket", remedy=f"Write {scheme}://bucket/prefix")
    return Address(scheme, container, path)


def shown(address: Address) -> str:
    """A URL for messages: without the query of a web address, which may hold a signature."""
    return hide_query(str(address)) if address.scheme in WEB else str(address)


def hide_query(text: str) -> str:
    """A URL whose query is left out."""
    url, mark, _ = text.partition("?")
    return f"{url}?…" if mark else url


def shown_url(text: str) -> str:
    """The same for a URL as it was given."""
    return hide_query(text) if text.partition("://")[0] in WEB else text


def _web(scheme: str, rest: str) -> Address:
    host, _, path = rest.partition("#")[0].partition("/")
    if "@" in host:
        raise UrlError(
            f"{scheme}://…@{host.rpartition('@')[2]}/… holds a password",
            remedy="Give a URL that is signed, or one without credentials",
        )
    if not host or "?" in host:
        raise UrlError(f"{scheme}:// needs a host and a path", remedy=f"Write {scheme}://host/file")
    return Address(scheme, host.lower(), path)


def _file(path: str) -> Address:
    absolute = os.path.abspath(os.path.expanduser(path))
    slash = "/" if path.endswith("/") and absolute != "/" else ""
    return Address("file", "", absolute.lstrip("/") + slash)
