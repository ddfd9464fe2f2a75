"""Invocations that are to have a new process each, and wait for it."""

from collections.abc import Iterator

from jobs.model import Invocation, JobId


class Bookings:
    """At most one for each place of a lane.

    What a lane has runs first, then it is replaced, and its successor's first job is the one that waits; the
    lane takes no other work meanwhile. So neither kind of job keeps the other from its turn.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, Invocation] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, place: int) -> bool:
        return place in self._waiting

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._waiting))

    def add(self, place: int, invocation: Invocation) -> None:
        """Have it wait for that place."""
        self._waiting[place] = invocation

    def take(self, place: int) -> Invocation | None:
        """Who waits there, and no longer does."""
        return self._waiting.pop(place, None)

    def take_job(self, job_id: JobId) -> Invocation | None:
        """The job, if it waits; no longer."""
        for place, invocation in self._waiting.items():
            if invocation.job_id == job_id:
                return self.take(place)
        return None
