"""Brings the faults of a job's attempt, and watches its ranks to their end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from swingby.errors import SwingbyError
from swingby.testing.campaign.job import promise, until
from swingby.testing.campaign.rough import DOWN

if TYPE_CHECKING:
    import random

    from swingby.testing.campaign.children import Child, Children
    from swingby.testing.campaign.feeder import Task
    from swingby.testing.campaign.ground import Ground
    from swingby.testing.campaign.schedule import Attempt, Fault
    from swingby.testing.campaign.stock import Stock

ATTEMPT_SECONDS_MAX = 60.0
INTERRUPT_SECONDS_MAX = 20.0  # from Ctrl-C to the end of the process, on a busy machine
GONE_SECONDS_MAX = 10.0  # for plans and processes to end after their owner
READ_SECONDS_MAX = 45.0  # the deadline of a read and more
CHANGED_OBJECTS = 5
LOOK_SECONDS = 0.003
HELPERS = (b"resource_tracker", b"forkserver")  # multiprocessing's own


class Watch:
    """Brings the faults of an attempt, and watches its ranks to their end.

    Args:
        ground, children, stocks: of the round.
        rng: draws on.

    Attributes:
        happened: kinds of faults.
    """

    def __init__(self, ground: Ground, children: Children, stocks: list[Stock], rng: random.Random) -> None:
        self._ground = ground
        self._children = children
        self._stocks = stocks
        self._rng = rng
        self._gone: list[str] = []
        self.happened: set[str] = set()

    def over(self, attempt: Attempt, tasks: list[Task], ranks: list[Child]) -> None:
        """Wait for the end of all ranks; none may hang or leave anything behind."""
        due: dict[int, float] = {}
        done: dict[int, float] = {}
        end = time.monotonic() + ATTEMPT_SECONDS_MAX
        while not all(os.path.exists(task.path("idle")) for task in tasks) and not any(rank.is_over for rank in ranks):
            now = time.monotonic()
            for number, fault in enumerate(attempt.faults):
                want = f"{tasks[fault.rank].path('want')}-{number}"
                if number not in due and os.path.exists(want):
                    due[number] = now + fault.delay_seconds
                if number not in done and due.get(number, end) <= now:
                    done[number] = now
                    if fault.kind == "interrupt":
                        end = min(end, now + INTERRUPT_SECONDS_MAX)
                    self._act(fault, ranks[fault.rank])
                    with open(want + ".done", "w"):
                        pass
            if now > end:
                promise(False, f"A HANG\n{_stacks(ranks)}")
            time.sleep(0.003)
        if any(rank.is_over for rank in ranks):
            self._ended_early(attempt, ranks)
        else:
            seconds = READ_SECONDS_MAX if attempt.has("base down") else GONE_SECONDS_MAX  # threads that read hold them
            until(lambda: self._ground.facts()["plans"], seconds, "A LEAK: plans live on after their loaders")
            for task in tasks:
                with open(task.path("release"), "w"):
                    pass
            for rank in ranks:
                rank.wait(GONE_SECONDS_MAX)
        groups = {rank.number for rank in ranks}
        if tasks[0].schedule.reader != "loader" and "kill rank" in self.happened:
            _end_pytorchs(groups)
        until(lambda: _members_of(groups), GONE_SECONDS_MAX, "A LEAK: processes live on after their job")

    def _ended_early(self, attempt: Attempt, ranks: list[Child]) -> None:
        """A rank was killed or interrupted; the job is restarted, so the others end too."""
        killed = {fault.rank for fault in attempt.faults if fault.kind == "kill rank"}
        interrupted = {fault.rank for fault in attempt.faults if fault.kind == "interrupt"}
        for number, rank in enumerate(ranks):
            if number in interrupted and "interrupt" in self.happened:
                status = rank.ended(INTERRUPT_SECONDS_MAX)
                promise(os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGINT, f"{status}\n{rank.said()}")
                said = rank.said()
                promise(said.count("Traceback") == 1 and said.rstrip().endswith("KeyboardInterrupt"), f"NOISE\n{said}")
            elif rank.is_over:
                status = rank.ended(0.0)
                is_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
                promise(number in killed and is_killed, f"a rank ended with status {status}\n{rank.said()}")
            else:
                rank.kill()

    def _act(self, fault: Fault, rank: Child) -> None:
        """Bring a fault."""
        self.happened.add(fault.kind)
        if fault.kind == "kill rank":
            rank.kill()
        elif fault.kind == "interrupt":
            os.killpg(rank.number, signal.SIGINT)
        elif fault.kind == "kill worker":
            for number in self._rng.sample(
                workers := _members_of({rank.number}, but=rank.number), min(1, len(workers))
            ):
                os.kill(number, signal.SIGKILL)
        elif fault.kind == "kill keeper":
            self._ground.kill_keeper()
        elif fault.kind == "change" and not self._gone:
            for stock in self._stocks:
                stock.change(self._rng, CHANGED_OBJECTS)
            self._children.run(self._look_again, ATTEMPT_SECONDS_MAX)
        elif fault.kind == "vanish":
            folder = self._rng.choice(self._stocks).member.folder
            self._gone.append(folder)
            os.rename(folder, folder + ".gone")
        elif fault.kind == "base down":
            with open(self._ground.settings.home + DOWN, "w"):
                pass

    def _look_again(self) -> None:
        """Another process finds the changes, and reads them."""
        with (
            contextlib.suppress(SwingbyError)
            if os.path.exists(self._ground.settings.home + DOWN)
            else contextlib.nullcontext()
        ):
            for stock in self._stocks:
                dataset = stock.member.open(self._ground.settings, refresh="always")
                dataset.batch(range(0, len(dataset), 2))

    def mend(self) -> None:
        """Bases come back."""
        for folder in self._gone:
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(folder + ".gone", folder)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._ground.settings.home + DOWN)


def _end_pytorchs(groups: set[int]) -> None:
    """PyTorch's workers of a rank that was killed look for it every 5 s, and those that had just begun never do."""
    for number in _members_of(groups):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def _members_of(groups: set[int], but: int = 0) -> list[int]:
    """Processes of process groups, zombies too unless nobody is left to reap them."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != but:
            with (
                contextlib.suppress(OSError),
                open(f"/proc/{name}/stat") as file,
                open(f"/proc/{name}/cmdline", "rb") as said,
            ):
                state, parent, group = file.read().rpartition(")")[2].split()[:3]
                is_orphan = state == "Z" and parent == "1"
                if int(group) in groups and not is_orphan and not any(one in said.read() for one in HELPERS if but):
                    found.append(int(name))
    return found


def _stacks(ranks: list[Child]) -> str:
    """What ranks and their workers are doing."""
    for rank in ranks:
        with contextlib.suppress(ProcessLookupError):
            if not rank.is_over:
                os.kill(rank.number, signal.SIGUSR2)
    time.sleep(0.5)
    found = [f"-- rank {rank.number}, {'over' if rank.is_over else 'alive'}\n{rank.said()[-3000:]}" for rank in ranks]
    if shutil.which("py-spy"):
        for number in _members_of({rank.number for rank in ranks}):
            dump = subprocess.run(
                ["py-spy", "dump", "--pid", str(number)], capture_output=True, check=False, timeout=20
            )
            found.append(dump.stdout.decode(errors="replace"))
    return "\n".join(found)
