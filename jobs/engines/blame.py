"""Who is charged when the forkserver dies, and with it every lane and its job."""

from collections import Counter, deque
from collections.abc import Iterable, Sequence

from jobs.model import JobId

from .flights import Flight
from .lane import Lane

SPARED_MOST = 3  #: times, so that no job brings its service down for ever without being charged
TOGETHER = 1000  #: ms between two beginnings that say nothing: both jobs were started again
_REMEMBERED = 100  #: charges


class Blame:
    """Any of the running jobs may have killed it; what kills, does so soon: the job that began last is
    charged with a crash, the others are only lost. Of those that began together, it is the one that has
    been charged before."""

    def __init__(self) -> None:
        self._spared: Counter[JobId] = Counter()
        self._charged: deque[JobId] = deque(maxlen=_REMEMBERED)
        self._guardian = 0
        self._suspect: Flight | None = None

    def judge(self, guardian: int, lanes: Iterable[Lane]) -> None:
        """Spare what these lanes run, but the suspect. Called for each lane that dies with it: what was
        running may be heard of only then."""
        if guardian != self._guardian:
            self._guardian, self._suspect = guardian, None
        flights = [
            lane.running for lane in lanes if lane.guardian == guardian and lane.running is not None
        ]
        if self._suspect is None and flights:
            self._suspect = self._likeliest(flights)
            self._charged.append(self._suspect.invocation.job_id)
        for flight in flights:
            if flight is not self._suspect and not flight.spared:
                job_id = flight.invocation.job_id
                self._spared[job_id] += 1
                flight.spared = self._spared[job_id] <= SPARED_MOST

    def _likeliest(self, flights: Sequence[Flight]) -> Flight:
        last = max(flight.started_at for flight in flights)
        return max(
            (flight for flight in flights if last - flight.started_at < TOGETHER),
            key=lambda flight: (
                self._charged.count(flight.invocation.job_id),
                flight.started_at,
            ),
        )

    def forget(self, job_id: JobId) -> None:
        """It has ended."""
        self._spared.pop(job_id, None)
