"""Looks into buckets: HEAD for an object, ListObjectsV2 with a delimiter for a folder, which costs a request a thousand names."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree as ET

from swingby.base.browse import Entry, no_folder
from swingby.core.object import ObjectInfo, version_of_etag
from swingby.errors import BaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swingby.base.retry import RetryingBase
    from swingby.base.s3_http import SignedHttp
    from swingby.core.object import Page


class S3Browser:
    """See `Browser`. A zero-byte key that ends in a slash, as consoles make them, is an empty folder.

    Args:
        http: requests to the bucket.
        base: lists what lies below, and says when to try again.
    """

    def __init__(self, http: SignedHttp, base: RetryingBase) -> None:
        self._http = http
        self._base = base

    def object(self, key: bytes) -> Entry:
        """See `Browser.object`."""
        headers = self._base.retried(lambda: self._http.request("HEAD", key)).headers
        etag = headers.get("etag", "")
        info = ObjectInfo(int(headers.get("content-length") or 0), version_of_etag(etag))
        said = headers.get("last-modified")
        return Entry(key, info, parsedate_to_datetime(said).timestamp() if said else None, etag.strip('"'))

    def folder(self, prefix: bytes) -> Iterator[list[Entry]]:
        """See `Browser.folder`."""
        query = {"list-type": "2", "encoding-type": "url", "delimiter": "/"}
        query["prefix"] = prefix.decode("utf-8", "surrogateescape")
        is_first = True
        while True:
            body = self._base.retried(lambda: self._http.request("GET", query=query)).body
            entries, is_there, following = _parse(body, prefix)
            if is_first and not is_there and prefix:
                raise no_folder(prefix)
            is_first = False
            yield entries
            if not following:
                return
            query["continuation-token"] = following

    def below(self, prefix: bytes) -> Iterator[Page]:
        """See `Browser.below`."""
        return self._base.list(prefix)


def _parse(body: bytes, prefix: bytes) -> tuple[list[Entry], bool, str]:
    """The names of a page; whether there is anything; the token of the next page, if any."""
    try:
        tree = ET.fromstring(body)
    except ET.ParseError as error:
        raise BaseUnavailableError(f"a listing is no XML: {error}") from None
    space = tree.tag.partition("}")[0] + "}" if tree.tag.startswith("{") else ""
    found = [
        Entry(_unquoted(item.findtext(f"{space}Prefix")).rstrip(b"/"), None)
        for item in tree.iterfind(f"{space}CommonPrefixes")
    ]
    is_there = bool(found)
    for item in tree.iterfind(f"{space}Contents"):
        is_there = True
        key = _unquoted(item.findtext(f"{space}Key"))
        if key == prefix or key.endswith(b"/"):
            continue
        etag = (item.findtext(f"{space}ETag") or "").strip('"')
        info = ObjectInfo(int(item.findtext(f"{space}Size") or 0), version_of_etag(etag))
        found.append(Entry(key, info, _seconds(item.findtext(f"{space}LastModified")), etag))
    more = tree.findtext(f"{space}IsTruncated") == "true"
    return found, is_there, (tree.findtext(f"{space}NextContinuationToken") or "") if more else ""


def _unquoted(text: str | None) -> bytes:
    return unquote_to_bytes((text or "").replace("+", " "))


def _seconds(text: str | None) -> float | None:
    """Of "2026-01-31T12:00:00.000Z"."""
    if not text:
        return None
    when = datetime.fromisoformat(text)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
