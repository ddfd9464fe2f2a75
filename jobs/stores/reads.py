"""The reads: one statement and one hop each, on connections that cannot write."""

import json
import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from jobs.errors import JobNotFound
from jobs.keys import ApiKey
from jobs.model import AttemptRecord, Job, JobId, JobPage, JobQuery, JobState

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

_NO_END = 2**63 - 1


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

    async def states(self, job_ids: Collection[JobId]) -> dict[JobId, JobState]:
        """See `Store.states`."""
        ids = {"ids": json.dumps(list(job_ids))}
        rows = await self._rows(self._reader, SQL["states"], ids)
        return {job_id: shown(state, attempt) for job_id, state, attempt in rows}

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

    async def find(self, query: JobQuery) -> JobPage:
        """See `Store.find`."""
        values = {
            "before_seq": _NO_END if query.before_seq is None else query.before_seq,
            "task": query.task,
            "queue": query.queue,
            "owner": query.owner,
            "created_after": query.created_after,
            "created_before": query.created_before,
            "limit": query.limit + 1,
        }
        listing = LISTING if query.owner is None else OWNED
        rows = await self._rows(self._lister, listing[query.state], values)
        jobs = [to_job(row) for row in rows[: query.limit]]
        return JobPage(jobs, jobs[-1].seq if len(rows) > len(jobs) > 0 else None)

    async def _rows(
        self, connection: Connection, statement: str, values: dict[str, Any]
    ) -> list[tuple[Any, ...]]:
        try:
            return await connection.run(_fetch, statement, values)
        except sqlite3.Error as error:
            raise translated(error, self._path) from error


def _fetch(
    connection: sqlite3.Connection, statement: str, values: dict[str, Any]
) -> list[tuple[Any, ...]]:
    return connection.execute(statement, values).fetchall()
