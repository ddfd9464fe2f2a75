"""The reads: one statement each, on a few sessions of their own."""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from jobs.errors import JobNotFound, StoreError
from jobs.events import EventId, EventMark, JobEvent, News
from jobs.keys import ApiKey
from jobs.model import ENDED, AttemptRecord, Job, JobId, JobPage, JobQuery, JobState, Queued
from jobs.peers import Peers, read_peers
from jobs.stores.rows import shown, to_job, to_key, to_record

from . import events
from .queries import SQL
from .server import Server, prepare_async

logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # what it warns of is said by us, once

_SESSIONS = 4
_NO_END = 2**63 - 1


def _listing(condition: str, order: str = "seq") -> str:
    return SQL["find"].format(state=condition, order=order)


LISTING: dict[JobState | None, str] = {
    None: _listing("TRUE"),
    JobState.PENDING: _listing("state = 'PENDING' AND attempt = 0", "seq + 0"),
    JobState.RETRY: _listing("state = 'PENDING' AND attempt > 0", "seq + 0"),
    JobState.STARTED: _listing("state = 'STARTED'", "seq + 0"),
    JobState.SUCCESS: _listing("state = 'SUCCESS'"),
    **{
        state: _listing(f"state IN ('FAILURE', 'REVOKED') AND state = '{state}'")
        for state in (JobState.FAILURE, JobState.REVOKED)
    },
}
"""The statement that lists jobs in a shown state; None: in any."""

OWNED = {
    state: statement.replace("\n    WHERE ", "\n    WHERE owner = %(owner)s AND ")
    for state, statement in LISTING.items()
}
"""The same for one owner's jobs."""

NAMED = {
    state: _listing(
        "id = ANY(%(ids)s::text[]) AND (%(owner)s::text IS NULL OR owner = %(owner)s::text)"
        f" AND {condition}",
        "seq + 0",
    )
    for state, condition in (
        (None, "TRUE"),
        (JobState.PENDING, "state || '' = 'PENDING' AND attempt = 0"),
        (JobState.RETRY, "state || '' = 'PENDING' AND attempt > 0"),
        *((each, f"state || '' = '{each}'") for each in (JobState.STARTED, *sorted(ENDED))),
    )
}
"""The same for jobs of these ids."""

P = ParamSpec("P")
R = TypeVar("R")


class Reads:
    """What the store knows. `busy_timeout`: seconds until a read gives up reaching the server."""

    def __init__(self, server: Server, busy_timeout: float) -> None:
        self._server = server

        async def configure(connection: psycopg.AsyncConnection[Any]) -> None:
            await prepare_async(connection, server.settings)

        self._pool = AsyncConnectionPool(
            kwargs=dict(server.parameters),
            min_size=1,
            max_size=_SESSIONS,
            configure=configure,
            timeout=max(busy_timeout, 0.1),
            reconnect_timeout=1.0,  # the next read tries again; else it waits for ever rarer tries
            open=False,
        )

    async def open(self) -> None:
        """Connect. Raises `StoreError`."""
        await self._pool.open()

    async def close(self) -> None:
        """End the sessions."""
        await self._pool.close()

    async def get(self, job_id: JobId) -> Job:
        """See `Store.get`."""
        rows = await self._rows(SQL["get"], {"id": job_id})
        if not rows:
            raise JobNotFound(job_id)
        return to_job(rows[0])

    async def attempts(self, job_id: JobId) -> Sequence[AttemptRecord]:
        """See `Store.attempts`."""
        rows = await self._rows(SQL["attempts"], {"id": job_id})
        if not rows:
            raise JobNotFound(job_id)
        return [to_record(row) for row in rows if row[0] is not None]

    async def log(self, job_id: JobId, attempt: int | None) -> bytes:
        """See `Store.log`."""
        rows = await self._rows(SQL["log"], {"id": job_id, "number": attempt})
        if not rows:
            raise JobNotFound(job_id)
        return b"".join(log for (log,) in rows if log is not None)

    async def events(self, job_id: JobId, after: EventId) -> tuple[Sequence[JobEvent], bool]:
        """See `Store.events`."""
        return await self._run(events.history, job_id, after)

    async def news(self, since: EventMark | None, job_ids: Collection[JobId] | None) -> News:
        """See `Store.news`."""
        return await self._run(events.news, since, job_ids)

    async def states(self, job_ids: Collection[JobId]) -> dict[JobId, JobState]:
        """See `Store.states`."""
        rows = await self._rows(SQL["states"], {"ids": list(job_ids)})
        return {job_id: shown(state, attempt) for job_id, state, attempt in rows}

    async def queued(self) -> Mapping[str | None, Queued]:
        """See `Store.queued`."""
        rows = await self._rows(SQL["queued"], {})
        return {owner: Queued(jobs, size) for owner, jobs, size in rows}

    async def running(self, claimant: str) -> dict[JobId, bool]:
        """What the claimant holds: whether it has been asked to stop."""
        return dict(await self._rows(SQL["running"], {"claimant": claimant}))

    async def published(self) -> dict[str, int]:
        """See `Store.published`."""
        return dict(await self._rows(SQL["published"], {}))

    async def keys(self) -> Sequence[ApiKey]:
        """See `Store.keys`."""
        return [to_key(row) for row in await self._rows(SQL["keys"], {})]

    async def peers(self) -> Peers:
        """See `Store.peers`."""
        return read_peers(await self._rows(SQL["peers"], {}))

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
            values["ids"] = list(query.ids)
        rows = await self._rows(listing[query.state], values)
        jobs = [to_job(row) for row in rows[: query.limit]]
        return JobPage(jobs, jobs[-1].seq if len(rows) > len(jobs) > 0 else None)

    async def _rows(self, statement: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return await self._run(_fetch, statement, values)

    async def _run(
        self,
        read: Callable[Concatenate[psycopg.AsyncConnection[Any], P], Awaitable[R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """After a restart of the server each session of the pool fails once."""
        for last in (False,) * _SESSIONS + (True,):
            connection = None
            try:
                async with self._pool.connection() as connection:
                    return await read(connection, *args, **kwargs)
            except PoolTimeout:
                raise StoreError(f"{self._server.location} cannot be reached") from None
            except psycopg.Error as error:
                if connection is None or not connection.closed or last:
                    raise self._server.translated(error) from error
        raise AssertionError


async def _fetch(
    connection: psycopg.AsyncConnection[Any], statement: str, values: Mapping[str, Any]
) -> list[tuple[Any, ...]]:
    return await (await connection.execute(statement, values)).fetchall()
