"""Worker processes that decode. A worker opens the dataset itself and maps the same memory: indices travel, bytes do not.

Each belongs to one thread of the crew, which sends it indices and takes decoded samples one by one. The method of starting is
multiprocessing's own (`multiprocessing.set_start_method`).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
import time
from collections import deque
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

import numpy as np

from swingby.data.crew import replace_late
from swingby.errors import BadSampleError

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from swingby.data.account import Span
    from swingby.data.crew import Part, Pending
    from swingby.data.work import BadSample, Work

READS_KEPT = 64  # as far back as a wait may reach
DEATHS_MAX = 3  # of workers over one sample, which is bad then
JOIN_SECONDS = 5.0
LOOK_SECONDS = 0.5  # for a death that no closed pipe tells of, because another child inherited its end

_starting = threading.Lock()  # a child that is forked meanwhile would hold the ends of pipes that belong to another


class ProcessHand:
    """Decodes in a process of its own.

    Args:
        work: what is done; pickled unless processes are forked.
        seconds_max: for a sample; None: any time.
    """

    def __init__(self, work: Work, seconds_max: float | None) -> None:
        self._work = work
        self._seconds_max = seconds_max
        self._worker: tuple[BaseProcess, Connection] | None = None
        self._reads: deque[Span] = deque(maxlen=READS_KEPT)

    def decode(self, pending: Pending, part: Part) -> None:
        """See `Hand`."""
        deaths = 0
        while part:
            before = len(part)
            try:
                part = self._exchange(pending, part)
            except (EOFError, OSError):
                position, index = part[0]
                deaths = deaths + 1 if len(part) == before else 1
                self._end()
                if deaths >= DEATHS_MAX:
                    self._give_up(pending, position, index)
                    part, deaths = part[1:], 0

    def close(self) -> None:
        """See `Hand`."""
        self._end()

    def _exchange(self, pending: Pending, part: Part) -> Part:
        """Have a worker decode; what it has not done is returned, or left to the caller when it dies."""
        process, pipe = self._worker or self._start()
        pipe.send([index for _, index in part])
        while part:
            if not _answers(process, pipe, self._seconds_max):
                self._end()
                replace_late(self._work, pending, part[0], self._seconds_max or 0.0)
                return part[1:]
            value, bad, error, span = pipe.recv()
            if span is not None:
                self._reads.append(span)
                pending.spans.append(span)
            pending.last_reads = self._reads
            if error is not None:  # not raised: a base's errors are OSErrors too, as a dead worker's are
                pending.failed(error)
                return []
            position, _ = part.pop(0)
            pending.done(position, value, bad)
        return part

    def _give_up(self, pending: Pending, position: int, index: int) -> None:
        reason = "its decoding ended the worker process"
        if self._work.replaces:
            pending.done(position, *self._work.replace(index, reason))
            return
        key = self._work.dataset.keys[index]
        raise BadSampleError(f"{key}: {reason}, {DEATHS_MAX} times", key=key)

    def _start(self) -> tuple[BaseProcess, Connection]:
        with _starting:
            mine, its = multiprocessing.Pipe()
            process = multiprocessing.Process(target=_serve, args=(its, self._work), name="swingby-decode", daemon=True)
            process.start()
            its.close()
        self._worker = process, mine
        return self._worker

    def _end(self) -> None:
        worker, self._worker = self._worker, None
        if worker:
            process, pipe = worker
            pipe.close()
            process.kill()
            process.join(JOIN_SECONDS)
            with contextlib.suppress(ValueError):  # it did not end in time; it is a daemon, and ends with us
                process.close()


def _answers(process: BaseProcess, pipe: Connection, seconds_max: float | None) -> bool:
    """Wait for a worker's next message; False when its time is over.

    Raises:
        EOFError: it is dead, and everything it sent was received.
    """
    until = None if seconds_max is None else time.monotonic() + seconds_max
    while True:
        left = LOOK_SECONDS if until is None else min(LOOK_SECONDS, until - time.monotonic())
        was_alive = process.is_alive()  # asked first: what it sent before its death is there by then
        if pipe.poll(max(0.0, left) if was_alive else 0.0):
            return True
        if not was_alive:
            raise EOFError
        if until is not None and time.monotonic() >= until:
            return False


def _serve(pipe: Connection, work: Work) -> None:
    """A worker's life: as long as its parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker
    while pipe in wait([pipe, parent.sentinel]):
        try:
            indices = pipe.recv()
        except EOFError:
            return
        try:
            batch, bad, read = work.read_timed(np.array(indices))
            span: Span | None = read
            for index, sample in zip(batch.indices.tolist(), batch, strict=True):
                value, more = work.decode(index, sample)
                pipe.send_bytes(_packed(work, index, (value, bad + more), span))
                bad, span = [], None
        except (BrokenPipeError, ConnectionResetError):  # nobody listens any more
            return
        except Exception as error:
            _send_error(pipe, error)


def _packed(work: Work, index: int, decoded: tuple[Any, list[BadSample]], span: Span | None) -> memoryview:
    """A decoded sample for the pipe; one that cannot be pickled is as bad as one that cannot be decoded.

    Raises:
        BadSampleError: it is not replaced.
    """
    value, bad = decoded
    try:
        return ForkingPickler.dumps((value, bad, None, span))
    except Exception as error:  # whatever a class of the user's raises
        reason = f"what decode returned cannot go to another process: {error}"
    if not work.replaces:
        key = work.dataset.keys[index]
        raise BadSampleError(f"{key}: {reason}", key=key, remedy="Return plain values or arrays, or decode in threads")
    value, more = work.replace(index, reason)
    return ForkingPickler.dumps((value, bad + more, None, span))


def _send_error(pipe: Connection, error: Exception) -> None:
    try:
        packed = ForkingPickler.dumps((None, [], error, None))
    except Exception:  # a class of the user's
        packed = ForkingPickler.dumps(
            (None, [], BadSampleError(f"decode raised {error!r}, which cannot be pickled"), None)
        )
    with contextlib.suppress(OSError):
        pipe.send_bytes(packed)
