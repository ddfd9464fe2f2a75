"""What each job takes of its process, measured in the child between one job's end and the next's."""

import contextlib
import resource
import sys

from .model import Usage

_SHORT = 0.001  #: seconds; asking the kernel after every shorter run would cost more than it tells
_STALE = 0.005  #: seconds of short runs after which it is asked all the same
_UNIT = 1 if sys.platform == "darwin" else 1024  # getrusage(2), of ru_maxrss


class Meter:
    """Reads the process's clocks and its peak of memory."""

    def __init__(self) -> None:
        self._cpu, self._peak = _read()
        self._unread = 0.0  # seconds of short runs since then

    def lap(self, took: float) -> Usage:
        """What a run of so many seconds has used, which has just ended.

        A short one is taken to have been busy all the time, with the memory that was seen last. The
        kernel keeps one peak a process: it is reset each time (Linux only; proc(5), clear_refs), so
        that what one job took is not said of the next."""
        if took < _SHORT and self._unread < _STALE:
            self._unread += took
            return Usage(self._peak, took)
        cpu, peak = _read()
        used = Usage(peak, max(cpu - self._cpu - self._unread, 0.0))
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "wb") as file:
            file.write(b"5")
        self._cpu, self._peak = _read()
        self._unread = 0.0
        return used


def _read() -> tuple[float, int]:
    """CPU seconds of this process and of the children it has waited for; its peak of memory in bytes."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    others = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime
    return cpu, own.ru_maxrss * _UNIT
