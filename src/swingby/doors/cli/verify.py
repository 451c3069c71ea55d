"""`swingby verify`."""

import json

from swingby import sessions
from swingby.doors.cli.command import Invocation
from swingby.doors.cli.ending import ExitCode
from swingby.doors.cli.quantities import counted, number, size
from swingby.doors.cli.running import follow
from swingby.doors.cli.status import JsonOption
from swingby.doors.cli.waiting import Waiting
from swingby.keeper.protocol import Verify


def verify(invocation: Invocation, as_json: JsonOption = False) -> int:
    """Check every chunk on every level; bad ones are quarantined and fetched again when needed. Exit code 1: there were some."""
    exchange = sessions.session(invocation.settings).client.dedicated()
    with Waiting(invocation.err, "verifying") as waiting:
        facts = follow(
            exchange, Verify(), lambda done: waiting.show(0, done.objects, done.objects_total, in_bytes=False)
        )
    exchange.close()
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        invocation.out.print(
            f"{counted(facts['chunks'], 'chunk')} in {counted(facts['segments'], 'segment')} checked, {size(facts['bytes'])}."
        )
        if facts["bad_chunks"]:
            bad = number(facts["bad_chunks"])
            invocation.out.print(
                f"{bad} bad: their segments are quarantined, and fetched again when they are needed. "
                "Check this machine's disk and memory if it happens again.",
                style="red",
                soft_wrap=True,
            )
    return ExitCode.NO if facts["bad_chunks"] else ExitCode.DONE
