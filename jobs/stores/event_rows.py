"""Events of jobs, as the rows of jobs, attempts and events tell them: the same for every store.

What is read depends on what has been found, and stores read in their own ways: so a reading is a
generator that yields what it asks (the name of a statement, and its values), is sent the rows, and
returns what they tell. All rows of one reading are to be of one snapshot.
"""

import json
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from jobs import events
from jobs.errors import JobNotFound
from jobs.events import EventId, EventKind, JobEvent
from jobs.model import JobError, JobId, JobState

from .rows import error_from_text

PAGE = 500  #: events that are stored, in one answer of `Store.events`
MOST_NEWS = 10_000  #: of a kind, in one answer of `Store.news`

SINCE = ("submitted", "running", "ended_since", "said_since")
"""The statements that tell what has happened since a mark."""

R = TypeVar("R")
Reading = Generator[tuple[str, Mapping[str, Any]], Sequence[Any], R]


class _Standing(NamedTuple):
    """The columns that every row begins with."""

    seq: int
    job_id: JobId
    task: str
    queue: str
    owner: str | None
    state: str
    attempt: int
    created_at: int
    started_at: int | None
    finished_at: int | None
    runs: int  #: attempts that have ended


_WIDTH = len(_Standing._fields)


class _Gathered:
    """Events by job."""

    def __init__(self) -> None:
        self._found: dict[JobId, dict[EventId, JobEvent]] = {}
        self._written: dict[int, tuple[_Standing, int, int, int]] = {}
        """Rows of attempts that wrote something: job, run, number, end."""
        self._failed: list[tuple[_Standing, EventId]] = []
        """Jobs that have ended, and not well."""

    def submitted(self, job: _Standing) -> None:
        self._add(job, events.SUBMITTED, EventKind.SUBMITTED, job.created_at)

    def started(self, job: _Standing) -> None:
        at = EventId(job.runs + 1, events.STARTED)
        self._add(job, at, EventKind.STARTED, job.started_at or 0, job.attempt)

    def ended(self, job: _Standing, rest: Sequence[Any]) -> None:
        """An attempt has ended. The columns are those of `ended` in the SQL."""
        row, number, outcome, error, started_at, finished_at, run, written = rest
        began = started_at or finished_at
        self._add(job, EventId(run, events.STARTED), EventKind.STARTED, began, number)
        if written:
            self._written[row] = job, run, number, finished_at
        why = error_from_text(error)
        at = EventId(run, events.ENDED)
        self._add(job, at, EventKind.ATTEMPT_ENDED, finished_at, number, outcome, why)
        self.finished(job)

    def said(self, job: _Standing, rest: Sequence[Any]) -> None:
        """The columns are those of `said` in the SQL."""
        number, run, attempt, kind, at, data = rest
        if kind == "revoked":
            self.finished(job)
        elif kind == "retried":
            self._add(job, EventId(run, events.ASKED, number), EventKind.RETRIED, at)
        else:
            where = EventId(run, events.SAID, number)
            self._add(job, where, EventKind(kind), at, attempt, data.decode("utf-8", "replace"))

    def finished(self, job: _Standing) -> None:
        """If it has: the last of its events."""
        where = EventId(job.runs, events.FINISHED)
        if JobState(job.state).ended and where not in self._found.get(job.job_id, ()):
            if job.state != JobState.SUCCESS:
                self._failed.append((job, where))
            self._add(job, where, EventKind.FINISHED, job.finished_at or 0, detail=job.state)

    def _add(
        self,
        job: _Standing,
        where: EventId,
        kind: EventKind,
        at: int,
        attempt: int | None = None,
        detail: str | None = None,
        error: JobError | None = None,
    ) -> None:
        about = (job.task, job.queue, job.owner)
        event = JobEvent(job.job_id, where, kind, at, *about, attempt, detail, error)
        self._found.setdefault(job.job_id, {}).setdefault(where, event)

    def in_order(self) -> Reading[list[JobEvent]]:
        """Each job's in their order."""
        yield from self._complete()
        return [
            event for found in self._found.values() for event in sorted(found.values(), key=_place)
        ]

    def _complete(self) -> Reading[None]:
        """Read what is long, and only of those that have it."""
        if self._written:
            runs = [(row, run) for row, (_, run, _, _) in self._written.items()]
            for row, unsaid in (yield "unsaid", {"attempts": json.dumps(runs)}):
                if unsaid:
                    job, run, number, finished_at = self._written[row]
                    text = bytes(unsaid).decode("utf-8", "replace")
                    at = EventId(run, events.REST)
                    self._add(job, at, EventKind.LOG, finished_at, number, text)
        if self._failed:
            seqs = json.dumps([job.seq for job, _ in self._failed])
            errors: dict[int, str | None] = dict((yield "why", {"seqs": seqs}))
            for job, where in self._failed:
                found = self._found[job.job_id]
                found[where] = found[where]._replace(error=error_from_text(errors[job.seq]))


def _place(event: JobEvent) -> tuple[bool, EventId]:
    return event.kind is EventKind.FINISHED, event.id


def history(job_id: JobId, after: EventId) -> Reading[tuple[list[JobEvent], bool]]:
    """See `Store.events`."""
    this: dict[str, Any] = {"id": job_id}
    rows = yield "stand", this | {"limit": 1}
    if not rows:
        raise JobNotFound(job_id)
    job, gathered = _Standing._make(rows[0]), _Gathered()
    number = after.number if after.step == events.SAID else 0
    said = yield "said", this | {"run": after.run, "number": number, "limit": PAGE}
    for row in said:
        gathered.said(*_split(row))
    for about, rest in map(_split, (yield "ended", this)):
        if EventId(rest[-2], events.ENDED) > after:
            gathered.ended(about, rest)
    gathered.submitted(job)
    if job.state == JobState.STARTED:
        gathered.started(job)
    gathered.finished(job)
    found = list(_due((yield from gathered.in_order()), after))
    more = len(said) == PAGE
    if more:  # what comes after the last of them may have others before it
        last = EventId(said[-1][_WIDTH + 1], events.SAID, said[-1][_WIDTH])
        found = [
            event for event in found if event.id <= last and event.kind is not EventKind.FINISHED
        ]
    return found, more


def _due(found: Iterable[JobEvent], last: EventId) -> Iterable[JobEvent]:
    for event in found:
        if event.follows(last):
            last = event.id
            yield event


def happened(
    statements: Collection[str], values: Mapping[str, Any], job_ids: Collection[JobId] | None
) -> Reading[tuple[list[JobEvent], bool]]:
    """What these of `SINCE` tell of these jobs, or of all; and whether there was too much. `values` say
    since when."""
    ids = None if job_ids is None else json.dumps(list(job_ids))
    values = {**values, "ids": ids, "limit": MOST_NEWS}
    gathered, most = _Gathered(), 0
    for statement in SINCE:
        rows = (yield statement, values) if statement in statements else ()
        most = max(most, len(rows))
        for job, rest in map(_split, rows):
            if statement == "submitted":
                gathered.submitted(job)
            elif statement == "running":
                gathered.started(job)
            elif statement == "ended_since":
                gathered.ended(job, rest)
            else:
                gathered.said(job, rest)
    return (yield from gathered.in_order()), most == MOST_NEWS


def _split(row: Sequence[Any]) -> tuple[_Standing, Sequence[Any]]:
    return _Standing._make(row[:_WIDTH]), row[_WIDTH:]
