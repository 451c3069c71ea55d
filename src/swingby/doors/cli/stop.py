"""`swingby stop`."""

from swingby.doors.cli.command import Invocation
from swingby.doors.cli.running import Running


def stop(invocation: Invocation) -> None:
    """End the keeper; what it holds stays for the next one."""
    running = Running.find(invocation.settings)
    if running is None:
        invocation.out.print("No keeper runs.")
        return
    running.stop()
    invocation.out.print("The keeper has ended.")
