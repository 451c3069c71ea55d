"""`http://` and `https://`: single objects of a host, or the files that a list names.

A list is text in UTF-8: one URL or path a line, relative to the list's own URL; empty lines and lines that begin with `#` do not
count. What stands in a line is the object's key. A version is the entity tag, else Last-Modified and size; a server that tells
neither is refused, because a changed object could not be told from the same. Bodies are as they are sent: a stored gzip stays gzip.

Threads: safe. Forks: a child makes its own connections.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import numpy as np

from swingby.base.web_client import (
    HTTP_OK,
    HTTP_PARTIAL,
    HTTP_RANGE_REFUSED,
    RESERVED,
    WebClient,
    close,
    content_length,
    raise_for_status,
)
from swingby.config import Fetch, proxy_variables
from swingby.core.checksum import name_digest
from swingby.core.object import ObjectInfo, Page, Payload, key_bytes, version_of_etag
from swingby.core.url import hide_query
from swingby.errors import (
    AccessDeniedError,
    BaseNotFoundError,
    ObjectChangedError,
    ObjectNotFoundError,
    TruncatedReadError,
    UrlError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer
    from urllib3.response import BaseHTTPResponse

LIST_BYTES_MAX = 256 << 20
PAGE_ENTRIES = 1000

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)$")
_NO_BYTES = re.compile(r"bytes \*/(\d+)$")
_ONE_BYTE = "0-0"


class _Part(NamedTuple):
    """The bytes of an answer: where they begin in the object, and the object."""

    start: int
    info: ObjectInfo


class WebBase:
    """One host, whose keys are paths with queries; or one list, whose keys are its lines.

    Args:
        scheme: "http" or "https".
        container: the host; with a path it is the list's.
        limits: time limits.
        threads_max: requests at once while listing.
    """

    local = False

    def __init__(self, scheme: str, container: str, limits: Fetch, threads_max: int) -> None:
        self._url = f"{scheme}://{container}"
        self._is_list = "/" in container
        plain, _, query = self._url.partition("?")
        self._id = f"{plain}?{name_digest(query.encode()).hex()}" if query else plain
        self._threads_max = threads_max
        self._client = WebClient(proxy_variables(), limits.connect_seconds_max, limits.request_seconds_max)

    @property
    def id(self) -> str:
        """Identity: the URL of the host or list, a query only as its digest."""
        return self._id

    def list(self, prefix: bytes, after: bytes = b"") -> Iterator[Page]:
        """See `Base.list`. Sizes and versions are asked for one by one: a list of n objects costs n requests."""
        keys = sorted(key for key in self._lines() if key.startswith(prefix) and key > after)
        pool = ThreadPoolExecutor(self._threads_max, "swingby-list")
        try:
            for start in range(0, len(keys), PAGE_ENTRIES):
                part = keys[start : start + PAGE_ENTRIES]
                found = list(pool.map(self.stat, part))
                tokens = np.frombuffer(b"".join(info.version for info in found), np.uint8).reshape(len(part), -1)
                yield Page(part, np.array([info.size for info in found], np.uint64), tokens)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def stat(self, key: bytes) -> ObjectInfo:
        """See `Base.stat`: by HEAD; by a GET of one byte where HEAD is refused (signed URLs), or does not tell the size."""
        answer = self._client.send("HEAD", self._url_of(key))
        size = content_length(answer)
        close(answer)
        if answer.status == HTTP_OK and size:
            return _info(answer, size, self._name(key))
        return self._probe(key)

    def read(self, key: bytes, start: int = 0, size: int | None = None, version: bytes | None = None) -> Payload:
        """See `Base.read`. A server that knows no ranges sends all from the front, and what comes before is thrown away."""
        if size == 0:
            return Payload(b"", self._checked(self.stat(key), key, version))
        stop = "" if size is None else start + size - 1
        answer = self._client.send("GET", self._url_of(key), f"{start}-{stop}" if start or size is not None else "")
        try:
            if answer.status == HTTP_RANGE_REFUSED:
                return Payload(b"", self._checked(self.stat(key), key, version))
            return self._taken(answer, key, (start, size), version)
        finally:
            close(answer)

    def write(self, key: bytes, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        """Refused: the web is only read."""
        del data, if_absent
        raise AccessDeniedError(f"{self._name(key)}: the web is only read, never written", key=self._name(key))

    def delete(self, key: bytes) -> None:
        """Refused, as `write`."""
        self.write(key, b"")

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()

    def _taken(
        self, answer: BaseHTTPResponse, key: bytes, wanted: tuple[int, int | None], version: bytes | None
    ) -> Payload:
        """Of an answer's body what was wanted: (start, size)."""
        start, size = wanted
        name = self._name(key)
        part = self._part(answer, name)
        if part is None:  # of unknown length
            data = self._client.body(answer, name)
            info = self._checked(_info(answer, len(data), name), key, version)
            return Payload(data[start:] if size is None else data[start : start + size], info)
        info = self._checked(part.info, key, version)
        if part.start > start:
            raise TruncatedReadError(f"{name}: the answer begins at {part.start}, not {start}", key=name)
        count = max(0, (info.size if size is None else min(info.size, start + size)) - start)
        data = self._client.body(answer, name, start - part.start, count)
        if len(data) != count:
            raise TruncatedReadError(f"{name}: {len(data)} of {count} bytes came", key=name)
        return Payload(data, info)

    def _lines(self) -> set[bytes]:
        """The keys of the list."""
        if not self._is_list:
            raise UrlError(f"{self._url} is a host", remedy=f"Give the URL of a list of files, as {self._url}/list.txt")
        name = hide_query(self._url)
        answer = self._client.send("GET", self._url)
        if answer.status != HTTP_OK:
            close(answer)
            try:
                raise_for_status(answer.status, name)
            except ObjectNotFoundError:
                raise BaseNotFoundError(f"{name}: no such list", base=name, remedy="Check the URL's spelling") from None
        kind = answer.headers.get("content-type", "").lower()
        if "html" in kind or answer.headers.get("content-encoding", "identity") != "identity":
            answer.close()
            raise UrlError(f"{name} is no plain text", base=name, remedy="Give a text file with one URL or path a line")
        data = self._client.body(answer, name, 0, LIST_BYTES_MAX + 1)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise UrlError(f"{name} is not UTF-8", base=name, remedy="Give a text file of URLs or paths") from None
        if len(data) > LIST_BYTES_MAX:
            raise UrlError(f"{name} is larger than {LIST_BYTES_MAX >> 20} MiB", base=name, remedy="Divide the list")
        lines = [line.strip() for line in text.split("\n")]
        return {key_bytes(line) for line in lines if line and not line.startswith("#")}

    def _probe(self, key: bytes) -> ObjectInfo:
        name = self._name(key)
        answer = self._client.send("GET", self._url_of(key), _ONE_BYTE)
        try:
            none = _NO_BYTES.match(answer.headers.get("content-range", ""))
            if answer.status == HTTP_RANGE_REFUSED and none and not int(none[1]) and _is_versioned(answer):
                return _info(answer, 0, name)
            if answer.status == HTTP_RANGE_REFUSED:  # an empty object, as some servers see it
                close(answer)
                answer = self._client.send("GET", self._url_of(key))
            part = self._part(answer, name)
            return part.info if part else _info(answer, self._client.length(answer, name), name)
        finally:
            close(answer)

    def _part(self, answer: BaseHTTPResponse, name: str) -> _Part | None:
        """What an answer holds; None where its length is known only at the end."""
        if answer.status == HTTP_PARTIAL:
            told = _RANGE.match(answer.headers.get("content-range", ""))
            if told is None:
                raise UrlError(f"{name}: a part of an object that does not say which", key=name)
            return _Part(int(told[1]), _info(answer, int(told[2]), name))
        if answer.status != HTTP_OK:
            raise_for_status(answer.status, name)
        size = content_length(answer)
        return None if size is None else _Part(0, _info(answer, size, name))

    def _url_of(self, key: bytes) -> str:
        text = quote(key, safe=RESERVED)  # joining would drop control characters
        if not self._is_list:
            return f"{self._url}/{text}"
        url = urljoin(self._url, text)
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
            raise UrlError(
                f"{hide_query(text).rpartition('@')[2]!r} in {hide_query(self._url)} is no web address",
                base=self._id,
                remedy="Write http or https URLs without a password, or paths relative to the list",
            )
        return url

    def _checked(self, info: ObjectInfo, key: bytes, version: bytes | None) -> ObjectInfo:
        if version is not None and info.version != version:
            raise ObjectChangedError(
                f"{self._name(key)} has changed since it was listed",
                key=self._name(key),
                base=self._id,
                remedy="Open the dataset again, with refresh='always'",
            )
        return info

    def _name(self, key: bytes) -> str:
        return hide_query(self._url_of(key))


def _is_versioned(answer: BaseHTTPResponse) -> bool:
    return "etag" in answer.headers or "last-modified" in answer.headers


def _info(answer: BaseHTTPResponse, size: int, name: str) -> ObjectInfo:
    etag, modified = answer.headers.get("etag"), answer.headers.get("last-modified")
    if etag:
        return ObjectInfo(size, version_of_etag(etag))
    if modified:
        return ObjectInfo(size, name_digest(b"last-modified", modified.encode(), str(size).encode()))
    raise UrlError(
        f"{name}: the server tells neither ETag nor Last-Modified, so that a change would go unnoticed",
        key=name,
        remedy="Download it, and read the file",
    )
