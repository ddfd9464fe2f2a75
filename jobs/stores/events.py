"""Events of jobs: what is written of them, and how they are read from the rows of jobs and attempts."""

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from jobs import events
from jobs.errors import JobNotFound
from jobs.events import EventId, EventKind, EventMark, JobEvent, News
from jobs.model import JobId, JobState
from jobs.protocols import Progress, Wrote

from .commits import Transaction
from .queries import SQL
from .rows import error_from_text
from .verbs import Verb

PAGE = 500  #: events that are stored, in one answer of `Store.events`
MOST_NEWS = 10_000  #: of a kind, in one answer of `Store.news`

_FOLLOWED = "(:ids IS NULL OR jobs.id IN (SELECT value FROM json_each(:ids)))"
_THIS = "(SELECT seq FROM jobs WHERE id = :id)"
STAND = SQL["stand"].format(source="jobs", which="jobs.id = :id")
SUBMITTED = SQL["stand"].format(source="jobs", which=f"jobs.seq > :seq AND {_FOLLOWED}")
RUNNING = SQL["stand"].format(
    source="jobs INDEXED BY jobs_started", which=f"state = 'STARTED' AND {_FOLLOWED}"
)
ENDED = SQL["ended"].format(which=f"attempts.job = {_THIS}")
ENDED_SINCE = SQL["ended"].format(which=f"attempts.id > :attempt AND {_FOLLOWED}")
SAID = SQL["said"].format(
    which=f"events.job = {_THIS} AND (run > :run OR (run = :run AND events.id > :number))"
)
SAID_SINCE = SQL["said"].format(which=f"events.id > :event AND {_FOLLOWED}")

# --- writing


def _say(transaction: Transaction, requests: Sequence[Sequence[Progress | Wrote]]) -> list[None]:
    connection = transaction.connection
    for said in (one for request in requests for one in request):
        data = said.text.encode("utf-8", "replace")
        values = {
            "id": said.job_id,
            "attempt": said.attempt,
            "claimant": transaction.claimant,
            "at": transaction.now,
            "kind": EventKind.PROGRESS if isinstance(said, Progress) else EventKind.LOG,
            "data": data,
        }
        connection.execute(SQL["say"], values)
        if isinstance(said, Progress):
            values["data"] = data.decode()
            connection.execute(SQL["set_progress"], values)
        transaction.size += 2 * len(data)
    return [None] * len(requests)


SAY = Verb(-1, _say, durable=False, vital=False)
"""Before an attempt's end in the same transaction. What is lost with the power is lost with its attempt."""


def note(transaction: Transaction, kind: str, seqs: Collection[int]) -> None:
    """Keep what no attempt tells of these jobs: `revoked` or `retried`."""
    if seqs:
        values = {"kind": kind, "at": transaction.now, "seqs": json.dumps(list(seqs))}
        transaction.connection.execute(SQL["note_event"], values)


# --- reading


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
    """Events by job, as they are read in one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._found: dict[JobId, dict[EventId, JobEvent]] = {}

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
            values = {"id": row, "run": run}
            (unsaid,) = self._connection.execute(SQL["unsaid"], values).fetchone()
            if unsaid:
                text = unsaid.decode("utf-8", "replace")
                self._add(job, EventId(run, events.REST), EventKind.LOG, finished_at, number, text)
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
            error = None
            if job.state != JobState.SUCCESS:
                (error,) = self._connection.execute(SQL["why"], {"seq": job.seq}).fetchone()
            self._add(
                job,
                where,
                EventKind.FINISHED,
                job.finished_at or 0,
                detail=job.state,
                error=error_from_text(error),
            )

    def _add(
        self,
        job: _Standing,
        where: EventId,
        kind: EventKind,
        at: int,
        attempt: int | None = None,
        detail: str | None = None,
        error: Any = None,
    ) -> None:
        about = (job.task, job.queue, job.owner)
        event = JobEvent(job.job_id, where, kind, at, *about, attempt, detail, error)
        self._found.setdefault(job.job_id, {}).setdefault(where, event)

    def in_order(self) -> list[JobEvent]:
        """Each job's in their order."""
        return [
            event for found in self._found.values() for event in sorted(found.values(), key=_place)
        ]


def _place(event: JobEvent) -> tuple[bool, EventId]:
    return event.kind is EventKind.FINISHED, event.id


def history(
    connection: sqlite3.Connection, job_id: JobId, after: EventId
) -> tuple[list[JobEvent], bool]:
    """See `Store.events`."""
    with _snapshot(connection):
        row = connection.execute(STAND, {"id": job_id, "limit": 1}).fetchone()
        if row is None:
            raise JobNotFound(job_id)
        job, gathered = _Standing._make(row), _Gathered(connection)
        said = connection.execute(
            SAID,
            {
                "id": job_id,
                "run": after.run,
                "number": after.number if after.step == events.SAID else 0,
                "limit": PAGE,
            },
        ).fetchall()
        for row in said:
            gathered.said(*_split(row))
        for about, rest in map(_split, connection.execute(ENDED, {"id": job_id, "limit": -1})):
            if EventId(rest[-2], events.ENDED) > after:
                gathered.ended(about, rest)
        gathered.submitted(job)
        if job.state == JobState.STARTED:
            gathered.started(job)
        gathered.finished(job)
    found = list(_due(gathered.in_order(), after))
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


def news(
    connection: sqlite3.Connection, since: EventMark | None, job_ids: Collection[JobId] | None
) -> News:
    """See `Store.news`."""
    with _snapshot(connection):
        mark = EventMark(*connection.execute(SQL["newest"]).fetchone())
        if since is None:
            return News(mark, ())
        values = {
            **since._asdict(),
            "ids": None if job_ids is None else json.dumps(list(job_ids)),
            "limit": MOST_NEWS,
        }
        gathered = _Gathered(connection)
        read = [
            [_split(row) for row in connection.execute(statement, values)] if wanted else []
            for statement, wanted in (
                (SUBMITTED, mark.seq > since.seq),
                (RUNNING, True),
                (ENDED_SINCE, mark.attempt > since.attempt),
                (SAID_SINCE, mark.event > since.event),
            )
        ]
        submitted, running, ended, said = read
        for job, _ in submitted:
            gathered.submitted(job)
        for job, _ in running:
            gathered.started(job)
        for job, rest in ended:
            gathered.ended(job, rest)
        for job, rest in said:
            gathered.said(job, rest)
    # Jobs that have been deleted may have taken the highest numbers with them.
    newest = EventMark(*map(max, since, mark))
    return News(newest, gathered.in_order(), missed=max(map(len, read)) == MOST_NEWS)


def _split(row: Sequence[Any]) -> tuple[_Standing, Sequence[Any]]:
    return _Standing._make(row[:_WIDTH]), row[_WIDTH:]


class _snapshot:  # noqa: N801 - reads as a statement
    """All reads within see the database as it was at the first of them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN")

    def __exit__(self, *_: object) -> None:
        self._connection.execute("ROLLBACK")
