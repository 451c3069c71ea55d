"""`s3://` buckets: reads and writes through obstore, listings and odd keys through signed requests of our own.

Threads: safe. After a fork obstore hangs, even a new store, so this base is for the keeper (`forkable` is False).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from obstore.store import S3Store

from swingby.base.credentials import Provider, provider_of
from swingby.base.ranges import list_ranges
from swingby.base.s3_http import Bucket, SignedHttp
from swingby.base.translate import raise_obstore
from swingby.config import S3, Fetch, proxy_variables
from swingby.core.object import ObjectInfo, Payload, key_text, version_of_etag
from swingby.errors import ObjectChangedError, TruncatedReadError

if TYPE_CHECKING:
    from collections.abc import Iterator

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

    forkable = False

    def __init__(self, bucket: str, options: S3, limits: Fetch) -> None:
        self._bucket = bucket
        place = _place(bucket, options)
        credentials = provider_of(options)
        self._id = base_id(bucket, options)
        self._http = SignedHttp(
            place,
            credentials,
            proxy_variables(),
            (limits.connect_seconds_max, limits.request_seconds_max),
            LIST_THREADS,
        )
        self._store = _store(place, options, limits, credentials)

    @property
    def id(self) -> str:
        """Identity: endpoint and bucket."""
        return self._id

    def list(self, prefix: bytes, after: bytes = b"") -> Iterator[Page]:
        """See `Base.list`. Zero-byte keys that end in a slash, the folders of consoles, are left out."""
        yield from list_ranges(prefix, after, partial(self._http.list_after, prefix), LIST_THREADS)

    def stat(self, key: bytes) -> ObjectInfo:
        """See `Base.stat`."""
        if _ODD_KEY.search(key):
            return _info(self._http.request("HEAD", key).headers)
        try:
            return _meta_info(self._store.head(key_text(key)))
        except Exception as error:  # noqa: BLE001  obstore raises builtins and its own
            raise_obstore(error, key, self._bucket)

    def read(self, key: bytes, start: int = 0, size: int | None = None, version: bytes | None = None) -> Payload:
        """See `Base.read`. Without a range the whole object is asked for plainly: ranges cost some servers a quarter."""
        if _ODD_KEY.search(key):
            return self._read_odd(key, start, size, version)
        if size == 0:
            return Payload(b"", self._checked(self.stat(key), key, version))
        options: Any = None
        if size is not None:
            options = {"range": (start, start + size)}
        elif start:
            options = {"range": {"offset": start}}
        try:
            result = self._store.get(key_text(key), options=options)
            info = self._checked(_meta_info(result.meta), key, version)
            data = result.bytes()
        except ObjectChangedError:
            raise
        except Exception as error:  # noqa: BLE001  as above
            if options and "416" in str(error):
                return Payload(b"", self._checked(self.stat(key), key, version))
            raise_obstore(error, key, self._bucket)
        return self._whole(Payload(data, info), key, start, size)

    def write(self, key: bytes, data: Buffer, *, if_absent: bool = False) -> ObjectInfo:
        """See `Base.write`."""
        view = memoryview(data).cast("B")
        if _ODD_KEY.search(key):
            headers = {"if-none-match": "*"} if if_absent else {}
            return _info(self._http.request("PUT", key, headers=headers, body=bytes(view)).headers, len(view))
        try:
            result = self._store.put(key_text(key), bytes(view), mode="create" if if_absent else "overwrite")
        except Exception as error:  # noqa: BLE001  as above
            raise_obstore(error, key, self._bucket)
        return ObjectInfo(len(view), version_of_etag(result["e_tag"] or ""))

    def delete(self, key: bytes) -> None:
        """See `Base.delete`."""
        self._http.request("DELETE", key)

    def close(self) -> None:
        """Close idle connections."""
        self._http.close()

    def _read_odd(self, key: bytes, start: int, size: int | None, version: bytes | None) -> Payload:
        info = self._checked(self.stat(key), key, version)
        stop = info.size if size is None else min(info.size, start + size)
        if start >= stop:
            return Payload(b"", info)
        answer = self._http.request("GET", key, headers={"range": f"bytes={start}-{stop - 1}"})
        again = ObjectInfo(info.size, version_of_etag(answer.headers.get("etag", "")))
        return self._whole(Payload(answer.body, self._checked(again, key, info.version)), key, start, size)

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

    def _whole(self, payload: Payload, key: bytes, start: int, size: int | None) -> Payload:
        left = max(0, payload.info.size - start)
        wanted = left if size is None else min(size, left)
        if len(memoryview(payload.data)) != wanted:
            raise TruncatedReadError(f"s3://{self._bucket}/{key_text(key)}: the body ended early", key=key_text(key))
        return payload


def base_id(bucket: str, options: S3) -> str:
    """Identity of a bucket: where it answers, and its name."""
    return f"s3:{(options.endpoint or 'aws').rstrip('/')}/{bucket}"


def _place(bucket: str, options: S3) -> Bucket:
    region = options.region or "us-east-1"
    endpoint = (options.endpoint or f"https://s3.{region}.amazonaws.com").rstrip("/")
    if "://" not in endpoint:
        endpoint = "https://" + endpoint
    if options.path_style is False:
        scheme, _, host = endpoint.partition("://")
        return Bucket(bucket, f"{scheme}://{bucket}.{host}", "", region)
    return Bucket(bucket, endpoint, f"/{bucket}", region)


def _store(place: Bucket, options: S3, limits: Fetch, credentials: Provider) -> S3Store:
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


def _meta_info(meta: Any) -> ObjectInfo:
    return ObjectInfo(meta["size"], version_of_etag(meta["e_tag"] or ""))


def _info(headers: Any, size: int | None = None) -> ObjectInfo:
    length = int(headers.get("content-length") or 0) if size is None else size
    return ObjectInfo(length, version_of_etag(headers.get("etag", "")))
