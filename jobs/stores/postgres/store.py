"""Jobs in a PostgreSQL database, for any number of processes on any number of machines."""

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import NamedTuple, Self

import psycopg

from jobs.errors import DatabaseUnusable, StoreError
from jobs.events import EventId, EventMark, JobEvent, News
from jobs.keys import ApiKey
from jobs.model import (
    AttemptRecord,
    Claim,
    Invocation,
    Job,
    JobId,
    JobPage,
    JobQuery,
    JobState,
    Outcome,
    Queued,
)
from jobs.protocols import Progress, Wake, Wrote
from jobs.stores.background import end
from jobs.stores.bell import Bell
from jobs.stores.claimant import new_name

from . import migrate
from .commits import Commits
from .events import SAY
from .listener import Listener
from .queries import SQL
from .reads import Reads
from .server import SCHEMA, Server, will_not_pass
from .writer import Writer
from .writes import (
    ADD,
    ADD_KEY,
    BEAT,
    CANCEL,
    CANCEL_MANY,
    CLAIM,
    CLAIM_THESE,
    FINISH,
    LEAVE,
    PROBE,
    PRUNE,
    PUBLISH,
    REAP,
    RELEASE,
    RETRY,
    REVOKE_KEY,
    UNPUBLISH,
    Sign,
)

log = logging.getLogger("jobs.store")

BEAT_EVERY = 0.4  #: seconds
START_PATIENCE = 30.0  #: seconds that a server may take to come up, at the opening
_PAUSE = 0.5


class PostgresStore:
    """A `Store`; see there for what each method promises. To be opened once.

    `busy_timeout`: seconds that a write waits for other programs, or for a server that has gone;
    `queue_limit`: jobs that may wait to be added; `schema`: where the tables are. Opening waits
    `patience` seconds for the server, migrates the database, and raises `StoreError`."""

    def __init__(
        self,
        url: str,
        *,
        busy_timeout: float,
        queue_limit: int = 10_000,
        schema: str = SCHEMA,
        patience: float = START_PATIENCE,
    ) -> None:
        self._server = Server(url, busy_timeout=busy_timeout, schema=schema)
        self._busy_timeout, self._queue_limit = busy_timeout, queue_limit
        self._patience = patience
        self.claimant = new_name()
        self.location = self._server.location
        """The database and its server, without user and password."""
        self._bell = Bell()
        self._opened: _Opened | None = None
        self._closing = AsyncExitStack()

    async def __aenter__(self) -> Self:
        channel = await self._prepared()
        sign = Sign(secrets.randbits(63), socket.gethostname(), os.getpid())
        async with AsyncExitStack() as stack:
            reads = Reads(self._server, self._busy_timeout)
            stack.push_async_callback(reads.close)
            await reads.open()
            writer = Writer(
                self._server,
                Commits(self._server, self.claimant, sign.host, channel),
                busy_timeout=self._busy_timeout,
                queue_limit=self._queue_limit,
                ring=self._bell.ring,
            )
            stack.push_async_callback(writer.close)
            listener = Listener(self._server, channel, self.claimant, sign.lock, self._bell.ring)
            stack.push_async_callback(listener.close)
            try:
                await listener.open()
            except psycopg.Error as error:
                raise self._server.translated(error) from error
            await writer.submit(BEAT, sign)
            stack.push_async_callback(_left, writer)
            beating = asyncio.create_task(_beat(writer, sign), name="jobs: store beat")
            stack.push_async_callback(end, beating)
            self._opened = _Opened(writer, reads)
            self._closing = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._opened = None
        await self._closing.aclose()

    async def _prepared(self) -> str:
        """Bring the schema up to date, as soon as the server is there; the channel of its bell."""
        deadline, told = time.monotonic() + self._patience, False
        while True:
            try:
                return await asyncio.to_thread(self._prepare)
            except psycopg.Error as error:
                reason = self._server.translated(error)
                if will_not_pass(error):
                    raise DatabaseUnusable(str(reason)) from error
                if time.monotonic() >= deadline or type(reason) is not StoreError:
                    raise reason from error
                if not told:
                    log.warning("waiting for the database: %s", reason)
                told = True
            await asyncio.sleep(min(_PAUSE, max(0.0, deadline - time.monotonic())))

    def _prepare(self) -> str:
        with self._server.connect() as connection:
            migrate.apply(connection, self._server)
            connection.execute(SQL["forget_xacts"])
            return migrate.channel(connection)

    def hold_fileno(self) -> None:
        """None: the claimant lives by its session, which its children do not have."""
        return

    @property
    def _parts(self) -> "_Opened":
        if self._opened is None:
            raise StoreError("the store is not open")
        return self._opened

    def add(self, jobs: Sequence[Job]) -> Awaitable[Collection[JobId]]:
        """See `Store.add`. Raises `StoreBusy` at once if too many jobs wait to be added."""
        return self._parts.writer.submit(ADD, jobs, rows=len(jobs))

    async def claim(self, limit: int) -> Claim:
        """See `Store.claim`. What was claimed for a caller that has gone is given back."""
        return await self._parts.writer.claim(CLAIM, RELEASE, limit)

    async def claim_these(self, attempts: Sequence[tuple[JobId, int]]) -> Claim:
        """See `Store.claim_these`; and `claim`."""
        return await self._parts.writer.claim(CLAIM_THESE, RELEASE, attempts)

    async def publish(self, limit: int, until: int) -> Claim:
        """See `Store.publish`."""
        return await self._parts.writer.submit(PUBLISH, (limit, until))

    async def unpublish(self, queue: str, until: int) -> None:
        """See `Store.unpublish`."""
        await self._parts.writer.submit(UNPUBLISH, (queue, until))

    async def published(self) -> dict[str, int]:
        """See `Store.published`."""
        return await self._parts.reads.published()

    async def finish(self, outcomes: Sequence[Outcome]) -> set[JobId]:
        """See `Store.finish`."""
        return await self._parts.writer.submit(FINISH, outcomes)

    async def say(self, said: Sequence[Progress | Wrote]) -> None:
        """See `Store.say`."""
        await self._parts.writer.submit(SAY, said)

    async def release(self, unspent: Sequence[Invocation | Outcome]) -> None:
        """See `Store.release`."""
        await self._parts.writer.submit(RELEASE, unspent)

    async def cancel(self, job_id: JobId) -> JobState:
        """See `Store.cancel`. The state is the shown one: RETRY for a job that waits for its next attempt."""
        return await self._parts.writer.submit(CANCEL, job_id)

    async def cancel_many(self, job_ids: Collection[JobId]) -> set[JobId]:
        """See `Store.cancel_many`."""
        return await self._parts.writer.submit(CANCEL_MANY, job_ids)

    async def retry(self, job_ids: Collection[JobId]) -> set[JobId]:
        """See `Store.retry`."""
        return await self._parts.writer.submit(RETRY, job_ids)

    async def cancel_requests(self) -> set[JobId]:
        """See `Store.cancel_requests`; and what runs here still, though others took it as this process was
        cut off: its outcome would not count."""
        held = list(self._parts.writer.held)  # before the look, so that it is not older than that
        running = await self._parts.reads.running(self.claimant)
        asked = {job_id for job_id, stop in running.items() if stop}
        return asked | {job_id for job_id in held if job_id not in running}

    async def reap(self) -> set[JobId]:
        """See `Store.reap`."""
        ended: set[JobId] = set()
        more = True
        while more:
            reaped = await self._parts.writer.submit(REAP, None)
            ended |= reaped.ended
            more = reaped.more
        return ended

    async def prune(self, ended_before: int, limit: int = 1000) -> int:
        """See `Store.prune`."""
        return await self._parts.writer.submit(PRUNE, (ended_before, limit))

    async def add_key(self, key: ApiKey) -> None:
        """See `Store.add_key`."""
        await self._parts.writer.submit(ADD_KEY, key)

    async def revoke_key(self, key_id: str) -> bool:
        """See `Store.revoke_key`."""
        return await self._parts.writer.submit(REVOKE_KEY, key_id)

    async def keys(self) -> Sequence[ApiKey]:
        """See `Store.keys`."""
        return await self._parts.reads.keys()

    async def check(self) -> None:
        """See `Store.check`. Commits, and so finds out."""
        await self._parts.writer.submit(PROBE, None)

    async def wait(self) -> Wake:
        """See `Store.wait`."""
        return await self._bell.wait()

    async def get(self, job_id: JobId) -> Job:
        """See `Store.get`."""
        return await self._parts.reads.get(job_id)

    async def attempts(self, job_id: JobId) -> Sequence[AttemptRecord]:
        """See `Store.attempts`."""
        return await self._parts.reads.attempts(job_id)

    async def log(self, job_id: JobId, attempt: int | None = None) -> bytes:
        """See `Store.log`."""
        return await self._parts.reads.log(job_id, attempt)

    async def events(self, job_id: JobId, after: EventId) -> tuple[Sequence[JobEvent], bool]:
        """See `Store.events`."""
        return await self._parts.reads.events(job_id, after)

    async def news(self, since: EventMark | None, job_ids: Collection[JobId] | None = None) -> News:
        """See `Store.news`."""
        return await self._parts.reads.news(since, job_ids)

    async def states(self, job_ids: Collection[JobId]) -> dict[JobId, JobState]:
        """See `Store.states`."""
        return await self._parts.reads.states(job_ids)

    async def queued(self) -> Mapping[str | None, Queued]:
        """See `Store.queued`."""
        return await self._parts.reads.queued()

    async def find(self, query: JobQuery) -> JobPage:
        """See `Store.find`."""
        return await self._parts.reads.find(query)


class _Opened(NamedTuple):
    writer: Writer
    reads: Reads


async def _beat(writer: Writer, sign: Sign) -> None:
    while True:
        await asyncio.sleep(BEAT_EVERY)
        with suppress(StoreError):
            await writer.submit(BEAT, sign)


async def _left(writer: Writer) -> None:
    """Say that nobody is alive here any more; without a server, its lock will say so."""
    with suppress(StoreError):
        await writer.submit(LEAVE, None)
