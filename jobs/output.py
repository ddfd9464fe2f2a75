"""What a child process writes: stdout and stderr go into one pipe, which the service cuts into the
logs of its jobs.

The service must not take one job's bytes for another's, nor a job wait until they have been read. So
where a job has ended and something is still unread, a mark is written behind it, after a frame that
says so: until that frame, all that is in the pipe is the running job's. A job that wrote nothing
costs one look.
"""

import contextlib
import faulthandler
import fcntl
import io
import logging
import os
import sys
import termios

from .channel import Channel
from .processes import LINUX

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_NONE = bytes(4)


class Output:
    """This process's end of the pipe, and the mark that the service will look for."""

    def __init__(self, pipe: int, mark: bytes) -> None:
        self._pipe, self._mark = pipe, mark

    def take_over(self) -> None:
        """From here on the process's stdout and stderr go into the pipe, a line at a time, as UTF-8; so
        does the traceback of a crash, unless the app has other plans for it."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                with contextlib.suppress(OSError, ValueError):  # the app has closed it
                    stream.reconfigure(
                        encoding="utf-8", errors="backslashreplace", line_buffering=True
                    )
        os.dup2(self._pipe, 1)
        os.dup2(self._pipe, 2)
        if not faulthandler.is_enabled():
            faulthandler.enable(2)

    def mark(self, channel: Channel) -> bool:
        """The running job is over: mark the end of what it wrote, unless all has been read."""
        # Elsewhere than on Linux the writing end does not know.
        if LINUX and fcntl.ioctl(self._pipe, termios.FIONREAD, _NONE) == _NONE:
            return False
        channel.announce_mark()
        os.set_blocking(self._pipe, True)  # a job may have changed that for all who write here
        os.write(self._pipe, self._mark)
        return True

    def close(self) -> None:
        """In a process that a job has forked: marks are not its to write."""
        os.close(self._pipe)


def unread(pipe: int) -> int:
    """How many bytes are in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, _NONE), sys.byteorder)


def log_to_stderr() -> None:
    """Have log records, from INFO on, written to stderr if nobody else writes them anywhere.

    For after the app's import. An app that has configured logging keeps what it has."""
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_FORMAT))
    handler.addFilter(_unhandled)
    root.addHandler(handler)
    if root.level == logging.WARNING:  # what it is before anybody sets it
        root.setLevel(logging.INFO)


def _unhandled(record: logging.LogRecord) -> bool:
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None and logger.parent is not None:
        if logger.handlers:
            return False
        logger = logger.parent
    return True
