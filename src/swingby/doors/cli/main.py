"""The entry point: `swingby`.

It loads little itself, so that Ctrl-C ends a command quietly even while its modules are loaded.
"""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

INTERRUPTED = 128 + signal.SIGINT


def main() -> NoReturn:
    """Run the command line and exit; no traceback reaches the user unless --debug asks for it."""
    before = signal.signal(signal.SIGINT, _leave)
    from swingby.doors.cli import application, ending

    arguments = sys.argv[1:]
    try:
        signal.signal(signal.SIGINT, before)
        ending.prepare()
        code = application.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        ending.be_quiet()
        code = ending.ExitCode.DONE
    except (Exception, KeyboardInterrupt, ending.Terminated) as error:
        code = ending.report(error, debug="--debug" in arguments)
    if code in {ending.ExitCode.INTERRUPTED, ending.ExitCode.TERMINATED}:
        ending.leave(code)
    sys.exit(code)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """Nothing was begun yet."""
    del number, frame
    os._exit(INTERRUPTED)
