"""How often a client may ask: the generic cell rate algorithm (ITU-T I.371)."""

import re
from collections.abc import Hashable
from typing import NamedTuple

SECOND = 1_000_000_000
_PERIODS = {"s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND}


class Verdict(NamedTuple):
    """Whether a request is admitted. Times are in nanoseconds."""

    admitted: bool
    remaining: int  #: how many more would be admitted now
    wait: int  #: until the next is admitted
    full: int  #: until the whole burst is there again


class RateLimiter:
    """Admits each client `burst` requests at once, and `rate` in the long run.

    In any time t a client is admitted at most burst + rate · t requests, and one that keeps to the
    rate is never refused. A client is one number: when it would have used up all that it was
    admitted. So that strangers cannot fill the memory, the one longest unseen is forgotten when
    there are more than `clients`.

    Args:
        rate: requests per second, minute or hour: "100/s", "600/m", "50/h".
        burst: default: as many as the rate's own number.
    """

    def __init__(self, rate: str, burst: int | None = None, *, clients: int = 10_000) -> None:
        match = re.fullmatch(r"([1-9][0-9]*)/([smh])", rate)
        if match is None:
            raise ValueError(f"{rate!r}: expected a rate such as 100/s, 600/m or 50/h")
        # Time is counted in parts of a nanosecond, `_scale` each: so all sums are exact.
        self._scale, self._interval = int(match[1]), _PERIODS[match[2]]
        self.burst = burst or self._scale
        self._clients = clients
        self._used_until: dict[Hashable, int] = {}

    @property
    def window(self) -> int:
        """The time in which a whole burst comes back."""
        return self._nanoseconds(self.burst * self._interval)

    def admit(self, client: Hashable, now: int) -> Verdict:
        """Judge one request. `now` is in nanoseconds, of a clock that does not go back."""
        here = now * self._scale
        used_until = max(self._used_until.pop(client, here), here)
        after = used_until + self._interval
        left = here + self.burst * self._interval - after
        admitted = left >= 0
        if admitted:
            used_until = after
        else:
            left += self._interval
        self._used_until[client] = used_until  # last: the first is the one longest unseen
        if len(self._used_until) > self._clients:
            del self._used_until[next(iter(self._used_until))]
        return Verdict(
            admitted,
            left // self._interval,
            self._nanoseconds(max(0, self._interval - left)),
            self._nanoseconds(used_until - here),
        )

    def give_back(self, client: Hashable) -> None:
        """Undo one admission: it was someone else's."""
        if client in self._used_until:
            self._used_until[client] -= self._interval

    def _nanoseconds(self, parts: int) -> int:
        return -(-parts // self._scale)
