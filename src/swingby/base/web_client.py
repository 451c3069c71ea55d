"""GET and HEAD of URLs: redirects followed, bodies as they are sent, every wait with an end.

Threads: safe. Forks: a child makes its own.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NoReturn
from urllib import request as urllib_request
from urllib.parse import quote, urljoin, urlsplit

import urllib3

from swingby.core.url import hide_query
from swingby.errors import (
    AccessDeniedError,
    AuthenticationError,
    BaseUnavailableError,
    ObjectNotFoundError,
    SwingbyError,
    TruncatedReadError,
    UrlError,
)

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

REDIRECTS_MAX = 10
PIECE_BYTES = 1 << 20
DRAINED_BYTES_MAX = 64 << 10  # reading so much is cheaper than another connection
CONNECTIONS_MAX = 64  # kept, to one host
HTTP_OK, HTTP_PARTIAL, HTTP_RANGE_REFUSED, HTTP_SERVER_ERROR = 200, 206, 416, 500

_REDIRECTS = {301, 302, 303, 307, 308}
_LATER = {408, 425, 429}
RESERVED = "%/:?#[]@!$&'()*+,;=~-._"  # what stands in a URL as it is

_REFUSALS: dict[int, tuple[type[SwingbyError], str, str]] = {
    401: (AuthenticationError, "it asks for credentials", "Give a signed URL"),
    403: (AccessDeniedError, "it refuses", "Has a signed URL expired?"),
    404: (ObjectNotFoundError, "no such object", "Check the URL's spelling"),
    410: (ObjectNotFoundError, "it is gone", "Check the URL's spelling"),
}


class WebClient:
    """Requests to any host.

    Args:
        proxies: of the environment, by variable name.
        connect_seconds_max, request_seconds_max: of connecting; of a wait for bytes, and of a whole body.
    """

    def __init__(self, proxies: dict[str, str], connect_seconds_max: float, request_seconds_max: float) -> None:
        self._seconds_max = request_seconds_max
        wait = urllib3.Timeout(connect=connect_seconds_max, read=request_seconds_max)
        self._direct = urllib3.PoolManager(maxsize=CONNECTIONS_MAX, timeout=wait)
        self._proxied = {
            name.removesuffix("_proxy"): urllib3.ProxyManager(proxy, maxsize=CONNECTIONS_MAX, timeout=wait)
            for name, proxy in proxies.items()
            if name != "no_proxy"
        }

    def send(self, method: str, url: str, byte_range: str = "") -> BaseHTTPResponse:
        """The answer to a request, after redirects, with its body unread. Who gets it calls `close` or `body`.

        Raises:
            BaseUnavailableError: the server does not answer.
            UrlError: redirects that go in a circle, or from https to http.
        """
        headers = {"accept-encoding": "identity", "user-agent": "swingby"}
        if byte_range:
            headers["range"] = f"bytes={byte_range}"
        target = quote(url.partition("#")[0], safe=RESERVED)
        for _ in range(REDIRECTS_MAX):
            answer = self._ask(method, target, headers)
            place = answer.headers.get("location")
            if answer.status not in _REDIRECTS or not place:
                return answer
            close(answer)
            source, target = target, quote(urljoin(target, place), safe=RESERVED)
            if urlsplit(target).scheme not in {"http", "https"} or (source[:6], target[:5]) == ("https:", "http:"):
                raise UrlError(f"{hide_query(source)} redirects to another protocol", base=hide_query(source))
        raise UrlError(f"{hide_query(url)} redirects more than {REDIRECTS_MAX} times", base=hide_query(url))

    def body(self, answer: BaseHTTPResponse, name: str, skip: int = 0, count: int | None = None) -> bytes:
        """The bytes of an answer, as they were sent: without the first `skip`, and `count` of these at most.

        Raises:
            TruncatedReadError: it ends early, or does not come in time.
        """
        pieces: list[bytes] = []
        at, stop = 0, None if count is None else skip + count
        until = time.monotonic() + self._seconds_max
        try:
            while stop is None or at < stop:
                piece = answer.read(PIECE_BYTES, decode_content=False)
                if not piece:
                    break
                pieces.append(piece[max(0, skip - at) : None if stop is None else stop - at])
                at += len(piece)
                if time.monotonic() > until:
                    raise TruncatedReadError(f"{name}: the body did not come in time", key=name)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise TruncatedReadError(f"{name}: the body ended early ({type(error).__name__})", key=name) from None
        finally:
            close(answer)
        return b"".join(pieces)

    def length(self, answer: BaseHTTPResponse, name: str) -> int:
        """Bytes of the answer's body, counted where the server does not say."""
        told = content_length(answer)
        if told is not None:
            return told
        count = 0
        until = time.monotonic() + self._seconds_max
        try:
            while piece := answer.read(PIECE_BYTES, decode_content=False):
                count += len(piece)
                if time.monotonic() > until:
                    raise TruncatedReadError(f"{name}: the body did not come in time", key=name)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise TruncatedReadError(f"{name}: the body ended early ({type(error).__name__})", key=name) from None
        return count

    def close(self) -> None:
        """Close idle connections."""
        for manager in (self._direct, *self._proxied.values()):
            manager.clear()

    def _ask(self, method: str, url: str, headers: dict[str, str]) -> BaseHTTPResponse:
        parts = urlsplit(url)
        proxied = self._proxied.get(parts.scheme)
        manager = proxied if proxied and not urllib_request.proxy_bypass(parts.netloc) else self._direct
        try:
            return manager.request(
                method, url, headers=headers, retries=False, redirect=False, preload_content=False, decode_content=False
            )
        except urllib3.exceptions.LocationParseError:
            raise UrlError(f"{hide_query(url)} is no URL") from None
        except urllib3.exceptions.HTTPError as error:
            origin = f"{parts.scheme}://{parts.netloc}"
            raise BaseUnavailableError(
                f"{origin} does not answer ({type(error).__name__})",
                base=origin,
                remedy="Check the host's name, its certificate and the network",
            ) from None


def close(answer: BaseHTTPResponse) -> None:
    """Give the connection back if little or nothing of the body is left, else close it."""
    left = answer.length_remaining
    if left is not None and left <= DRAINED_BYTES_MAX:
        answer.drain_conn()
    answer.close()


def content_length(answer: BaseHTTPResponse) -> int | None:
    """Bytes of the body, if the server says so."""
    text = answer.headers.get("content-length", "")
    if answer.headers.get("transfer-encoding") or not text.isdigit():
        return None
    return int(text)


def raise_for_status(status: int, name: str) -> NoReturn:
    """Raise our error for an answer that is no success."""
    if status in _REFUSALS:
        kind, what, remedy = _REFUSALS[status]
        raise kind(f"{name}: {what} (HTTP {status})", key=name, remedy=remedy)
    if status in _LATER or status >= HTTP_SERVER_ERROR:
        raise BaseUnavailableError(f"{name}: HTTP {status}", key=name)
    raise UrlError(f"{name}: HTTP {status}", key=name, remedy="Is it a plain file that this server gives to everybody?")
