"""Every error Swingby raises: one tree, each also the builtin that Python code expects.

SwingbyError
├── ConfigError (ValueError)                a setting is unknown or has a wrong value
├── UrlError (ValueError)                   a URL that names no base we can read
├── ClosedError (ValueError)                used after close()
├── FormatError (ValueError)                a file of an unknown version, or not one of ours
├── BadContainerError (ValueError)          a tar, zip, … that is damaged, or not what its name says
├── StateError (ValueError)                 a loader's state that does not belong to this loader
├── BadSampleError (RuntimeError)           a sample that cannot be decoded, and no other in its place
├── ObjectNotFoundError (FileNotFoundError) no such object
│   ├── BaseNotFoundError                   no such bucket or directory
│   ├── EmptyDatasetError                   nothing under the prefix
│   └── ManifestNotFoundError               no saved manifest of that digest
├── AccessDeniedError (PermissionError)     the base refuses these credentials this object
│   └── AuthenticationError                 the base does not know these credentials
├── ObjectExistsError (FileExistsError)     a create-only write met an object
├── ObjectChangedError (OSError)            the base holds another version than the snapshot
├── CorruptDataError (OSError)              bytes that do not match what they must be
├── TruncatedReadError (OSError)            the base sent fewer bytes than it promised   [retryable]
├── BaseUnavailableError (ConnectionError)  the base does not answer, or answers 5xx     [retryable]
├── DeadlineError (TimeoutError)            the time given for a wait is over
├── ForkError (RuntimeError)                a remote client is used in a forked child
├── LevelError (OSError)                    a level cannot take or give bytes (never the user's failure)
└── KeeperError (OSError)
    ├── KeeperUnavailableError (ConnectionError) no keeper, and none can be started
    ├── NotOpenError                        the keeper was restarted and does not know the dataset yet
    └── ProtocolError                       a frame that is not of our protocol or version

Attributes carry the facts: `key`, `base`, `level`, `remedy`, `retryable`. No error text holds a credential.
"""

from __future__ import annotations

from errno import EACCES, ECONNREFUSED, EEXIST, EHOSTUNREACH, EIO, ENOENT, ENOSPC, EPROTO, ESTALE, ETIMEDOUT
from typing import ClassVar


class SwingbyError(Exception):
    """The root of the tree.

    Args:
        message: what happened, with the names of what it happened to.
        key: the object concerned, where there is one.
        base: the id or URL of the base concerned.
        level: the level concerned: "memory", "burst", …
        remedy: what the user can do about it; appended to the text.
    """

    retryable: ClassVar[bool] = False
    errno: int | None = None

    def __init__(
        self,
        message: str = "",
        *,
        key: str | None = None,
        base: str | None = None,
        level: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.key = key
        self.base = base
        self.level = level
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}. {self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self).__name__, self.facts()))

    def facts(self) -> dict[str, str | None]:
        """The constructor's arguments, to send the error to another process."""
        return {
            "message": self.message,
            "key": self.key,
            "base": self.base,
            "level": self.level,
            "remedy": self.remedy,
        }


class ConfigError(SwingbyError, ValueError):
    """A setting is unknown or has a wrong value."""


class UrlError(SwingbyError, ValueError):
    """A URL that names no base we can read."""


class ClosedError(SwingbyError, ValueError):
    """A dataset, loader or session was used after close()."""


class FormatError(SwingbyError, ValueError):
    """A file of an unknown format version, or one that is not ours or is damaged."""


class BadContainerError(SwingbyError, ValueError):
    """A tar, zip, TFRecord or Parquet file that is damaged, or not what its name says."""


class StateError(SwingbyError, ValueError):
    """A loader's state of another dataset, order or format."""


class BadSampleError(SwingbyError, RuntimeError):
    """A sample whose decoding raised, hung, returned None or ended its process."""


class ObjectNotFoundError(SwingbyError, FileNotFoundError):
    """No such object."""

    errno = ENOENT


class BaseNotFoundError(ObjectNotFoundError):
    """No such bucket or directory."""


class EmptyDatasetError(ObjectNotFoundError):
    """Nothing lies under the prefix, or the filters leave nothing."""


class ManifestNotFoundError(ObjectNotFoundError):
    """No saved manifest of that digest, or none at all where one was asked for."""


class AccessDeniedError(SwingbyError, PermissionError):
    """The base refuses these credentials this object."""

    errno = EACCES


class AuthenticationError(AccessDeniedError):
    """The base does not know these credentials."""


class ObjectExistsError(SwingbyError, FileExistsError):
    """A create-only write met an object."""

    errno = EEXIST


class ObjectChangedError(SwingbyError, OSError):
    """The base holds another version of the object than the snapshot that is being read."""

    errno = ESTALE


class CorruptDataError(SwingbyError, OSError):
    """Bytes that do not match what they must be, and no better copy to be had."""

    errno = EIO


class TruncatedReadError(SwingbyError, OSError):
    """The base sent fewer bytes than it promised."""

    retryable = True
    errno = EIO


class BaseUnavailableError(SwingbyError, ConnectionError):
    """The base does not answer, or answers that it cannot serve now."""

    retryable = True
    errno = EHOSTUNREACH


class DeadlineError(SwingbyError, TimeoutError):
    """The time given for a wait is over."""

    errno = ETIMEDOUT


class ForkError(SwingbyError, RuntimeError):
    """A remote client made before a fork is used in the child, where it would hang."""


class LevelError(SwingbyError, OSError):
    """A level cannot take or give bytes; the reader goes one level on."""

    errno = ENOSPC


class KeeperError(SwingbyError, OSError):
    """The keeper failed in a way that is its own fault."""

    errno = EPROTO


class KeeperUnavailableError(KeeperError, ConnectionError):
    """No keeper answers, and none can be started."""

    errno = ECONNREFUSED


class NotOpenError(KeeperError):
    """The keeper was restarted and does not know the dataset yet; the client opens it again."""


class ProtocolError(KeeperError):
    """A frame that is not of our protocol, version or bounds."""


def _tree(root: type[SwingbyError]) -> dict[str, type[SwingbyError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


def _rebuild(name: str, facts: dict[str, str | None]) -> SwingbyError:
    message = facts.get("message") or ""
    rest = {field: facts.get(field) for field in ("key", "base", "level", "remedy")}
    return _tree(SwingbyError).get(name, SwingbyError)(message, **rest)


def from_facts(name: str, facts: dict[str, str | None]) -> SwingbyError:
    """The error another process sent: its class name and `facts()`; an unknown class becomes SwingbyError."""
    return _rebuild(name, facts)
