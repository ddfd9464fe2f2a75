"""The reads: one statement and one hop each, on connections that cannot write."""

import json
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from jobs.errors import JobNotFound
from jobs.events import EventId, EventMark, JobEvent, News
from jobs.keys import ApiKey
from jobs.model import ENDED, AttemptRecord, Job, JobId, JobPage, JobQuery, JobState, Queued
from jobs.peers import Peers, read_peers

from . import events
from .connection import Connection
from .faults import translated
from .queries import SQL
from .rows import shown, to_job, to_key, to_record

LISTING = {
    state: SQL["find"].format(source=source, state=condition)
    for state, source, condition in (
        (None, "jobs", "TRUE"),
        (JobState.PENDING, "jobs INDEXED BY jobs_ready", "state = 'PENDING' AND attempt = 0"),
        (JobState.RETRY, "jobs INDEXED BY jobs_ready", "state = 'PENDING' AND attempt > 0"),
        (JobState.STARTED, "jobs INDEXED BY jobs_started", "state = 'STARTED'"),
        (JobState.SUCCESS, "jobs", "state = 'SUCCESS'"),
        *(
            (
                state,
                "jobs INDEXED BY jobs_unsuccessful",
                f"state IN ('FAILURE', 'REVOKED') AND state = '{state}'",
            )
            for state in (JobState.FAILURE, JobState.REVOKED)
        ),
    )
}
"""The statement that lists jobs in a shown state; None: in any."""

OWNED = LISTING | {
    state: SQL["find"].format(
        source="jobs INDEXED BY jobs_owned", state=f"owner = :owner AND {condition}"
    )
    for state, condition in ((None, "TRUE"), (JobState.SUCCESS, "state = 'SUCCESS'"))
}
"""The same for one owner's jobs: a state that is not rare is not walked through for all."""

NAMED = {
    state: SQL["find"].format(
        source="jobs",
        state=f"id IN (SELECT value FROM json_each(:ids)) AND {condition}",  # noqa: S608 - all ours
    )
    for state, condition in (
        (None, "TRUE"),
        (JobState.PENDING, "+state = 'PENDING' AND attempt = 0"),
        (JobState.RETRY, "+state = 'PENDING' AND attempt > 0"),
        *((each, f"+state = '{each}'") for each in (JobState.STARTED, *sorted(ENDED))),
    )
}
"""The same for jobs of these ids."""

_NO_END = 2**63 - 1

P = ParamSpec("P")
R = TypeVar("R")


class Reads:
    """What the store knows. `lister` is apart, so that a long list holds nobody up who asks for one job."""

    def __init__(self, reader: Connection, lister: Connection, path: Path) -> None:
        self._reader, self._lister, self._path = reader, lister, path

    async def get(self, job_id: JobId) -> Job:
        """See `Store.get`."""
        rows = await self._rows(self._reader, SQL["get"], {"id": job_id})
        if not rows:
            raise JobNotFound(job_id)
        return to_job(rows[0])

    async def attempts(self, job_id: JobId) -> Sequence[AttemptRecord]:
        """See `Store.attempts`."""
        rows = await self._rows(self._lister, SQL["attempts"], {"id": job_id})
        if not rows:
            raise JobNotFound(job_id)
        return [to_record(row) for row in rows if row[0] is not None]

    async def log(self, job_id: JobId, attempt: int | None) -> bytes:
        """See `Store.log`."""
        rows = await self._rows(self._lister, SQL["log"], {"id": job_id, "number": attempt})
        if not rows:
            raise JobNotFound(job_id)
        return b"".join(log for (log,) in rows if log is not None)

    async def events(self, job_id: JobId, after: EventId) -> tuple[Sequence[JobEvent], bool]:
        """See `Store.events`."""
        return await self._run(self._lister, events.history, job_id, after)

    async def news(self, since: EventMark | None, job_ids: Collection[JobId] | None) -> News:
        """See `Store.news`."""
        return await self._run(self._lister, events.news, since, job_ids)

    async def states(self, job_ids: Collection[JobId]) -> dict[JobId, JobState]:
        """See `Store.states`."""
        ids = {"ids": json.dumps(list(job_ids))}
        rows = await self._rows(self._reader, SQL["states"], ids)
        return {job_id: shown(state, attempt) for job_id, state, attempt in rows}

    async def queued(self) -> Mapping[str | None, Queued]:
        """See `Store.queued`."""
        rows = await self._rows(self._lister, SQL["queued"], {})
        return {owner: Queued(jobs, size) for owner, jobs, size in rows}

    async def cancel_requests(self, claimant: str) -> set[JobId]:
        """See `Store.cancel_requests`."""
        me = {"claimant": claimant}
        return {job_id for (job_id,) in await self._rows(self._reader, SQL["cancel_requests"], me)}

    async def published(self) -> dict[str, int]:
        """See `Store.published`."""
        return dict(await self._rows(self._lister, SQL["published"], {}))

    async def keys(self) -> Sequence[ApiKey]:
        """See `Store.keys`."""
        return [to_key(row) for row in await self._rows(self._reader, SQL["keys"], {})]

    async def peers(self) -> Peers:
        """See `Store.peers`."""
        return read_peers(await self._rows(self._reader, SQL["peers"], {}))

    async def find(self, query: JobQuery) -> JobPage:
        """See `Store.find`."""
        values: dict[str, Any] = {
            "before_seq": _NO_END if query.before_seq is None else query.before_seq,
            "task": query.task,
            "queue": query.queue,
            "owner": query.owner,
            "created_after": query.created_after,
            "created_before": query.created_before,
            "limit": query.limit + 1,
        }
        listing = LISTING if query.owner is None else OWNED
        if query.ids is not None:
            listing = NAMED
            values["ids"] = json.dumps(list(query.ids))
        rows = await self._rows(self._lister, listing[query.state], values)
        jobs = [to_job(row) for row in rows[: query.limit]]
        return JobPage(jobs, jobs[-1].seq if len(rows) > len(jobs) > 0 else None)

    async def _rows(
        self, connection: Connection, statement: str, values: dict[str, Any]
    ) -> list[tuple[Any, ...]]:
        return await self._run(connection, _fetch, statement, values)

    async def _run(
        self,
        connection: Connection,
        read: Callable[Concatenate[sqlite3.Connection, P], R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        try:
            return await connection.run(read, *args, **kwargs)
        except sqlite3.Error as error:
            raise translated(error, self._path) from error


def _fetch(
    connection: sqlite3.Connection, statement: str, values: dict[str, Any]
) -> list[tuple[Any, ...]]:
    return connection.execute(statement, values).fetchall()
