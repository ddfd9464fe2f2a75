"""The lock around writes.

SQLite before 3.51.3 can lose commits when one connection commits while another checkpoints
(https://sqlite.org/wal.html#walresetbug). So whoever writes, checkpoints, opens or closes holds an
exclusive lock on a file beside the database meanwhile, and one connection at a time does any of it.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.errors import StoreBusy

from .faults import translated

_FIRST_PAUSE, _LONGEST_PAUSE = 0.0002, 0.002  #: seconds between two looks


class Gate:
    """An exclusive `flock` on a side file, which is made if need be. Released by the system however its
    holder dies. Raises `StoreError` where the file cannot be opened."""

    def __init__(self, path: Path) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise translated(error, path) from error

    @contextmanager
    def held(self, deadline: float) -> Iterator[None]:
        """Hold the gate; raises `StoreBusy` if it is not free by `deadline` (monotonic seconds)."""
        patiently(self._take, deadline)
        try:
            yield
        finally:
            # Not merely closed: a process forked meanwhile shares the lock.
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _take(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Give the file back."""
        os.close(self._fd)


def patiently(attempt: Callable[[], bool], deadline: float) -> None:
    """Try until it succeeds, at least once; raises `StoreBusy` after `deadline`."""
    pause = _FIRST_PAUSE
    while not attempt():
        left = deadline - time.monotonic()
        if left <= 0:
            raise StoreBusy("another process is writing to the database, and has been for too long")
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, _LONGEST_PAUSE)
