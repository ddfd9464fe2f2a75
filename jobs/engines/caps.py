"""Helps a job that has reached its memory cap to fail by itself."""

from jobs import memory

_STILL = 0.5  #: seconds at the cap without a change: Python may be unable to unwind
_RELIEFS = 8  #: times that it is helped
_STUCK = 10.0  #: seconds after which help is seen to be in vain


class CapWatch:
    """Looks, from the service, at a job with a memory cap.

    CPython up to 3.13 goes round for ever, with the GIL held, where it has not even the memory for the small
    number that unwinding to an exception handler needs (`exception_unwind` in ceval.c). A little more memory
    lets it go on; more than a little would be no cap.
    """

    def __init__(self) -> None:
        self._used = 0
        self._since = 0.0
        self._reliefs = 0

    def is_stuck(self, pid: int, now: float) -> bool:
        """Whether the process cannot go on, although it has been helped; `now` is monotonic."""
        used = memory.used_at_cap(pid)
        if used != self._used:
            self._used, self._since = used, now
        if not used or now - self._since < _STILL:
            return False
        if self._reliefs < _RELIEFS:
            self._reliefs += 1
            self._since = now
            memory.relieve(pid)
            return False
        return now - self._since > _STUCK
