"""`quart-jobs move …`, killed at a point of its way: `killed_move.py POINT move …`, where POINT is `before` or
`after`, and the name of a step: `after:Source.hold`."""

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
    kill_at(sys.argv.pop(1))
    main()
