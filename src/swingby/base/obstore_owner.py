"""Which process may use obstore: a child forked from one that has used it would wait for threads that it does not have."""

from __future__ import annotations

import os

from swingby.errors import ForkError

_process: int | None = None


def claim(base_id: str) -> None:
    """Say that this process uses obstore from now on.

    Raises:
        ForkError: this is a child of a process that used it.
    """
    global _process
    if _process not in {None, os.getpid()}:
        raise ForkError(
            "this process is a fork of one that used obstore, whose threads it does not have",
            base=base_id,
            remedy="Start workers with spawn instead of fork",
        )
    _process = os.getpid()
