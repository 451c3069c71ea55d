"""Foreign errors into ours. A tidy test asks that every exception class of obstore stands here."""

from __future__ import annotations

import re
from typing import NoReturn

import obstore.exceptions as foreign

from swingby.base.services import S3_SERVICE, RangeError, Service
from swingby.core.object import key_text
from swingby.errors import (
    AccessDeniedError,
    AuthenticationError,
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


_STATUS: dict[int, str] = {
    401: "InvalidAccessKeyId",
    403: "AccessDenied",
    404: "NoSuchKey",
    412: "PreconditionFailed",
    416: "InvalidRange",
}
_CODE = re.compile(r"<Code>(\w+)</Code>")
_QUERY = re.compile(r"(https?://[^\s?]*)\?[^\s)]*")  # a query can hold a signature
_NO_TOKEN = re.compile(r"token request|OpenCredentials|DecodeCredentials|InvalidKey|MissingKey|service account file")
_BUILTINS: dict[type[Exception], type[SwingbyError]] = {
    FileNotFoundError: ObjectNotFoundError,
    PermissionError: AccessDeniedError,
    FileExistsError: ObjectExistsError,
    ValueError: UrlError,
}


def raise_obstore(error: BaseException, key: bytes, bucket: str, service: Service = S3_SERVICE) -> NoReturn:
    """Raise our error for an exception of obstore, or the builtin it stands for."""
    text = str(error)
    code = _CODE.search(text)
    if code and code[1] in service.codes:
        _raise(code[1], key, bucket, service)
    if "StartTooLarge" in text:
        raise RangeError(
            f"{_name(key, bucket, service)}: {_first_line(text)}", key=key_text(key), base=bucket
        ) from None
    kind = next((OBSTORE[cls] for cls in type(error).__mro__ if cls in OBSTORE), None)
    if kind is None:
        kind = next((ours for theirs, ours in _BUILTINS.items() if isinstance(error, theirs)), BaseUnavailableError)
    if kind is ObjectNotFoundError:
        _raise(service.absent, key, bucket, service)
    if kind is AccessDeniedError:
        _raise(service.denied, key, bucket, service)
    remedy = None
    if service.unidentified and _NO_TOKEN.search(text):
        kind, remedy = AuthenticationError, service.unidentified
    name = _name(key, bucket, service)
    raise kind(f"{name}: {_first_line(text)}", key=key_text(key), base=bucket, remedy=remedy) from None


def raise_for_status(status: int, body: bytes, key: bytes, bucket: str) -> NoReturn:
    """Raise our error for an S3 answer that is no success."""
    found = _CODE.search(body[:4096].decode("utf-8", "replace"))
    code = found[1] if found else _STATUS.get(status, "")
    if code in S3_SERVICE.codes:
        _raise(code, key, bucket, S3_SERVICE)
    name = _name(key, bucket, S3_SERVICE)
    raise BaseUnavailableError(f"{name}: HTTP {status} {code}".rstrip(), key=key_text(key), base=bucket)


def raise_unreachable(error: Exception, key: bytes, origin: str) -> NoReturn:
    """Raise our error for a connection that failed."""
    raise BaseUnavailableError(
        f"{origin} does not answer: {_first_line(str(error))}",
        key=key_text(key),
        base=origin,
        remedy="Check the endpoint and the network",
    ) from None


def _raise(code: str, key: bytes, bucket: str, service: Service) -> NoReturn:
    kind, remedy = service.codes[code]
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", code).lower()
    name = _name(key, bucket, service)
    raise kind(f"{name}: {words}", key=key_text(key), base=bucket, remedy=remedy or None) from None


def _name(key: bytes, bucket: str, service: Service) -> str:
    return f"{service.scheme}://{bucket}/{key_text(key)}"


def _first_line(text: str) -> str:
    return _QUERY.sub(r"\1?…", text.strip().partition("\n")[0])[:300]
