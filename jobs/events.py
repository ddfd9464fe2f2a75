"""What happens to a job, in order: the events that a follower is told.

An event's id is its place in its job's life: `run.step.number`. Runs are counted from 1 as they end, so
that an attempt which a shutdown stopped, and whose number comes again, is a run of its own. Ids grow
within a job; every process reads the same ones from the store, now and after a restart.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple, NewType

from .model import JobError, JobId


class EventKind(StrEnum):
    """What an event tells."""

    SUBMITTED = "submitted"
    RETRIED = "retried"
    STARTED = "started"
    PROGRESS = "progress"
    LOG = "log"
    ATTEMPT_ENDED = "attempt_ended"
    FINISHED = "finished"


class EventId(NamedTuple):
    """Where an event stands among those of its job."""

    run: int
    step: int
    number: int = 0

    def __str__(self) -> str:
        return f"{self.run}.{self.step}.{self.number}"

    @classmethod
    def read(cls, text: str) -> "EventId":
        """What `str` made. Raises ValueError for anything else."""
        if not _FORM.fullmatch(text):
            raise ValueError(f"must be an event's id, such as {SUBMITTED}")
        return cls(*map(int, text.split(".")))


EVENT_ID: Final = r"^[0-9]{1,9}\.[0-5]\.[0-9]{1,18}$"
"""What an id looks like, as a regular expression."""

_FORM = re.compile(EVENT_ID[1:-1])

# The steps of a run:
ASKED: Final = 0  #: why there is one
STARTED: Final = 1
SAID: Final = 2  #: progress, and what the job wrote while it ran; numbered
REST: Final = 3  #: what it wrote besides
ENDED: Final = 4
FINISHED: Final = 5  #: not of the run, but after it

START: Final = EventId(0, ASKED, -1)
"""Before the first event."""
SUBMITTED: Final = EventId(0, ASKED)


class JobEvent(NamedTuple):
    """One event of a job, and what a filter asks about that."""

    job_id: JobId
    id: EventId
    kind: EventKind
    at: int  #: ms; of a start, until the attempt has ended: when the job was claimed
    task: str
    queue: str
    owner: str | None
    attempt: int | None = None
    detail: str | None = None
    """PROGRESS: JSON text. LOG: whole lines, but for the last. ATTEMPT_ENDED: an `AttemptEnd`. FINISHED: the
    job's state."""
    error: JobError | None = None

    def follows(self, last: EventId) -> bool:
        """Whether who was told everything up to `last` has not been told this."""
        # A job may be claimed, given back and revoked: then its end has the id of the run before, if any.
        end = self.kind is EventKind.FINISHED and last.step != FINISHED
        return end or self.id > last


EventMark = NewType("EventMark", str)
"""How far the events of all jobs have been read, in the words of the store that has read them."""


class News(NamedTuple):
    """What has happened since a mark."""

    mark: EventMark  #: to go on from
    events: Sequence[JobEvent]  #: those of a job in their order
    missed: bool = False  #: there was too much, and these are not all
