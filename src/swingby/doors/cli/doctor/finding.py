"""What a check found."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"  # worth knowing; things work
    PROBLEM = "problem"  # something does not work, or not as it should


class Finding(msgspec.Struct, frozen=True):
    """One check.

    Attributes:
        name: of what was looked at.
        state: how it ended.
        text: what was found, with figures.
        remedy: what to do about it; empty where nothing is to be done.
    """

    name: str
    state: State
    text: str
    remedy: str = ""
