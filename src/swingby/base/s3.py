"""`s3://` buckets.

Reads take the quick way of `s3_wire`; answers it does not understand, proxies and writes go through obstore; listings, HEADs and
keys with odd paths through signed requests of our own.

Threads: safe. Forks: reads are safe; obstore hangs after a fork, even a new store, so a child of a process that used it is told.
"""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from swingby.base import obstore_owner
from swingby.base.credentials import Provider, provider_of
from swingby.base.ranges import list_ranges
from swingby.base.s3_http import Bucket, SignedHttp
from swingby.base.s3_wire import UnusualAnswerError, Wire
from swingby.base.services import RangeError
from swingby.base.translate import raise_obstore
from swingby.config import S3, Fetch, proxy_variables
from swingby.core.object import ObjectInfo, Payload, key_text, version_of_etag
from swingby.errors import ObjectChangedError, ObjectExistsError, TruncatedReadError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore.store import S3Store
    from typing_extensions import Buffer

    from swingby.core.object import Page

LIST_THREADS = 16
CREDENTIAL_SECONDS = 60  # botocore renews what expires; obstore asks it this often

_ODD_KEY = re.compile(rb"(?:^|/)\.{0,2}(?:/|$)|[\x00-\x1f\x7f]")


class S3Base:
    """One bucket.

    Args:
        bucket: its name.
        options: endpoint, region, credentials.
        limits: time limits and connection counts.
    """

    local = False

    def __init__(self, bucket: str, options: S3, limits: Fetch) -> None:
        self._bucket = bucket
        self._place = place_of(bucket, options)
        self._options = options
        self._limits = limits
        self._credentials = provider_of(options)
        self._id = base_id(bucket, options)
        self._http = signed_http(self._place, self._credentials, limits)
        waits = (limits.connect_seconds_max, limits.request_seconds_max)
        self._wire = None if proxy_variables() else Wire(self._place, self._credentials, *waits)
        self._made_store: S3Store | None = None

    @property
    def id(self) -> str:
        """Identity: endpoint and bucket."""
        return self._id

    def list(self, prefix: bytes, after: bytes = b"") -> Iterator[Page]:
        """See `Base.list`. Zero-byte keys that end in a slash, the folders of consoles, are left out."""
        yield from list_ranges(prefix, after, partial(self._http.list_after, prefix), LIST_THREADS)

    def stat(self, key: bytes) -> ObjectInfo:
        """See `Base.stat`."""
        return _info(self._http.request("HEAD", key).headers)

    def read(self, key: bytes, start: int = 0, size: int | None = None, version: bytes | None = None) -> Payload:
        """See `Base.read`. Without a range the whole object is asked for plainly: ranges cost some servers a quarter."""
        if size == 0 or (start and size is None):
            info = self._checked(self.stat(key), key, version)
            if size == 0 or start >= info.size:
                return Payload(b"", info)
            size = info.size - start
        part = None if size is None else (start, start + size)
        try:
            payload = self._fetch(key, part)
        except RangeError:
            return Payload(b"", self._checked(self.stat(key), key, version))
        self._checked(payload.info, key, version)
        wanted = payload.info.size if part is None else max(0, min(payload.info.size, part[1]) - part[0])
        if len(memoryview(payload.data)) != wanted:
            raise TruncatedReadError(f"s3://{self._bucket}/{key_text(key)}: the body ended early", key=key_text(key))
        return payload

    def write(self, key: bytes, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        """See `Base.write`."""
        view = memoryview(data).cast("B")
        if _ODD_KEY.search(key):
            headers = {"if-none-match": "*"} if if_absent else {}
            return _info(self._http.request("PUT", key, headers=headers, body=bytes(view)).headers, len(view))
        try:
            result = self._store().put(key_text(key), bytes(view), mode="create" if if_absent else "overwrite")
        except Exception as error:
            raise_obstore(error, key, self._bucket)
        return ObjectInfo(len(view), version_of_etag(result["e_tag"] or ""))

    def delete(self, key: bytes) -> None:
        """See `Base.delete`."""
        self._http.request("DELETE", key)

    def make_bucket(self) -> None:
        """Make the bucket itself; there already is success."""
        with contextlib.suppress(ObjectExistsError):
            self._http.request("PUT")

    def close(self) -> None:
        """Close idle connections."""
        self._http.close()
        if self._wire:
            self._wire.close()

    def _fetch(self, key: bytes, part: tuple[int, int] | None) -> Payload:
        try:
            return self._read_quickly(key, part)
        except UnusualAnswerError:
            return self._read_generally(key, part)

    def _read_quickly(self, key: bytes, part: tuple[int, int] | None) -> Payload:
        if self._wire is None:
            raise UnusualAnswerError("there is a proxy")
        got = self._wire.get(key, part)
        return Payload(got.data, ObjectInfo(got.object_size, version_of_etag(got.etag)))

    def _read_generally(self, key: bytes, part: tuple[int, int] | None) -> Payload:
        if _ODD_KEY.search(key):
            headers = {"range": f"bytes={part[0]}-{part[1] - 1}"} if part else {}
            answer = self._http.request("GET", key, headers=headers)
            total = answer.headers.get("content-range", "").rpartition("/")[2] or str(len(answer.body))
            return Payload(answer.body, ObjectInfo(int(total), version_of_etag(answer.headers.get("etag", ""))))
        try:
            result = self._store().get(key_text(key), options={"range": part} if part else None)
            return Payload(result.bytes(), ObjectInfo(result.meta["size"], version_of_etag(result.meta["e_tag"] or "")))
        except Exception as error:
            raise_obstore(error, key, self._bucket)

    def _checked(self, info: ObjectInfo, key: bytes, version: bytes | None) -> ObjectInfo:
        if version is not None and info.version != version:
            name = key_text(key)
            raise ObjectChangedError(
                f"s3://{self._bucket}/{name} has changed since it was listed",
                key=name,
                base=self._id,
                remedy="Open the dataset again, with refresh='always'",
            )
        return info

    def _store(self) -> S3Store:
        """The obstore, made when first needed.

        Raises:
            ForkError: this is a child of a process that used obstore.
        """
        obstore_owner.claim(self._id)
        if self._made_store is None:
            self._made_store = _make_store(self._place, self._options, self._limits, self._credentials)
        return self._made_store


def base_id(bucket: str, options: S3) -> str:
    """Identity of a bucket: where it answers, and its name."""
    return f"s3:{(options.endpoint or 'aws').rstrip('/')}/{bucket}"


def signed_http(place: Bucket, credentials: Provider, limits: Fetch) -> SignedHttp:
    """Requests of our own to a bucket."""
    waits = (limits.connect_seconds_max, limits.request_seconds_max)
    return SignedHttp(place, credentials, proxy_variables(), waits, LIST_THREADS)


def place_of(bucket: str, options: S3) -> Bucket:
    """Where a bucket answers."""
    region = options.region or "us-east-1"
    endpoint = (options.endpoint or f"https://s3.{region}.amazonaws.com").rstrip("/")
    if "://" not in endpoint:
        endpoint = "https://" + endpoint
    if options.path_style is False:
        scheme, _, host = endpoint.partition("://")
        return Bucket(bucket, f"{scheme}://{bucket}.{host}", "", region)
    return Bucket(bucket, endpoint, f"/{bucket}", region)


def _make_store(place: Bucket, options: S3, limits: Fetch, credentials: Provider) -> S3Store:
    from obstore.store import S3Store

    return S3Store(
        place.name,
        endpoint=place.origin,
        region=place.region,
        virtual_hosted_style_request=not place.path,
        unsigned_payload=options.unsigned_payload,
        client_options={
            "allow_http": place.origin.startswith("http://"),
            "timeout": f"{limits.request_seconds_max}s",
            "connect_timeout": f"{limits.connect_seconds_max}s",
        },
        retry_config={"max_retries": 0},
        **_obstore_credentials(options, credentials),
    )


def _obstore_credentials(options: S3, credentials: Provider) -> dict[str, Any]:
    if options.anonymous:
        return {"skip_signature": True}
    if options.access_key_id:
        token = {"session_token": options.session_token} if options.session_token else {}
        return {"access_key_id": options.access_key_id, "secret_access_key": options.secret_access_key, **token}

    def current() -> dict[str, Any]:
        found = credentials()
        assert found is not None  # anonymous access is handled above
        expires = datetime.now(UTC) + timedelta(seconds=CREDENTIAL_SECONDS)
        return {
            "access_key_id": found.access_key_id,
            "secret_access_key": found.secret_access_key,
            "token": found.session_token,
            "expires_at": expires,
        }

    return {"credential_provider": current}


def _info(headers: Any, size: int | None = None) -> ObjectInfo:
    length = int(headers.get("content-length") or 0) if size is None else size
    return ObjectInfo(length, version_of_etag(headers.get("etag", "")))
