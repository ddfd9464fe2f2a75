"""Disk space kept back, so that a full disk can still record how jobs ended.

SQLite needs space even to delete. The ballast is given up when the disk is full, and made again when
there is room; in between nothing new is taken, so that the space serves what is under way.
"""

import errno
import logging
import os
import time
from pathlib import Path

log = logging.getLogger("jobs.store")

_LOOK_EVERY = 1.0  #: seconds between looks for room to make it again
_CHUNK = 1 << 20
_ROOM = 2  #: times its size must be free, or the next write would have to give it up again


class Ballast:
    """A file of `size` bytes, or none if that is 0, shared by all processes on a database.

    The file is the state: each method is called under the gate only."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size
        self._look_at = 0.0
        self._was_whole = True

    @property
    def due(self) -> bool:
        """Whether it is missing, and worth a `tend`. Needs no gate."""
        return time.monotonic() >= self._look_at and not self._is_whole()

    def tend(self) -> bool:
        """Whether it is there; makes it if it is not and there is room."""
        whole = self._is_whole()
        if not whole and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_EVERY
            self._make()
            whole = self._is_whole()
        return self._noted(whole)

    def spend(self) -> bool:
        """Give the space up; whether there was any."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        self._look_at = time.monotonic() + _LOOK_EVERY
        self._noted(self._is_whole())
        return True

    def _is_whole(self) -> bool:
        try:
            return not self._size or os.stat(self._path).st_size >= self._size
        except FileNotFoundError:
            return False

    def _make(self) -> None:
        if room(self._path.parent) < _ROOM * self._size:
            return
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                _allocate(fd, self._size)
            finally:
                os.close(fd)
        except OSError as error:
            self._path.unlink(missing_ok=True)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                log.error("%s, which keeps disk space back, cannot be made: %s", self._path, error)

    def _noted(self, whole: bool) -> bool:
        if whole and not self._was_whole:
            log.warning("there is room on the disk of %s again: going on", self._path.parent)
        elif not whole and self._was_whole:
            log.error(
                "the disk of %s is full: what is left serves the jobs that run now, and no job is taken or"
                " begun until %d MiB are free",
                self._path.parent,
                _ROOM * self._size >> 20,
            )
        self._was_whole = whole
        return whole


def room(folder: Path) -> int:
    """Bytes that this user may still write there."""
    system = os.statvfs(folder)
    return system.f_bavail * system.f_frsize


def _allocate(fd: int, size: int) -> None:
    try:
        os.posix_fallocate(fd, 0, size)
    except (AttributeError, OSError) as error:
        # macOS has no such call, and some file systems refuse it: zeros that are written take space, too.
        if getattr(error, "errno", errno.EOPNOTSUPP) not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        for offset in range(0, size, _CHUNK):
            os.pwrite(fd, bytes(min(_CHUNK, size - offset)), offset)
