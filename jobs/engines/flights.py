"""The invocations that a lane has, in the order they run, and how many more it should have."""

from collections.abc import Iterator, Sequence

from jobs.model import Invocation, JobId
from jobs.protocols import Interrupt

from .caps import CapWatch
from .pace import BUDGET, Pace

MOST = 64  #: jobs at once in a lane
_SUBMISSIONS = 2  #: batches at once: the next is there when one ends


class Flight:
    """An invocation in a lane."""

    __slots__ = (
        "began",
        "cap",
        "cost",
        "invocation",
        "kill_at",
        "log",
        "pid",
        "spared",
        "started_at",
        "why",
        "withdrawing",
    )

    def __init__(self, invocation: Invocation, cost: float) -> None:
        self.invocation = invocation
        self.cost = cost  #: seconds that it is expected to take
        self.pid = 0  #: of the process that has begun it
        self.log: str | None = None  #: what it wrote, once it has ended
        self.started_at = 0  #: wall clock, ms
        self.began = 0.0  #: this process's monotonic clock; what deadlines count from
        self.why: Interrupt | None = None
        self.kill_at: float | None = None
        self.withdrawing = False
        self.cap = CapWatch() if invocation.max_memory_mb else None
        self.spared = False  #: not to be charged for the death of its child


class Flights:
    """Flights by serial number."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._flights: dict[int, Flight] = {}
        self._next = 1
        self._batch_ends: list[int] = []  # the last serial of each batch that is not over
        self.expected = 0.0  #: seconds of work

    def __len__(self) -> int:
        return len(self._flights)

    def items(self) -> Iterator[tuple[int, Flight]]:
        """Serial and flight of each, as of now."""
        return iter(list(self._flights.items()))

    def get(self, serial: int) -> Flight | None:
        """The flight with this serial."""
        return self._flights.get(serial)

    def find(self, job_id: JobId) -> tuple[int, Flight] | None:
        """Serial and flight of a job."""
        return next((each for each in self.items() if each[1].invocation.job_id == job_id), None)

    def add(self, batch: Sequence[Invocation]) -> int:
        """Take a batch; returns the serial of its first."""
        first = self._next
        for invocation in batch:
            cost = self._pace.expect(invocation.task)
            self._flights[self._next] = Flight(invocation, cost)
            self.expected += cost
            self._next += 1
        self._batch_ends.append(self._next - 1)
        return first

    def remove(self, serial: int) -> Flight | None:
        """It has ended, or been given back."""
        flight = self._flights.pop(serial, None)
        if flight is not None:
            self.expected = self.expected - flight.cost if self._flights else 0.0
            first = next(iter(self._flights), self._next)
            while self._batch_ends and self._batch_ends[0] < first:
                del self._batch_ends[0]
        return flight

    def is_slow(self, flight: Flight) -> None:
        """It takes longer than was thought: count the lane as full."""
        self.expected += BUDGET - flight.cost
        flight.cost = BUDGET

    @property
    def may_follow(self) -> bool:
        """Whether another batch is worth its while: an idle lane's always, and one to follow."""
        return not self._flights or (
            len(self._batch_ends) < _SUBMISSIONS
            and len(self._flights) <= MOST // 2
            and self.expected < BUDGET / 2
        )

    @property
    def room(self) -> int:
        """How many more invocations of the usual kind should come now."""
        if not self.may_follow:
            return 0
        fit = int((BUDGET - self.expected) / self._pace.typical)
        return max(min(MOST - len(self._flights), fit), 0 if self._flights else 1)


def fits(cost: float, expected: float, jobs: int) -> bool:
    """Whether a lane with that much expected work and that many jobs takes one more of that cost."""
    return not jobs or (jobs < MOST and expected + cost <= BUDGET)
