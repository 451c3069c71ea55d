"""Nonsense at the keeper's socket, and in everything that is decoded.

Promises: the keeper lives on and serves others, its memory and descriptors stay bounded; a decoder answers with what was encoded or
with its own error, never with another one.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import struct
from typing import TYPE_CHECKING

import numpy as np

from swingby.core.epoch import ORDERS
from swingby.keeper import frames, process, protocol
from swingby.keeper.protocol import Location, Message, Selection
from swingby.testing.campaign import decoding, leaks
from swingby.testing.campaign.children import Children
from swingby.testing.campaign.ground import MIB, Ground
from swingby.testing.campaign.job import promise
from swingby.testing.campaign.reading import Reader
from swingby.testing.campaign.truth import Shape, Truth

if TYPE_CHECKING:
    import random
    import socket
    from collections.abc import Callable

    from swingby.testing.campaign.job import Job

STEPS_A_ROUND = 50
STEPS_BETWEEN_LOOKS = 10
CONNECTIONS_MAX = 2000
KEEPER_BYTES_MAX = 1 << 30
READ_SECONDS_MAX = 60.0
ANSWER_SECONDS = 0.05  # that an attacker waits
NUMBERS = (0, 1, -1, 2, 7, 1 << 31, -(1 << 31), (1 << 63) - 1, -(1 << 63))
SECONDS = (0.0, -1.0, 0.01, 1e300, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "x", "..", "../../etc/passwd", "\0", "a" * 64, "[", "*" * 100, "é")
SETTINGS = {"memory.budget_bytes": 16 * MIB, "burst.budget_bytes": 24 * MIB}
HELLO = frames.encode(protocol.Hello(protocol.VERSION, 1))


def run(job: Job) -> None:
    """Attack, then look whether others are served."""
    for steps in job.rounds(STEPS_A_ROUND):
        name = f"fuzz-{steps.start}"
        with (
            job.guard(),
            Ground(name, SETTINGS, is_far=True) as ground,
            Children(f"{ground.root}/children") as children,
        ):
            truth = Truth(os.path.join(ground.root, "data"), job.seed, Shape(packs=4, large=1))
            truth.write_all()
            digest = ground.open(truth.folder).manifest
            keeper = ground.facts()["process"]
            for step in steps:
                rng = job.begin(step)
                name, attack = rng.choice(list(ATTACKS.items()))
                job.counts[name] += 1
                with contextlib.suppress(OSError):
                    attack(_Attacker(ground, rng, digest))
                decoding.decode_mutated(rng)
                job.counts["decodings"] += decoding.DECODINGS
                promise(ground.facts()["process"] == keeper, "the keeper did not live through it")
                if step % STEPS_BETWEEN_LOOKS == 0 or step == steps.stop - 1:
                    check = Reader(ground, truth, rng).check_all
                    children.run(functools.partial(check, "auto", 0.3), READ_SECONDS_MAX)
                    size = _resident_bytes(keeper)
                    promise(size < KEEPER_BYTES_MAX, f"the keeper takes {size} bytes")
            leaks.check(ground)
            ground.stop_keeper()


# -- at the socket -----------------------------------------------------------------------------------------------------


class _Attacker:
    """One who speaks to the keeper as he likes."""

    def __init__(self, ground: Ground, rng: random.Random, digest: str) -> None:
        self.ground = ground
        self.rng = rng
        self.digest = digest

    def connect(self) -> socket.socket:
        """A connection that waits for little."""
        found = process.connect(self.ground.place)
        found.settimeout(ANSWER_SECONDS)
        return found

    def say(self, *frames: bytes) -> None:
        """Send, take in some answers, hang up."""
        with self.connect() as connection:
            for frame in frames:
                connection.sendall(frame)
            with contextlib.suppress(TimeoutError):
                while connection.recv(1 << 16):
                    pass

    def messages(self) -> list[Message]:
        """Requests of the right types with any values."""
        rng = self.rng
        number, text = (
            functools.partial(rng.choice, NUMBERS),
            functools.partial(rng.choice, TEXTS + (self.digest,) * len(TEXTS)),
        )
        where = Location(rng.choice(["file", "s3", "memory", text()]), text(), text().encode())
        selection = Selection([text()], [text()])
        share = (number(), number(), number(), rng.random() < 0.5, number())
        chosen = rng.choice(SECONDS)
        return [
            protocol.Open(where, rng.choice(["auto", "never", text()]), rng.choice([None, text()])),
            protocol.Open(where, rng.choice(["auto", "never"]), None, rng.choice(["tar", "parquet", text()])),
            protocol.Shards(text(), [number()]),
            protocol.Need(text(), rng.randbytes(rng.choice([0, 7, 8, 80])), chosen, doubt=rng.random() < 0.5),
            protocol.Need(text(), np.array([number()]).tobytes(), chosen),
            protocol.NeedRange(number(), number(), chosen, text(), number()),
            protocol.NeedRange(number(), number(), chosen, location=where, max_age_seconds=rng.choice(SECONDS)),
            protocol.Touched(text(), rng.randbytes(rng.choice([0, 3, 4, 40])), number(), number()),
            protocol.Plan(text(), selection, rng.choice([*ORDERS, text()]), number(), number(), share, number()),
            protocol.Advance(number()),
            protocol.Follow(text(), number()),
            protocol.Look(text(), rng.randbytes(rng.choice([0, 7, 8, 80]))),
            protocol.Upcoming(rng.randbytes(rng.choice([0, 7, 8, 64]))),
            protocol.Warm(text(), selection, rng.random() < 0.5),
            protocol.Evict(text()),
            protocol.Status(),
            protocol.Verify(),
        ]

    def message(self) -> Message:
        """One of them."""
        return self.rng.choice(self.messages())


def _random_bytes(attacker: _Attacker) -> None:
    attacker.say(attacker.rng.randbytes(attacker.rng.choice([1, 8, 100, 100_000])))


def _any_values(attacker: _Attacker) -> None:
    attacker.say(HELLO, *(frames.encode(attacker.message()) for _ in range(attacker.rng.randint(1, 5))))


def _mutated(attacker: _Attacker) -> None:
    attacker.say(HELLO, *(decoding.mutate(frames.encode(attacker.message()), attacker.rng) for _ in range(3)))


def _oversize(attacker: _Attacker) -> None:
    size = attacker.rng.choice([frames.FRAME_BYTES_MAX, frames.FRAME_BYTES_MAX + 1, (1 << 32) - 1])
    attacker.say(HELLO + struct.pack("<HHI", 0x5942, attacker.rng.choice([0, 241, 65535]), size) + bytes(100_000))


def _wrong_version(attacker: _Attacker) -> None:
    attacker.say(frames.encode(protocol.Hello(attacker.rng.choice(NUMBERS), 1)))


def _wrong_order(attacker: _Attacker) -> None:
    replies = [protocol.Ok(), protocol.Supplied(), protocol.Welcome(1, 1), protocol.Report({})]
    attacker.say(frames.encode(attacker.rng.choice([attacker.message(), *replies])))
    attacker.say(HELLO, HELLO, frames.encode(attacker.rng.choice(replies)))


def _halves(attacker: _Attacker) -> None:
    data = HELLO + frames.encode(attacker.message())
    attacker.say(data[: attacker.rng.randrange(len(data))])


def _many(attacker: _Attacker) -> None:
    """Thousands of connections at once, each amid a frame."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as stack:
        for _ in range(min(CONNECTIONS_MAX, hard - 200)):
            stack.enter_context(attacker.connect()).sendall(HELLO[: attacker.rng.randrange(len(HELLO) + 1)])
        promise(attacker.ground.facts(), "the keeper answers among thousands")
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _deaf(attacker: _Attacker) -> None:
    """Ask and never listen."""
    status = frames.encode(protocol.Status())
    with attacker.connect() as connection, contextlib.suppress(TimeoutError):
        connection.sendall(HELLO)
        for _ in range(2000):
            connection.sendall(status)


def _descriptors(attacker: _Attacker) -> None:
    """A frame that goes on and on, with descriptors in each piece."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        with attacker.connect() as connection:
            frames.send(connection, HELLO + struct.pack("<HHI", 0x5942, 1, 1 << 20))
            for _ in range(100):
                frames.send(connection, b"x", [nothing] * protocol.DESCRIPTORS_MAX)
            held = len(os.listdir(f"/proc/{attacker.ground.facts()['process']}/fd"))
            promise(held < 10 * protocol.DESCRIPTORS_MAX, f"A LEAK: the keeper holds {held} descriptors")
    finally:
        os.close(nothing)


ATTACKS: dict[str, Callable[[_Attacker], None]] = {
    "random bytes": _random_bytes,
    "any values": _any_values,
    "mutated frames": _mutated,
    "oversize frames": _oversize,
    "wrong versions": _wrong_version,
    "wrong order": _wrong_order,
    "half frames": _halves,
    "thousands of connections": _many,
    "deaf clients": _deaf,
    "floods of descriptors": _descriptors,
}


def _resident_bytes(number: int) -> int:
    with open(f"/proc/{number}/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
