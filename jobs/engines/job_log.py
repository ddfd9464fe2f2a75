"""What a job wrote, within bounds: its beginning and its end."""

_TAIL = 65_536  #: bytes of the end, at most half of all


class JobLog:
    """Keeps the first and the last of the bytes that were written, `cap` in all."""

    def __init__(self, cap: int) -> None:
        self.tail_bytes = min(cap // 2, _TAIL)
        self._head_bytes = cap - self.tail_bytes
        self._head, self._tail = bytearray(), bytearray()
        self._written = 0
        self._told = 0  # of the head

    @property
    def room(self) -> int:
        """How many more bytes are kept whatever follows them."""
        return self._head_bytes - len(self._head)

    def add(self, data: bytes) -> None:
        """These were written."""
        self._written += len(data)
        room = self.room
        self._head += data[:room]
        last = max(len(data) - self.tail_bytes, room)
        self._tail += data[last:]
        del self._tail[: max(len(self._tail) - self.tail_bytes, 0)]

    def leave_out(self, count: int) -> None:
        """So many were written that nobody has looked at. For when there is no more `room`."""
        self._written += count
        self._tail.clear()

    def fresh_lines(self) -> str:
        """The whole lines that have come to the beginning since the last call; of the end there are none."""
        cut = max(self._head.rfind(b"\n", self._told), self._head.rfind(b"\r", self._told)) + 1
        if not cut:
            return ""
        fresh, self._told = self._head[self._told : cut], cut
        return _readable(fresh)

    def text(self) -> str:
        """As text that any store can hold."""
        left_out = self._written - len(self._head) - len(self._tail)
        if not left_out:
            return _readable(self._head + self._tail)
        return f"{_readable(self._head)}\n… {left_out} bytes left out …\n{_readable(self._tail)}"


def _readable(data: bytearray) -> str:
    return data.decode(errors="replace").replace("\0", "\ufffd")
