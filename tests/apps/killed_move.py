"""`quart-jobs move …`, killed again and again: `killed_move.py POINT,… move …`. A POINT is `before` or `after`, and
the name of a step: `after:Source.hold`. A process dies at each, one after another; the last goes to the end."""

import os
import signal
import sys
from typing import Any

from jobs.stores.moving.source import Source
from jobs.stores.postgres.destination import Destination
from service.cli import main


def kill_at(point: str) -> None:
    """SIGKILL when the step is about to be taken, or has been."""
    when, _, step = point.partition(":")
    side, _, name = step.partition(".")
    owner: Any = {"Source": Source, "Destination": Destination}[side]
    inner = getattr(owner, name)

    def outer(*args: Any, **kwargs: Any) -> Any:
        if when == "after":
            inner(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, outer)


if __name__ == "__main__":
    for point in sys.argv.pop(1).split(","):
        if not (pid := os.fork()):
            kill_at(point)
            main()
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            sys.exit(f"nobody came by {point}")
        print("killed", point, flush=True)
    main()
