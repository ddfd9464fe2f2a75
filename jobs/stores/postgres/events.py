"""Events of jobs in PostgreSQL: what is written of them, and how they are read."""

import json
from base64 import b64encode
from collections.abc import Collection, Sequence
from typing import Any

import psycopg

from jobs.events import EventId, EventKind, EventMark, JobEvent, News
from jobs.model import JobId
from jobs.protocols import Progress, Wake, Wrote
from jobs.stores import event_rows
from jobs.stores.event_rows import SINCE, R, Reading
from jobs.stores.verbs import Verb

from .commits import Transaction
from .queries import SQL

_THIS = "(SELECT seq FROM jobs WHERE id = %(id)s)"
_FOLLOWED = "(%(ids)s::json IS NULL OR jobs.id = ANY(ARRAY(SELECT json_array_elements_text(%(ids)s::json))))"
_NEW = (
    "{0}.xact >= pg_snapshot_xmin(%(since)s::pg_snapshot)"
    f" AND NOT pg_visible_in_snapshot({{0}}.xact, %(since)s::pg_snapshot) AND {_FOLLOWED}"
)
STATEMENTS = {
    "stand": SQL["stand"].format(source="jobs", which="jobs.id = %(id)s"),
    "submitted": SQL["stand"].format(
        source="payloads CROSS JOIN LATERAL (SELECT * FROM jobs WHERE seq = payloads.seq OFFSET 0) AS jobs",
        which=_NEW.format("payloads"),
    ),
    "running": SQL["stand"].format(source="jobs", which=f"state = 'STARTED' AND {_FOLLOWED}"),
    "ended": SQL["ended"].format(which=f"attempts.job = {_THIS} ORDER BY attempts.id", limit="ALL"),
    "ended_since": SQL["ended"].format(which=_NEW.format("attempts"), limit="%(limit)s"),
    "said": SQL["said"].format(
        which=f"events.job = {_THIS} AND (run > %(run)s OR (run = %(run)s AND events.id > %(number)s))"
        " ORDER BY events.id"
    ),
    "said_since": SQL["said"].format(which=_NEW.format("events")),
    "unsaid": SQL["unsaid"],
    "why": SQL["why"],
}
"""What the readings of `event_rows` ask."""

# --- writing


def _say(transaction: Transaction, requests: Sequence[Sequence[Progress | Wrote]]) -> list[None]:
    said = [
        {
            "n": n,
            "id": one.job_id,
            "attempt": one.attempt,
            "kind": EventKind.PROGRESS if isinstance(one, Progress) else EventKind.LOG,
            "data": b64encode(one.text.encode("utf-8", "replace")).decode("ascii"),
        }
        for n, one in enumerate(one for request in requests for one in request)
    ]
    if said:
        values = {"claimant": transaction.claimant, "now": transaction.now}
        transaction.run("say", said=json.dumps(said), **values)
        transaction.news |= Wake.TOLD
    return [None] * len(requests)


SAY = Verb(-1, _say, durable=False)
"""Before an attempt's end in the same transaction. What is lost with the power is lost with its attempt."""

# --- reading

_Session = psycopg.AsyncConnection[tuple[Any, ...]]


async def history(
    session: _Session, job_id: JobId, after: EventId
) -> tuple[Sequence[JobEvent], bool]:
    """See `Store.events`."""
    await _begin(session)
    return await _read(session, event_rows.history(job_id, after))


async def news(
    session: _Session, since: EventMark | None, job_ids: Collection[JobId] | None
) -> News:
    """See `Store.news`. A mark is a snapshot: what is committed and not visible in it is new."""
    await _begin(session)
    ((mark,),) = await (await session.execute(SQL["snapshot"])).fetchall()
    if since is None:
        return News(EventMark(mark), ())
    reading = event_rows.happened(SINCE, {"since": since}, job_ids)
    told, missed = await _read(session, reading)
    return News(EventMark(mark), told, missed)


async def _begin(session: _Session) -> None:
    """All reads see the database as it is at the first of them. The pool ends the transaction."""
    await session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")


async def _read(session: _Session, reading: Reading[R]) -> R:
    try:
        statement, values = next(reading)
        while True:
            rows = await (await session.execute(STATEMENTS[statement], values)).fetchall()
            statement, values = reading.send(rows)
    except StopIteration as done:
        result: R = done.value
        return result
