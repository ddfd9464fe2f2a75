"""The service's end of a lane's side channel."""

import asyncio
import os
import struct
from collections.abc import Callable

from jobs import wire

_READ = 262_144
_GATHER = 0.001  #: seconds between two looks while many short jobs are under way


class LaneChannel:
    """Frames from and to a child, over the non-blocking socket `fd`.

    `take(kind, serial, payload)` gets each frame, `taken()` is called after some, `lost(how)` when the
    child's end has been closed or spoke nonsense, once. While `busy()`, reads are a little apart, so
    that each brings more.
    """

    def __init__(
        self,
        fd: int,
        limit: int,
        *,
        take: Callable[[int, int, bytes], None],
        taken: Callable[[], None],
        lost: Callable[[str], None],
        busy: Callable[[], bool],
    ) -> None:
        self._fd = fd
        self._frames = wire.FrameReader(limit)
        self._take, self._taken, self._lost, self._busy = take, taken, lost, busy
        self._loop = asyncio.get_running_loop()
        self._unsent = bytearray()
        self._later: asyncio.TimerHandle | None = None
        self._open = True
        self._loop.add_reader(fd, self.read)

    def read(self) -> None:
        """Take all that has come."""
        while self._open:
            try:
                data = os.read(self._fd, _READ)
                if not data:
                    self._end("closed its channel to the service")
                    break
                for kind, serial, payload in self._frames.feed(data):
                    self._take(kind, serial, payload)
            except BlockingIOError:
                break
            except OSError:
                self._end("closed its channel to the service")
            except (wire.BrokenFrame, ValueError, TypeError, struct.error) as error:
                self._end(f"wrote nonsense to the service ({error})")
            else:
                if len(data) < _READ:
                    break
        if self._open and self._later is None and self._busy():
            self._loop.remove_reader(self._fd)
            self._later = self._loop.call_later(_GATHER, self._look_again)
        self._taken()

    def _look_again(self) -> None:
        self._later = None
        self._loop.add_reader(self._fd, self.read)
        self.read()

    def _end(self, how: str) -> None:
        self.close()
        self._lost(how)

    def send(self, frame: bytes) -> None:
        """Send a frame, now or as soon as the child reads on."""
        if not self._open:
            return
        waiting = bool(self._unsent)
        self._unsent += frame
        if not waiting:
            self._write()
            if self._unsent:
                self._loop.add_writer(self._fd, self._write)

    def _write(self) -> None:
        try:
            del self._unsent[: os.write(self._fd, self._unsent)]
        except BlockingIOError:
            return
        except OSError:  # the child is gone, as `read` will see
            self._unsent.clear()
        if not self._unsent:
            self._loop.remove_writer(self._fd)

    def close(self) -> None:
        """Neither read nor write any more."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            if self._later is not None:
                self._later.cancel()
