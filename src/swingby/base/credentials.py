"""Where S3 credentials come from: settings (which hold the AWS variables and files), else botocore's chain if it is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from swingby.errors import AuthenticationError

if TYPE_CHECKING:
    from swingby.config import S3


class Credentials(NamedTuple):
    """A key pair, and the session token of temporary ones."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None

    def __repr__(self) -> str:
        return "Credentials(…)"


Provider = Callable[[], "Credentials | None"]


def provider_of(options: S3) -> Provider:
    """A function that gives the credentials of the moment, None for anonymous access.

    Raises:
        AuthenticationError: there are none.
    """
    if options.anonymous:
        return lambda: None
    if options.access_key_id and options.secret_access_key:
        fixed = Credentials(options.access_key_id, options.secret_access_key, options.session_token)
        return lambda: fixed
    chain = _botocore_chain()
    if chain is None:
        raise AuthenticationError(
            "no S3 credentials found",
            remedy="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write ~/.aws/credentials; for instance roles and "
            "single sign-on install swingby[aws]; for public buckets set SWINGBY_S3_ANONYMOUS=true",
        )
    return chain


def _botocore_chain() -> Provider | None:
    try:
        import botocore.session
    except ImportError:
        return None
    found = botocore.session.Session().get_credentials()
    if found is None:
        return None

    def current() -> Credentials:
        frozen = found.get_frozen_credentials()
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)

    return current
