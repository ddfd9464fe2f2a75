"""Events of jobs in SQLite: what is written of them, and how they are read."""

import json
import sqlite3
from collections.abc import Collection, Sequence

from jobs.events import EventId, EventKind, EventMark, JobEvent, News
from jobs.model import JobId
from jobs.protocols import Progress, Wrote

from . import event_rows
from .commits import Transaction
from .event_rows import R, Reading
from .queries import SQL
from .verbs import Verb

_FOLLOWED = "(:ids IS NULL OR jobs.id IN (SELECT value FROM json_each(:ids)))"
_THIS = "(SELECT seq FROM jobs WHERE id = :id)"
STATEMENTS = {
    "stand": SQL["stand"].format(source="jobs", which="jobs.id = :id"),
    "submitted": SQL["stand"].format(source="jobs", which=f"jobs.seq > :seq AND {_FOLLOWED}"),
    "running": SQL["stand"].format(
        source="jobs INDEXED BY jobs_started", which=f"state = 'STARTED' AND {_FOLLOWED}"
    ),
    "ended": SQL["ended"].format(which=f"attempts.job = {_THIS}", limit=-1),
    "ended_since": SQL["ended"].format(
        which=f"attempts.id > :attempt AND {_FOLLOWED}", limit=":limit"
    ),
    "said": SQL["said"].format(
        which=f"events.job = {_THIS} AND (run > :run OR (run = :run AND events.id > :number))"
    ),
    "said_since": SQL["said"].format(which=f"events.id > :event AND {_FOLLOWED}"),
    "unsaid": SQL["unsaid"],
    "why": SQL["why"],
}
"""What the readings of `event_rows` ask."""

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


def history(
    connection: sqlite3.Connection, job_id: JobId, after: EventId
) -> tuple[list[JobEvent], bool]:
    """See `Store.events`."""
    with _snapshot(connection):
        return _read(connection, event_rows.history(job_id, after))


def news(
    connection: sqlite3.Connection, since: EventMark | None, job_ids: Collection[JobId] | None
) -> News:
    """See `Store.news`. A mark is the highest number of a job, an ended attempt, and a stored event."""
    with _snapshot(connection):
        newest: tuple[int, int, int] = connection.execute(SQL["newest"]).fetchone()
        if since is None:
            return News(_mark(newest), ())
        seen = tuple(map(int, since.split(".")))
        newer = [new > old for new, old in zip(newest, seen, strict=True)]
        asked = {"submitted": newer[0], "running": True}
        asked |= {"ended_since": newer[1], "said_since": newer[2]}
        values = dict(zip(("seq", "attempt", "event"), seen, strict=True))
        statements = [statement for statement, wanted in asked.items() if wanted]
        told, missed = _read(connection, event_rows.happened(statements, values, job_ids))
    # Jobs that have been deleted may have taken the highest numbers with them.
    return News(_mark(tuple(map(max, seen, newest))), told, missed)


def _mark(numbers: Sequence[int]) -> EventMark:
    return EventMark(".".join(map(str, numbers)))


def _read(connection: sqlite3.Connection, reading: Reading[R]) -> R:
    try:
        statement, values = next(reading)
        while True:
            rows = connection.execute(STATEMENTS[statement], values).fetchall()
            statement, values = reading.send(rows)
    except StopIteration as done:
        result: R = done.value
        return result


class _snapshot:  # noqa: N801 - reads as a statement
    """All reads within see the database as it was at the first of them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN")

    def __exit__(self, *_: object) -> None:
        self._connection.execute("ROLLBACK")
