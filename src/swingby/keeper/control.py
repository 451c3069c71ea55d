"""What operators ask of a keeper: status, warm-up, verification, eviction, cleaning."""

from __future__ import annotations

import functools
import os
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any

from swingby.errors import LevelError
from swingby.keeper.bases import read_seconds
from swingby.keeper.protocol import Progress, Report
from swingby.keeper.warm import DatasetGoods, ObjectGoods, Warmer

if TYPE_CHECKING:
    from collections.abc import Callable

    from swingby.keeper import protocol
    from swingby.keeper.pins import Pin
    from swingby.keeper.server import Connection
    from swingby.keeper.service import Keeper
    from swingby.keeper.sources import Source
    from swingby.keeper.supply import Levels
    from swingby.keeper.warm import Goods

PROGRESS_SECONDS = 0.2
PROBE_BYTES = 1 << 20
UNKNOWN_BURST_SECONDS = 0.001


class Control:
    """Handlers of the operators' messages; each runs in an operation's thread.

    Args:
        keeper: whose.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._lock = threading.Lock()
        self._delivered = [0, 0]  # samples, bytes
        self._direct = [0, 0]  # those of them that clients read from the base themselves

    def count_hits(self, samples: int, size: int, direct: int, direct_size: int) -> None:
        """What a client delivered to its user, and what of that it read itself."""
        with self._lock:
            self._delivered[0] += samples
            self._delivered[1] += size
            self._direct[0] += direct
            self._direct[1] += direct_size

    def status(self, connection: Connection, message: protocol.Status) -> None:
        """Send what the keeper holds and did."""
        del message
        connection.send(Report(self.facts()))

    def facts(self) -> dict[str, Any]:
        """Everything `status` shows."""
        keeper, engine = self._keeper, self._keeper.engine
        bases = {}
        for one in engine.bases.all():
            reading = one.meter.reading()
            bases[one.base.id] = reading._asdict() | {"near": one.is_near}
        samples, size = self._delivered
        base_bytes = sum(one["bytes"] for one in bases.values()) + self._direct[1]
        saved = max(0, size - base_bytes)
        looked = keeper.supply.lookups.reading()
        misses = looked.memory_misses + self._direct[0]
        found = {
            "memory": (max(0, samples - misses), misses),
            "burst": (looked.burst_hits, looked.burst_misses),
        }
        return {
            "process": os.getpid(),
            "home": engine.settings.home,
            "started_at": keeper.started_at,
            "clients": keeper.server.client_count if keeper.server else 0,
            "plans": keeper.planner.count(),
            "levels": {
                level.name: level.counts()._asdict()
                | {"budget_bytes": level.options.budget_bytes, "directory": level.options.directory}
                | {"pinned_bytes": keeper.pins.bytes_on(level)}
                | dict(zip(("hits", "misses"), found[level.name], strict=True))
                for level in filter(None, engine.levels)
            },
            "bases": bases,
            "delivered": {"samples": samples, "bytes": size},
            "base_bytes": base_bytes,
            "saved_bytes": saved,
            "byte_hit_ratio": saved / size if size else 0.0,
            "spill": {"waiting_segments": keeper.upkeep.waiting_count, "bytes": keeper.upkeep.spilled_bytes},
            "moved_bytes": keeper.upkeep.moved_bytes,
            "pins": keeper.pins.facts(),
            "pin_count": len(keeper.pins),
        }

    def warm(self, connection: Connection, message: protocol.Warm) -> None:
        """Make a dataset or an object present, and pin it if asked, which may be refused before anything is fetched."""
        keeper = self._keeper
        goods = self._goods(message)
        pin = self._pin(goods, message, connection) if message.pin else None
        send = _throttled(connection)
        warmer = Warmer(goods, keeper.supply, keeper.upkeep)
        facts = warmer.run(lambda done: send(*done), lambda: connection.is_open)
        if pin and connection.is_open:
            pin.begin_lease()
        connection.send(Report(facts))

    def _goods(self, message: protocol.Warm) -> Goods:
        if message.location:
            return ObjectGoods(*self._keeper.ranges.whole(message.location))
        source = self._keeper.sources.get(message.digest)
        return DatasetGoods(source, self._keeper.sources.selection(source, message.selection))

    def _pin(self, goods: Goods, message: protocol.Warm, connection: Connection) -> Pin:
        """Pin while the connection lives, unless a lease has begun."""
        pins = self._keeper.pins
        name = message.name or "it"
        pin = pins.add(name, goods.segments(), message.lease, is_near=goods.base.is_near)

        def end() -> None:
            if not pin.is_leased:
                pins.end(pin)

        connection.on_close.append(end)
        if not connection.is_open:  # it was closed before it could know of this
            end()
        return pin

    def verify(self, connection: Connection, message: protocol.Verify) -> None:
        """Check every chunk."""
        del message
        send = _throttled(connection)
        connection.send(Report(dict(self._keeper.upkeep.verify(lambda done, total: send(done, 0, total, 0)))))

    def evict(self, connection: Connection, message: protocol.Evict) -> None:
        """Evict a dataset, or everything; pins that live on without a connection end with it."""
        levels = [level for level in self._keeper.engine.levels if level]
        wanted: set[bytes] | None = None
        if message.digest:
            source = self._keeper.sources.get(message.digest)
            wanted = {segment.id for segment in DatasetGoods(source, None).segments()}
        unpinned = self._keeper.pins.end_leased(wanted)
        before = sum(level.counts().used_bytes for level in levels)
        evicted = kept = 0
        for level in levels:
            for identity in level.identities():
                if wanted is None or identity in wanted:
                    done = level.evict(identity)
                    evicted, kept = evicted + done, kept + (not done)
        freed = before - sum(level.counts().used_bytes for level in levels)
        connection.send(Report({"segments": evicted, "bytes": max(0, freed), "kept": kept, "unpinned": unpinned}))

    def clean(self, connection: Connection, message: protocol.Clean) -> None:
        """Remove everything that was written, and end."""
        del message
        before = sum(level.counts().used_bytes for level in self._keeper.engine.levels if level)
        self._keeper.upkeep.close()
        self._keeper.engine.wipe()
        connection.send(Report({"bytes": before}))
        self._keeper.stop()

    @functools.cached_property
    def burst_seconds(self) -> float:
        """What one small read of the burst level takes, measured once."""
        burst = self._keeper.engine.levels.burst
        if burst is None:
            return UNKNOWN_BURST_SECONDS
        path = os.path.join(burst.options.directory, f"probe.{secrets.token_hex(4)}.tmp")
        try:
            with open(path, "wb") as file:
                file.write(bytes(PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
            return read_seconds(burst.reader, [path] * 8) or UNKNOWN_BURST_SECONDS
        except (OSError, LevelError):
            return UNKNOWN_BURST_SECONDS
        finally:
            if os.path.exists(path):
                os.unlink(path)


def is_on_memory(source: Source, levels: Levels) -> bool:
    """Whether every pack of a dataset without large objects is complete on the memory level."""
    memory = levels.memory
    if memory is None:
        return False
    for number, shard in enumerate(source.manifest.root.shards):
        packs = source.manifest.shard(number).packs
        if shard.data_bytes > int(packs["size_bytes"].sum()):
            return False  # it has large objects
        if not all(memory.is_complete(identity.tobytes()) for identity in packs["id"]):
            return False
    return True


def _throttled(connection: Connection) -> Callable[[int, int, int, int], None]:
    last = 0.0

    def send(objects: int, size: int, objects_total: int, bytes_total: int) -> None:
        nonlocal last
        if time.monotonic() - last > PROGRESS_SECONDS:
            last = time.monotonic()
            connection.send(Progress(objects, size, objects_total, bytes_total))

    return send
