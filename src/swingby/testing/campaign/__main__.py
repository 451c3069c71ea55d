"""`python -m swingby.testing.campaign [PART…] --seed N --count N --small`: exit code 1 on any failure."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from swingby.testing.campaign import bases, feeding, flips, forks, fuzz, kills, places, power, remains
from swingby.testing.campaign.ground import ROOT, SHARED_MEMORY
from swingby.testing.campaign.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Part(NamedTuple):
    """One part of the campaign.

    Attributes:
        run: does it.
        full, small: steps of a full and of a small run.
        what: a step is.
    """

    run: Callable[[Job], None]
    full: int
    small: int
    what: str


PARTS = {
    "kills": Part(kills.run, 1000, 12, "a SIGKILL of keeper or client"),
    "flips": Part(flips.run, 2000, 12, "a flipped bit"),
    "power": Part(power.run, 200, 4, "a power cut"),
    "bases": Part(bases.run, 100, 5, "a base that fails in one way"),
    "fuzz": Part(fuzz.run, 500, 20, "an attack at the socket"),
    "places": Part(places.run, 100, 10, "a bad place for a home or level"),
    "feeding": Part(feeding.run, 500, 8, "a job that is fed while everything around it fails"),
    "forks": Part(forks.run, 50, 1, "a storm of 20 forked and 2 spawned children"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts that are asked for; the exit code."""
    asked = _parse(arguments)
    remains.remove_dead()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        results = [_run(name, asked) for name in asked.part or PARTS]
    finally:
        for root in (ROOT, SHARED_MEMORY):
            remains.remove(os.path.join(root, f"{remains.PREFIX}{os.getpid()}"))
    if asked.json:
        print(json.dumps(results, indent=1))
    return 1 if any(result["failures"] for result in results) else 0


def _run(name: str, asked: argparse.Namespace) -> dict[str, object]:
    part = PARTS[name]
    count = asked.count or (part.small if asked.small else part.full)
    first = asked.step or 0
    last = first + (asked.count or 1) if asked.step is not None else count
    job = Job(name, asked.seed, range(first, last))
    started = time.monotonic()
    part.run(job)
    seconds = time.monotonic() - started
    for failure in job.failures:
        print(f"\nFAILED {name} --seed {failure.seed} --step {failure.step}\n{failure.what}", file=sys.stderr)
    for reason in job.skipped:
        print(f"skipped in {name}: {reason}", file=sys.stderr)
    print(f"{name}: {dict(job.counts)} in {seconds:.0f} s, {len(job.failures)} failures", file=sys.stderr)
    failures = [failure._asdict() for failure in job.failures]
    return {"part": name, "seconds": seconds, "counts": job.counts, "failures": failures, "skipped": job.skipped}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m swingby.testing.campaign", description=__doc__)
    parser.add_argument("part", nargs="*", choices=[[], *PARTS], help="parts to run; all without one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", "--rounds", type=int, help="steps of each part")
    parser.add_argument(
        "--step", "--round", type=int, help="only this step, or `count` from it on, with its round from the beginning"
    )
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
