"""The service's end of the pipe with what a lane's process writes, cut into the logs of its jobs.

`jobs.output` says how the child helps. The rest is order: what has been seen in the pipe is taken out
only after all frames have been read, and only if nobody has taken anything meanwhile. Then the job
that runs, as far as the frames tell, has written it: its end would have been announced before the
mark, and the next one's beginning before its first byte.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable

from jobs.output import unread

from .job_log import JobLog

PIPE_BYTES = 1_048_576  #: what the pipe holds, and so all that can be found in it at once
_LITTLE = 16_384  #: bytes; where no more has come, the next look is put off, so that it brings more
_GATHER = 0.001  #: seconds
_PIECE = 65_536  #: bytes of what no job has written that are passed on at once


class LaneOutput:
    """Reads the pipe `fd` (non-blocking; None: nothing is captured).

    `mark` ends a job's output, of which `cap` bytes are kept. `catch_up()` has all frames taken that
    have come; of these `begin`, `mark_follows` and `end` tell. What is written while no job runs goes
    to this process's stderr.
    """

    def __init__(
        self, fd: int | None, mark: bytes, cap: int, *, catch_up: Callable[[], None]
    ) -> None:
        self._fd, self._mark, self._cap, self._catch_up = fd, mark, cap, catch_up
        self._in_job = False
        self._log: JobLog | None = None
        self._marking = False  # the mark is in the pipe, or soon will be
        self._ahead = b""  # what was read along, from behind a mark
        self._pulls = 0
        self._null: int | None = None
        self._loop = asyncio.get_running_loop()
        self._later: asyncio.TimerHandle | None = None
        self._look()

    def settle(self) -> None:
        """The process is ready for its first job: what there is, was written as it was made."""
        if self._fd is not None:
            self._put(self._pull(PIPE_BYTES))

    # --- as the frames tell

    def begin(self) -> None:
        """A job begins: what is written from now on is its."""
        self._in_job = True

    def mark_follows(self) -> None:
        """The job is over, and the child about to mark the end of what it wrote."""
        self._marking = True

    def end(self, *, marked: bool) -> str | None:
        """The job has ended: what it wrote, if anything."""
        if marked:
            if self._marking:
                self._take_to_mark()
        elif self._ahead:
            self._take_ahead()
        self._in_job = False
        log, self._log = self._log, None
        return None if log is None else log.text()

    def fresh_lines(self) -> str:
        """The lines that the running job has written since the last call, as far as they have been read."""
        return "" if self._log is None else self._log.fresh_lines()

    def close(self) -> str | None:
        """The process has ended: what the job wrote, if anything, that it ran."""
        if self._fd is None:
            return None
        self._loop.remove_reader(self._fd)
        if self._later is not None:
            self._later.cancel()
        if self._marking:
            self._take_to_mark()
        self._take_ahead()
        self._put(self._pull(PIPE_BYTES))
        if self._null is not None:
            os.close(self._null)
        return self.end(marked=False)

    # --- the pipe

    def _look(self) -> None:
        self._later = None
        if self._fd is not None:
            self._loop.add_reader(self._fd, self._read)

    def _read(self) -> None:
        """The pipe has something, or its other end has been closed, which the process's end will tell."""
        assert self._fd is not None
        waiting, pulls = unread(self._fd), self._pulls
        if waiting < _LITTLE:
            self._loop.remove_reader(self._fd)
            self._later = self._loop.call_later(_GATHER, self._look)
        self._catch_up()
        if pulls != self._pulls:
            return  # and come again: what is there now may be another job's
        if self._marking:
            self._take_to_mark()
            return
        self._take_ahead()
        if not waiting:
            return
        if self._in_job and self._log is None:
            self._log = JobLog(self._cap)
        if self._log is None:
            self._put(self._pull(min(waiting, _PIECE)))
        elif self._log.room:
            self._put(self._pull(min(waiting, self._log.room)))
        else:
            self._skip(waiting - self._log.tail_bytes, self._log)
            self._put(self._pull(min(waiting, self._log.tail_bytes)))

    def _take_to_mark(self) -> None:
        """All that is there up to the mark. Behind it the next job's output may have begun."""
        before, found, ahead = self._ahead.partition(self._mark)
        if not found:
            self._put(before)
            before, found, ahead = self._pull(PIPE_BYTES).partition(self._mark)
        self._put(before)
        self._ahead = ahead
        self._marking = not found

    def _take_ahead(self) -> None:
        ahead, self._ahead = self._ahead, b""
        self._put(ahead)

    def _put(self, data: bytes) -> None:
        if not data:
            return
        if self._in_job:
            if self._log is None:
                self._log = JobLog(self._cap)
            self._log.add(data)
        else:
            with contextlib.suppress(OSError, ValueError):  # there may be none
                print(data.decode(errors="replace"), end="", file=sys.stderr, flush=True)

    def _pull(self, most: int) -> bytes:
        assert self._fd is not None
        self._pulls += 1
        try:
            return os.read(self._fd, most)
        except BlockingIOError:
            return b""

    def _skip(self, count: int, log: JobLog) -> None:
        """Take bytes out of the pipe without looking at them: they need not even be copied."""
        if count <= 0:
            return
        if sys.platform == "linux":
            assert self._fd is not None
            if self._null is None:
                self._null = os.open(os.devnull, os.O_WRONLY)
            log.leave_out(os.splice(self._fd, self._null, count, flags=os.SPLICE_F_NONBLOCK))
        else:
            log.leave_out(len(self._pull(count)))
