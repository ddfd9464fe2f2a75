"""A Flask app is not told when a server starts or ends: what is to be open while it serves opens with
the first request.

So nothing opens where the app is only imported: in a server's parent process that forks its workers
later, in a reloader, in a command, in a child process that runs jobs.
"""

import concurrent.futures.thread  # noqa: F401 - what closing uses has to end later than what closes
import contextlib
import threading
from typing import TYPE_CHECKING, Any

from flask import Flask, request_started

from jobs import current

if TYPE_CHECKING:
    from . import Openable


def open_with(app: Flask, jobs: "Openable") -> None:
    """Open `jobs` with the first request that a process serves; close it before the process ends."""
    first = _FirstRequest(jobs)
    request_started.connect(first.begin, app, weak=False)


class _FirstRequest:
    def __init__(self, jobs: "Openable") -> None:
        self._jobs = jobs
        self._lock = threading.Lock()
        self._ended = False

    def begin(self, *_: Any, **__: Any) -> None:
        if self._jobs.is_open or current.in_child or self._ended:
            return
        with self._lock:
            if self._jobs.is_open:
                return
            # Not `atexit`: that waits for all threads, and the store's end only when it is closed.
            threading._register_atexit(self._end)  # type: ignore[attr-defined]  # noqa: SLF001
            self._jobs.__enter__()

    def _end(self) -> None:
        self._ended = True
        if not self._jobs.is_open:
            return
        # Another thread, as a server that is told twice to stop raises SystemExit once more, in this one.
        closing = threading.Thread(target=self._jobs.__exit__, args=(None, None, None))
        closing.start()
        while closing.is_alive():
            with contextlib.suppress(SystemExit):
                closing.join()
