"""What the door does not do: it reads. Each call that would write says so, and where to write instead."""

from __future__ import annotations

from typing import Any, NoReturn

from swingby.errors import SwingbyError


class UnsupportedError(SwingbyError, NotImplementedError):
    """What this door does not do."""


class Refusals:
    """The writing side of a file system, refused."""

    scheme: str

    def _refuse(self, path: Any, *_: Any, **__: Any) -> NoReturn:
        raise UnsupportedError(
            f"swingby reads; it does not write {path!r}",
            remedy=f"Write with fsspec.filesystem({self.scheme!r}); the next open here sees it",
        )

    mkdir = makedirs = rmdir = rm = rm_file = _rm = touch = pipe_file = pipe = put = put_file = cp_file = copy = mv = (
        _refuse
    )
