"""Who is charged when the forkserver dies, and with it every lane and its job."""

from collections import Counter
from collections.abc import Iterable

from jobs.model import JobId

from .lane import Lane

SPARED_MOST = 3  #: times, so that no job brings its service down for ever without being charged


class Blame:
    """Any of the running jobs may have killed it; what kills, does so soon: the job that began last is
    charged with a crash, the others are only lost."""

    def __init__(self) -> None:
        self._spared: Counter[JobId] = Counter()
        self._judged = 0

    def judge(self, guardian: int, lanes: Iterable[Lane]) -> None:
        """Spare what these lanes run, but the latest; called for each lane, decided at the first."""
        if guardian == self._judged:
            return
        self._judged = guardian
        flights = [
            lane.running for lane in lanes if lane.guardian == guardian and lane.running is not None
        ]
        for flight in sorted(flights, key=lambda flight: flight.began)[:-1]:
            job_id = flight.invocation.job_id
            self._spared[job_id] += 1
            flight.spared = self._spared[job_id] <= SPARED_MOST

    def forget(self, job_id: JobId) -> None:
        """It has ended."""
        self._spared.pop(job_id, None)
