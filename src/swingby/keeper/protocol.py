"""What client and keeper say to each other; `frames` carries it. Format: docs/formats/protocol.md."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from swingby.config import S3, Azure, Google
from swingby.core.object import key_text
from swingby.core.url import Address, shown

VERSION = 1
DESCRIPTORS_MAX = 240  # a message; the kernel allows 253
INDICES_MAX = 1 << 16  # in one request
INDICES_WAITING_MAX = 1 << 18  # of a plan that is given, not yet walked
OPENED_SHARDS_MAX = 16  # sent with the root; a dataset of so many needs its keeper no more to be looked at


class Message(msgspec.Struct, frozen=True, tag=True, array_like=True, forbid_unknown_fields=True):
    """The root of all messages."""


class Location(msgspec.Struct, frozen=True, array_like=True):
    """A base and a prefix or key in it, with the credentials to use."""

    scheme: str
    container: str
    path: bytes
    s3: S3 | None = None
    az: Azure | None = None
    gs: Google | None = None

    @property
    def name(self) -> str:
        """The URL, for messages: without what a query may hold of signatures."""
        return shown(Address(self.scheme, self.container, key_text(self.path)))

    def __repr__(self) -> str:
        return f"Location({self.name!r})"


class Selection(msgspec.Struct, frozen=True, array_like=True):
    """Filters over a manifest: patterns of relative keys."""

    include: list[str] = []
    exclude: list[str] = []


# -- from the client ---------------------------------------------------------------------------------------------------


class Hello(Message, frozen=True):
    """The first message of a connection; answered by Welcome, with the descriptor of the board."""

    version: int
    process: int


class Open(Message, frozen=True):
    """Open a dataset; answered by Progress frames and Opened."""

    location: Location
    refresh: str  # "auto", "always", "never"
    manifest: str | None = None
    layout: str = "objects"  # see core/containers/layouts.py


class Shards(Message, frozen=True):
    """Ask for shard files; answered by Ok with their descriptors, in order."""

    digest: str
    numbers: list[int]


class Need(Message, frozen=True):
    """Make these objects present; answered by Files frames and Supplied.

    Doubt says that the last answer did not work out: send every file again, and check what is said to be present.
    """

    digest: str
    indices: bytes  # int64, little-endian
    seconds: float
    doubt: bool = False


class Look(Message, frozen=True):
    """Send the files that these objects belong to, whatever of them is present; answered as Need, and nothing is fetched."""

    digest: str
    indices: bytes  # int64, little-endian


class NeedRange(Message, frozen=True):
    """Make a part of one object present, of a dataset by index or of any base by location; answered as Need.

    A size of -1 reaches to the object's end.
    """

    start: int
    size: int
    seconds: float
    digest: str = ""
    index: int = -1
    location: Location | None = None
    max_age_seconds: float = 0.0
    doubt: bool = False


class Touched(Message, frozen=True):
    """What was read without asking. No answer."""

    digest: str
    packs: bytes  # uint32 ordinals
    hits: int
    hit_bytes: int
    direct: int = 0  # of the hits, read from the base by the reader itself
    direct_bytes: int = 0


class Plan(Message, frozen=True):
    """Fetch ahead in the order of an epoch while this connection lives; answered by Planned."""

    digest: str
    selection: Selection
    order: str  # see core/epoch.py
    seed: int
    epoch: int
    share: tuple[int, int, int, bool, int]  # see core/order.py
    ahead_bytes_max: int


class Follow(Message, frozen=True):
    """Fetch ahead what Upcoming gives, while this connection lives; answered by Ok."""

    digest: str
    ahead_bytes_max: int


class Upcoming(Message, frozen=True):
    """What will be read next, after Follow. No answer."""

    indices: bytes  # int64, little-endian


class Advance(Message, frozen=True):
    """How far the plan is consumed: steps of an epoch, samples of what was given. No answer."""

    mark: int


class Lease(msgspec.Struct, frozen=True, array_like=True):
    """How long a pin outlives its connection: until the process ends or the time is over; 0: no such end."""

    process: int = 0
    started: int = 0  # see keeper/job.py
    seconds: float = 0.0


class Warm(Message, frozen=True):
    """Make a dataset present, or the object at a location; answered by Progress frames and Report."""

    digest: str
    selection: Selection
    pin: bool = False  # while this connection lives
    lease: Lease | None = None  # of the pin, from when all is present
    name: str = ""  # of the pin, for people
    location: Location | None = None


class Verify(Message, frozen=True):
    """Check every chunk on every level; answered by Progress frames and Report."""


class Evict(Message, frozen=True):
    """Evict a dataset's segments, or all; answered by Report."""

    digest: str | None = None


class Status(Message, frozen=True):
    """Answered by Report."""


class Clean(Message, frozen=True):
    """Remove everything that was written, then end; answered by Report."""


class Stop(Message, frozen=True):
    """End; answered by Ok."""


# -- from the keeper ---------------------------------------------------------------------------------------------------


class Welcome(Message, frozen=True):
    """The keeper speaks this version, and runs with these settings."""

    version: int
    process: int
    settings: str = ""


class Ok(Message, frozen=True):
    """Done."""


class Planned(Message, frozen=True):
    """A plan is registered; if it sweeps, readers do better to read from the base themselves what they find absent."""

    sweeps: bool


class Failed(Message, frozen=True):
    """The request failed."""

    name: str
    facts: dict[str, str | None]


class Progress(Message, frozen=True):
    """How far a long request is: objects, bytes; totals where they are known."""

    objects: int
    bytes: int
    objects_total: int = 0
    bytes_total: int = 0


class Opened(Message, frozen=True):
    """A dataset's manifest; with the descriptors of its root and its first shards."""

    digest: str
    listed_at: float  # seconds since 1970
    list_seconds: float


class FileRef(msgspec.Struct, frozen=True, array_like=True):
    """A file whose descriptors come with the frame.

    Attributes:
        slot: a pack's ordinal; -1 - index for a large object; for `loose`, nothing.
        kind: "memory" (two descriptors: segment and map, to be mapped), "burst" or "loose" (one, to be read).
        size_bytes, chunk_count: of the segment.
    """

    slot: int
    kind: str
    size_bytes: int
    chunk_count: int
    generation: int


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """Bytes to read from a file of this answer; `position` is that of the object in the request."""

    position: int
    file: int
    offset: int
    size: int
    word: int


class ObjectFailure(msgspec.Struct, frozen=True, array_like=True):
    """Why one object of a request could not be made present."""

    position: int
    name: str
    facts: dict[str, str | None]


class Files(Message, frozen=True):
    """Files of the answer, numbered in order over all frames."""

    refs: list[FileRef]


class Supplied(Message, frozen=True):
    """The end of an answer to Need.

    Attributes:
        pieces: bytes to be read, in the order of the object; objects without a piece or failure lie in a mapped segment.
        direct: positions of objects to read from the base itself.
        ranges: positions of objects too large to be supplied whole: ask for ranges.
        failures: objects that could not be made present.
    """

    pieces: list[Piece] = []
    direct: list[int] = []
    ranges: list[int] = []
    failures: list[ObjectFailure] = []
    start: int = 0  # of NeedRange: the part supplied, and the object it is of
    size: int = 0
    object_size: int = 0
    version: bytes = b""
    base_seconds: float = (
        0.0  # of the request, until the last byte that a base was asked for had come; and how many these were
    )
    base_bytes: int = 0


class Report(Message, frozen=True):
    """Facts, by name."""

    facts: dict[str, Any]


Request: TypeAlias = (
    Hello
    | Open
    | Shards
    | Need
    | Look
    | NeedRange
    | Touched
    | Plan
    | Follow
    | Upcoming
    | Advance
    | Warm
    | Verify
    | Evict
    | Status
    | Clean
    | Stop
)
Reply: TypeAlias = Welcome | Ok | Planned | Failed | Progress | Opened | Files | Supplied | Report

UNANSWERED = (Touched, Upcoming, Advance)  # not even by Failed: the next request would take it for its own answer
