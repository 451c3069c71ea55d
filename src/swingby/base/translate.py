"""Foreign errors into ours. A tidy test asks that every exception class of obstore stands here."""

from __future__ import annotations

import re
from typing import NoReturn

import obstore.exceptions as foreign

from swingby.core.object import key_text
from swingby.errors import (
    AccessDeniedError,
    AuthenticationError,
    BaseNotFoundError,
    BaseUnavailableError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    SwingbyError,
    UrlError,
)

OBSTORE: dict[type[BaseException], type[SwingbyError]] = {
    foreign.AlreadyExistsError: ObjectExistsError,
    foreign.BaseError: BaseUnavailableError,
    foreign.GenericError: BaseUnavailableError,
    foreign.InvalidPathError: UrlError,
    foreign.JoinError: BaseUnavailableError,
    foreign.NotFoundError: ObjectNotFoundError,
    foreign.NotModifiedError: ObjectChangedError,
    foreign.NotSupportedError: UrlError,
    foreign.PermissionDeniedError: AccessDeniedError,
    foreign.PreconditionError: ObjectChangedError,
    foreign.UnauthenticatedError: AuthenticationError,
    foreign.UnknownConfigurationKeyError: UrlError,
}


class RangeError(SwingbyError):
    """A range that begins behind the object's end; the base turns it into no bytes."""


_CODES: dict[str, tuple[type[SwingbyError], str]] = {
    "NoSuchKey": (ObjectNotFoundError, ""),
    "NoSuchBucket": (BaseNotFoundError, "Check the bucket's name and the endpoint (AWS_ENDPOINT_URL)"),
    "AccessDenied": (AccessDeniedError, "These credentials may not do this; ask for s3:ListBucket and s3:GetObject"),
    "InvalidAccessKeyId": (AuthenticationError, "Check AWS_ACCESS_KEY_ID"),
    "SignatureDoesNotMatch": (AuthenticationError, "Check AWS_SECRET_ACCESS_KEY and AWS_REGION"),
    "ExpiredToken": (AuthenticationError, "The session token has expired; get a new one"),
    "InvalidToken": (AuthenticationError, "Check AWS_SESSION_TOKEN"),
    "RequestTimeTooSkewed": (AuthenticationError, "Set this machine's clock"),
    "AuthorizationHeaderMalformed": (AuthenticationError, "Set AWS_REGION to the bucket's region"),
    "PermanentRedirect": (BaseNotFoundError, "Set AWS_REGION to the bucket's region"),
    "InvalidRange": (RangeError, ""),
    "BucketAlreadyExists": (ObjectExistsError, ""),
    "BucketAlreadyOwnedByYou": (ObjectExistsError, ""),
    "PreconditionFailed": (ObjectExistsError, ""),
    "InvalidBucketName": (BaseNotFoundError, "Check the bucket's name"),
    "MethodNotAllowed": (UrlError, "Is the endpoint an S3 service?"),
}
_STATUS: dict[int, str] = {
    401: "InvalidAccessKeyId",
    403: "AccessDenied",
    404: "NoSuchKey",
    412: "PreconditionFailed",
    416: "InvalidRange",
}
_CODE = re.compile(r"<Code>(\w+)</Code>")


def raise_obstore(error: BaseException, key: bytes, bucket: str) -> NoReturn:
    """Raise our error for an exception of obstore, or the builtin it stands for."""
    text = str(error)
    code = _CODE.search(text)
    if code and code[1] in _CODES:
        _raise(code[1], key, bucket)
    kind = next((OBSTORE[cls] for cls in type(error).__mro__ if cls in OBSTORE), None)
    if kind is None:
        by_builtin: dict[type[Exception], type[SwingbyError]] = {
            FileNotFoundError: ObjectNotFoundError,
            PermissionError: AccessDeniedError,
        }
        by_builtin |= {FileExistsError: ObjectExistsError, ValueError: UrlError}
        kind = next((ours for theirs, ours in by_builtin.items() if isinstance(error, theirs)), BaseUnavailableError)
    if kind is ObjectNotFoundError:
        _raise("NoSuchKey", key, bucket)
    if kind is AccessDeniedError:
        _raise("AccessDenied", key, bucket)
    raise kind(f"{_name(key, bucket)}: {_first_line(text)}", key=key_text(key), base=bucket) from None


def raise_for_status(status: int, body: bytes, key: bytes, bucket: str) -> NoReturn:
    """Raise our error for an S3 answer that is no success."""
    found = _CODE.search(body[:4096].decode("utf-8", "replace"))
    code = found[1] if found else _STATUS.get(status, "")
    if code in _CODES:
        _raise(code, key, bucket)
    raise BaseUnavailableError(f"{_name(key, bucket)}: HTTP {status} {code}".rstrip(), key=key_text(key), base=bucket)


def raise_unreachable(error: Exception, key: bytes, origin: str) -> NoReturn:
    """Raise our error for a connection that failed."""
    raise BaseUnavailableError(
        f"{origin} does not answer: {_first_line(str(error))}",
        key=key_text(key),
        base=origin,
        remedy="Check the endpoint and the network",
    ) from None


def _raise(code: str, key: bytes, bucket: str) -> NoReturn:
    kind, remedy = _CODES[code]
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", code).lower()
    raise kind(f"{_name(key, bucket)}: {words}", key=key_text(key), base=bucket, remedy=remedy or None) from None


def _name(key: bytes, bucket: str) -> str:
    return f"s3://{bucket}/{key_text(key)}"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:300]
