"""Signed S3 requests of our own, for what obstore cannot do: list raw keys after a given one, and touch keys with odd paths.

obstore refuses keys with empty, `.` or `..` segments, control characters or a trailing slash, and a whole listing with one of
them. Source: AWS Signature Version 4 and ListObjectsV2.

Threads: safe.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple
from urllib import request as urllib_request
from urllib.parse import quote, unquote_to_bytes
from xml.etree import ElementTree as ET

import numpy as np
import urllib3

from swingby.base.translate import raise_for_status, raise_unreachable
from swingby.core.object import VERSION_BYTES, Page, version_of_etag
from swingby.errors import BaseUnavailableError

if TYPE_CHECKING:
    from swingby.base.credentials import Provider

HTTP_REDIRECT = 300  # and above: no success

_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


class Bucket(NamedTuple):
    """Where a bucket answers.

    Attributes:
        name: of the bucket.
        origin: scheme and host, as "http://127.0.0.1:7480".
        path: what precedes the key in a request's path: "/bucket" or nothing.
        region: for signatures.
    """

    name: str
    origin: str
    path: str
    region: str


class Answer(NamedTuple):
    """An HTTP answer with its whole body."""

    body: bytes
    headers: urllib3.HTTPHeaderDict


class SignedHttp:
    """Requests to one bucket.

    Args:
        bucket: the bucket.
        credentials: asked at every request.
        proxies: of the environment, by variable name.
        timeout: of connecting and of each read, seconds.
        connections_max: kept open.
    """

    def __init__(
        self,
        bucket: Bucket,
        credentials: Provider,
        proxies: dict[str, str],
        timeout: tuple[float, float],
        connections_max: int,
    ) -> None:
        self._bucket = bucket
        self._credentials = credentials
        self._pool = _pool(bucket.origin, proxies, timeout, connections_max)

    def request(
        self,
        method: str,
        key: bytes = b"",
        *,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> Answer:
        """Send a request about a key, or about the bucket.

        Raises:
            SwingbyError: whatever the status means; see `translate`.
        """
        path = (self._bucket.path + "/" + quote(key)) if key else (self._bucket.path or "/")
        canonical_query = "&".join(
            f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in sorted((query or {}).items())
        )
        sent = self._sign(method, path, canonical_query, dict(headers or {}), body)
        target = f"{path}?{canonical_query}" if canonical_query else path
        try:
            answer = self._pool.urlopen(method, target, body=body or None, headers=sent, retries=False, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            raise_unreachable(error, key, self._bucket.origin)
        if answer.status >= HTTP_REDIRECT:
            raise_for_status(answer.status, answer.data, key, self._bucket.name)
        return Answer(answer.data, answer.headers)

    def list_after(self, prefix: bytes, after: bytes) -> tuple[Page, bool]:
        """Up to 1,000 keys under a prefix that follow `after`, and whether more follow these."""
        query = {"list-type": "2", "encoding-type": "url", "prefix": prefix.decode("utf-8", "surrogateescape")}
        if after:
            # A bound made by halving need not be UTF-8 above the prefix; S3 compares bytes.
            query["start-after"] = after.decode("utf-8", "replace")
        return _parse_listing(self.request("GET", query=query).body, self._bucket.name)

    def close(self) -> None:
        """Close idle connections."""
        self._pool.close()

    def _sign(self, method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        credentials = self._credentials()
        headers["host"] = self._bucket.origin.partition("://")[2]
        if credentials is None:
            return headers
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        payload = hashlib.sha256(body).hexdigest() if body else _EMPTY_SHA256
        headers |= {"x-amz-date": now, "x-amz-content-sha256": payload}
        if credentials.session_token:
            headers["x-amz-security-token"] = credentials.session_token
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name].strip()}\n" for name in sorted(headers))
        request = "\n".join([method, path, query, lines, names, payload])
        scope = f"{now[:8]}/{self._bucket.region}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(request.encode()).hexdigest()])
        signing_key = b"AWS4" + credentials.secret_access_key.encode()
        for part in scope.split("/"):
            signing_key = hmac.digest(signing_key, part.encode(), "sha256")
        signature = hmac.digest(signing_key, text.encode(), "sha256").hex()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credentials.access_key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        return headers


def _pool(
    origin: str, proxies: dict[str, str], timeout: tuple[float, float], connections_max: int
) -> urllib3.HTTPConnectionPool:
    scheme, _, host = origin.partition("://")
    wait = urllib3.Timeout(connect=timeout[0], read=timeout[1])
    proxy = proxies.get(f"{scheme}_proxy")
    if proxy and not urllib_request.proxy_bypass(host):
        manager = urllib3.ProxyManager(proxy, maxsize=connections_max, timeout=wait)
        return manager.connection_from_url(origin)
    return urllib3.connection_from_url(origin, maxsize=connections_max, timeout=wait)


def _parse_listing(body: bytes, bucket: str) -> tuple[Page, bool]:
    try:
        tree = ET.fromstring(body)
    except ET.ParseError as error:
        raise BaseUnavailableError(f"bucket {bucket!r}: a listing is no XML: {error}", base=bucket) from None
    namespace = tree.tag.partition("}")[0] + "}" if tree.tag.startswith("{") else ""
    keys, sizes, versions = [], [], []
    for item in tree.iterfind(f"{namespace}Contents"):
        key = unquote_to_bytes((item.findtext(f"{namespace}Key") or "").replace("+", " "))
        size = int(item.findtext(f"{namespace}Size") or 0)
        if key.endswith(b"/") and size == 0:
            continue  # a folder that a console made
        keys.append(key)
        sizes.append(size)
        versions.append(version_of_etag(item.findtext(f"{namespace}ETag") or ""))
    tokens = np.frombuffer(b"".join(versions), np.uint8).reshape(len(keys), VERSION_BYTES)
    more = tree.findtext(f"{namespace}IsTruncated") == "true"
    return Page(keys, np.array(sizes, np.uint64), tokens), more
