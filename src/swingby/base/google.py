"""`gs://` buckets of Google Cloud Storage, through obstore.

Credentials are the file of GOOGLE_APPLICATION_CREDENTIALS, else what obstore finds by itself: the file of `gcloud auth
application-default login`, the metadata server. An endpoint without a file is an emulator's, which takes any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swingby.base.obstore_base import Container, ObstoreBase
from swingby.base.services import GOOGLE

if TYPE_CHECKING:
    from obstore.store import GCSStore

    from swingby.config import Fetch, Google


def google_base(bucket: str, options: Google, limits: Fetch) -> ObstoreBase:
    """The base of one bucket."""
    endpoint = (options.endpoint or "").rstrip("/")
    if endpoint and "://" not in endpoint:
        endpoint = "http://" + endpoint  # as STORAGE_EMULATOR_HOST is written
    name = Container(GOOGLE, bucket, f"gs:{endpoint or 'google'}/{bucket}")
    return ObstoreBase(name, lambda: _make_store(bucket, endpoint, options, limits))


def _make_store(bucket: str, endpoint: str, options: Google, limits: Fetch) -> GCSStore:
    from obstore.store import GCSStore

    given: dict[str, Any] = {"base_url": endpoint} if endpoint else {}
    if options.anonymous:
        given["skip_signature"] = True  # which obstore does for reads only
    elif options.credentials_file:
        given["application_credentials"] = options.credentials_file
    elif endpoint:
        given["credential_provider"] = lambda: {"token": "emulator", "expires_at": None}
    return GCSStore(
        bucket,
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "timeout": f"{limits.request_seconds_max}s",
            "connect_timeout": f"{limits.connect_seconds_max}s",
        },
        retry_config={"max_retries": 0},
        **given,
    )
