"""The keeper: what each message does.

Quick work is done in the server's thread; what reads a base or walks a level runs in a few threads of its own.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from swingby import config
from swingby.errors import KeeperError, ProtocolError, SwingbyError
from swingby.keeper import frames, protocol
from swingby.keeper.answers import Answer
from swingby.keeper.control import Control, is_on_memory
from swingby.keeper.outlook import Outlook
from swingby.keeper.pins import Pins
from swingby.keeper.planner import Planner
from swingby.keeper.plans import EpochPlan, GivenPlan
from swingby.keeper.pool import Pool
from swingby.keeper.protocol import Ok, Opened, Progress, Welcome
from swingby.keeper.ranges import RangeReader
from swingby.keeper.sources import Sources
from swingby.keeper.supply import Supply
from swingby.keeper.upkeep import Upkeep
from swingby.keeper.wanted import wanted_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from swingby.config import Settings
    from swingby.keeper.bases import Bases
    from swingby.keeper.manifests import ManifestStore
    from swingby.keeper.server import Connection, Server
    from swingby.keeper.sources import Source
    from swingby.keeper.supply import Levels

OPERATIONS_MAX = 32  # listings, warm-ups, verifications and long requests at once
BURST_JOBS_MAX = 16
BURST_BYTES_MAX = 64 << 20
TICK_SECONDS = 0.25  # how late a deadline may be noticed
INLINE_INDICES_MAX = 2048  # longer requests are planned outside the server's thread
PROGRESS_SECONDS = 0.2
TOUCHED_MAX = 1 << 50  # samples or bytes a report; their sum must fit into a message

log = logging.getLogger("swingby")


class Engine(NamedTuple):
    """What a keeper is assembled from.

    Attributes:
        settings: in force.
        levels: this node's.
        bases: opens bases.
        store: saves manifests.
        held: descriptors, closed with the keeper: the file that counts evictions, sent to every client; the memory level's lock.
        clean: removes what earlier keepers left outside the levels.
        wipe: removes everything that was written outside the levels and the store.
    """

    settings: Settings
    levels: Levels
    bases: Bases
    store: ManifestStore
    held: tuple[int, int | None]
    clean: Callable[[], None]
    wipe: Callable[[], None]


class Keeper:
    """See the module's text. `serve` with a Server made with `handle`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        settings = engine.settings
        burst_pool = Pool("swingby-burst", lambda: BURST_JOBS_MAX, BURST_BYTES_MAX)
        self.upkeep = Upkeep(engine.levels, self._is_busy, self._each_round, engine.clean)
        self.supply = Supply(engine.levels, burst_pool, self.upkeep.note_filled)
        self.sources = Sources(engine.bases, engine.store, settings.listing, settings.scope, self.upkeep.move)
        self._operations = ThreadPoolExecutor(OPERATIONS_MAX, "swingby-operation")
        outlook = Outlook(self._operations.submit)
        for level in filter(None, engine.levels):
            level.foresee(outlook.forecast)
        self.planner = Planner(self.supply, outlook, lambda source: is_on_memory(source, engine.levels))
        self.pins = Pins(engine.levels)
        self.control = Control(self)
        self.ranges = RangeReader(self.sources, self.supply, lambda: self.control.burst_seconds)
        self.each_round: Callable[[], None] = lambda: None
        self.server: Server | None = None
        self.started_at = time.time()
        self._burst_pool = burst_pool
        self._answers: set[Answer] = set()
        self._answers_lock = threading.Lock()
        self._handlers: dict[type, Callable[[Connection, Any], None]] = {
            protocol.Open: self._later(self._open),
            protocol.Shards: self._shards,
            protocol.Need: self._need,
            protocol.NeedRange: self._need_range,
            protocol.Touched: self._touched,
            protocol.Look: self._look,
            protocol.Plan: self._later(self._plan),
            protocol.Follow: self._follow,
            protocol.Upcoming: self._upcoming,
            protocol.Advance: lambda connection, message: self.planner.advance(connection.number, message.mark),
            protocol.Stop: self._stop,
            protocol.Warm: self._later(self.control.warm),
            protocol.Verify: self._later(self.control.verify),
            protocol.Evict: self._later(self.control.evict),
            protocol.Status: self._later(self.control.status),
            protocol.Clean: self._later(self.control.clean),
        }

    # -- life ----------------------------------------------------------------------------------------------------------

    def serve(self, server: Server) -> None:
        """Serve until the server is stopped, then close everything."""
        self.server = server
        self.upkeep.start()
        server.call_later(TICK_SECONDS, self._tick)
        try:
            server.run()
        finally:
            self.close()

    def close(self) -> None:
        """End all threads and close all files."""
        self.upkeep.close()
        self.planner.close()
        self._operations.shutdown(wait=False, cancel_futures=True)
        self._burst_pool.close()
        self.engine.bases.close()
        for level in filter(None, self.engine.levels):
            level.close()
        frames.close_all([descriptor for descriptor in self.engine.held if descriptor is not None])

    def handle(self, connection: Connection, message: Any) -> None:
        """Do what a message asks; the server's thread."""
        if isinstance(message, protocol.Hello):
            self._greet(connection, message)
            return
        if not connection.has_greeted:
            raise ProtocolError("the first message must be Hello")
        try:
            self._handlers[type(message)](connection, message)
        except SwingbyError as error:
            _refuse(connection, message, error)
        except (ValueError, IndexError) as error:
            _refuse(connection, message, ProtocolError(f"{type(message).__name__}: {error}"))

    # -- messages ------------------------------------------------------------------------------------------------------

    def _greet(self, connection: Connection, message: protocol.Hello) -> None:
        if message.version != protocol.VERSION:
            raise ProtocolError(
                f"this keeper speaks version {protocol.VERSION}, the client {message.version}",
                remedy="Run `swingby stop`; the next use starts a keeper of the installed version",
            )
        connection.has_greeted = True
        connection.on_close.append(lambda: self.planner.remove(connection.number))
        welcome = Welcome(protocol.VERSION, os.getpid(), config.keeper_json(self.engine.settings))
        connection.send(welcome, [os.dup(self.engine.held[0])])

    def _open(self, connection: Connection, message: protocol.Open) -> None:
        reported = time.monotonic()

        def progress(objects: int, size: int) -> None:
            nonlocal reported
            if not connection.is_open:
                raise KeeperError("the client is gone")
            if time.monotonic() - reported > PROGRESS_SECONDS:
                reported = time.monotonic()
                connection.send(Progress(objects, size))

        source, listing = self.sources.open(message, progress)
        self._measure(source)
        store, shards = self.engine.store, source.manifest.root.shards
        descriptors = [store.open_root(source.manifest.digest)]
        try:
            descriptors.extend(store.open_shard(info) for info in shards[: protocol.OPENED_SHARDS_MAX])
        except SwingbyError:
            frames.close_all(descriptors)
            raise
        connection.send(Opened(source.manifest.digest, listing.listed_at, listing.list_seconds), descriptors)

    def _shards(self, connection: Connection, message: protocol.Shards) -> None:
        shards = self.sources.get(message.digest).manifest.root.shards
        connection.send(Ok(), [self.engine.store.open_shard(shards[number]) for number in message.numbers])

    def _need(self, connection: Connection, message: protocol.Need) -> None:
        indices = np.frombuffer(message.indices, "<i8")
        if len(indices) > protocol.INDICES_MAX:
            raise ProtocolError(f"more than {protocol.INDICES_MAX} objects in one request")
        source = self.sources.get(message.digest)
        answer = self._expect(Answer(connection, message.digest, message.seconds))
        if message.doubt:
            connection.known.clear()

        def begin() -> None:
            try:
                wants = wanted_of(source.manifest, indices)
                if message.doubt:
                    self.supply.check(wants)
                self.supply.begin(source.base, wants, answer.complete, urgent=True)
            except SwingbyError as error:
                answer.fail(error)
            except Exception as error:
                log.exception("a request failed")
                answer.fail(KeeperError(f"the keeper failed: {error!r}"))

        if len(indices) <= INLINE_INDICES_MAX and not message.doubt:
            begin()
        else:
            self._operations.submit(begin)

    def _look(self, connection: Connection, message: protocol.Look) -> None:
        source = self.sources.get(message.digest)
        indices = np.frombuffer(message.indices, "<i8")[: protocol.INDICES_MAX]
        answer = Answer(connection, message.digest, 0.0)
        self.supply.look(source.base, wanted_of(source.manifest, indices), answer.complete)

    def _need_range(self, connection: Connection, message: protocol.NeedRange) -> None:
        answer = self._expect(Answer(connection, "", message.seconds))
        self._operations.submit(self.ranges.begin, message, answer)

    def _touched(self, connection: Connection, message: protocol.Touched) -> None:
        del connection
        counts = message.hits, message.hit_bytes, message.direct, message.direct_bytes
        if not all(0 <= count <= TOUCHED_MAX for count in counts):
            raise ProtocolError("no client reads so much between two reports")
        self.control.count_hits(*counts)
        memory = self.engine.levels.memory
        if memory:
            manifest = self.sources.get(message.digest).manifest
            for ordinal in np.frombuffer(message.packs, "<u4").tolist():
                if ordinal < manifest.pack_ordinals and not manifest.is_large(ordinal):
                    memory.touch(manifest.pack(ordinal).id)

    def _plan(self, connection: Connection, message: protocol.Plan) -> None:
        source = self.sources.get(message.digest)
        plan = EpochPlan(source, self.sources.selection(source, message.selection), message)
        connection.send(protocol.Planned(self.planner.add(connection.number, plan)))

    def _follow(self, connection: Connection, message: protocol.Follow) -> None:
        self.planner.add(connection.number, GivenPlan(self.sources.get(message.digest), message))
        connection.send(Ok())

    def _upcoming(self, connection: Connection, message: protocol.Upcoming) -> None:
        self.planner.append(connection.number, np.frombuffer(message.indices, "<i8"))

    def _stop(self, connection: Connection, message: protocol.Stop) -> None:
        del message
        connection.send(Ok())
        self.stop()

    def stop(self) -> None:
        """End the server's loop."""
        if self.server:
            self.server.stop()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _later(self, work: Callable[[Connection, Any], None]) -> Callable[[Connection, Any], None]:
        """The same in an operation's thread, its errors sent to the client."""

        def run(connection: Connection, message: Any) -> None:
            try:
                work(connection, message)
            except SwingbyError as error:
                connection.fail(error)
            except Exception as error:
                log.exception("%s failed", type(message).__name__)
                connection.fail(KeeperError(f"the keeper failed: {error!r}"))

        return lambda connection, message: (self._operations.submit(run, connection, message), None)[1]

    def _expect(self, answer: Answer) -> Answer:
        with self._answers_lock:
            self._answers.add(answer)
        return answer

    def _tick(self) -> None:
        """Notice deadlines, and pins that are over."""
        assert self.server is not None  # it calls us
        self.pins.expire()
        now = time.monotonic()
        with self._answers_lock:
            late = [answer for answer in self._answers if answer.is_sent or answer.late_at <= now]
            self._answers.difference_update(late)
        for answer in late:
            answer.expire()
        self.server.call_later(TICK_SECONDS, self._tick)

    def _measure(self, source: Source) -> None:
        """Learn how far a file base is, by its own files."""
        base, burst = source.base, self.engine.levels.burst
        if base.is_measured or burst is None:
            return
        manifest = source.manifest
        step = max(1, len(manifest) // 8)
        paths = [os.fsdecode(b"/" + manifest.where(index).key) for index in range(0, len(manifest), step)]
        base.measure(burst.reader, paths, self.control.burst_seconds)

    def _is_busy(self) -> bool:
        return any(not base.pool.is_idle for base in self.engine.bases.all())

    def _each_round(self) -> None:
        self.each_round()


def _refuse(connection: Connection, message: Any, error: SwingbyError) -> None:
    if not isinstance(message, protocol.UNANSWERED):
        connection.fail(error)
