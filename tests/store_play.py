"""What the store tests share: jobs to add, outcomes to record, and the implementations under test."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from jobs.model import (
    ErrorKind,
    Invocation,
    Job,
    JobError,
    JobId,
    JobState,
    Outcome,
    new_job_id,
    now_ms,
)
from jobs.protocols import Store, Wake
from jobs.stores.postgres import PostgresStore
from jobs.stores.sqlite import SQLiteStore
from tests import postgres

PATIENCE = 10.0  #: seconds until a test gives up waiting


def new_job(**fields: Any) -> Job:
    """A job to add."""
    return Job(**{"id": new_job_id(), "task": "text.stats", "created_at": now_ms()} | fields)


def new_jobs(count: int, **fields: Any) -> list[Job]:
    """Several."""
    return [new_job(**fields) for _ in range(count)]


def ended(job: Job, state: JobState = JobState.SUCCESS, **fields: Any) -> Outcome:
    """How the attempt that claiming `job` began has ended."""
    defaults: dict[str, Any] = {"error": failure()}
    if state is JobState.SUCCESS:
        defaults = {"result": '"done"'}
    return Outcome(job.id, job.attempt, state, **defaults | fields)


def failure(kind: ErrorKind = ErrorKind.EXCEPTION, message: str = "no") -> JobError:
    """Why an attempt failed."""
    return JobError(kind, "ValueError", message, "Traceback …")


def ids(jobs: Any) -> list[JobId]:
    """Their ids, in order."""
    return [job.id for job in jobs]


async def add(store: Store, jobs: Sequence[Job]) -> None:
    """Add jobs in a coroutine, as a request's handler does, which may be cancelled."""
    await store.add(jobs)


async def claimed_one(store: Store, job: Job | None = None) -> Job:
    """A job that this store has added and claimed; the only one that was ready."""
    await store.add([job or new_job()])
    (one,) = (await store.claim(2)).jobs
    return one


async def until(store: Store, wanted: Wake) -> Wake:
    """Wait for the doorbell until it has rung for all of `wanted`; what it rang for."""
    heard = Wake(0)
    async with asyncio.timeout(PATIENCE):
        while wanted not in heard:
            heard |= await store.wait()
    return heard


async def past(time: int) -> None:
    """Wait until the wall clock has passed a time (ms)."""
    await asyncio.sleep(max(0, time + 1 - now_ms()) / 1000)
    assert now_ms() > time


async def silence(store: Store) -> None:
    """Let the doorbell say what it still has to say of the past."""
    while True:
        try:
            async with asyncio.timeout(0.15):
                await store.wait()
        except TimeoutError:
            return


@dataclass
class SQLiteBackend:
    """One database file, to be opened any number of times, as several processes would."""

    path: Path
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def open(self, **options: Any) -> SQLiteStore:
        """A store on the file; closed at the end of the test if not before."""
        store = SQLiteStore(self.path, **{"busy_timeout": 5.0} | options)
        return await self._stack.enter_async_context(store)

    async def die(self, store: Store) -> None:
        """End a store with its jobs still claimed, as the death of its process does."""
        await store.__aexit__(None, None, None)

    def context(self, job_id: JobId) -> bytes | None:
        """The sealed context that is kept of a job."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as connection:
            (context,) = connection.execute(
                "SELECT context FROM payloads JOIN jobs USING (seq) WHERE id = ?", (job_id,)
            ).fetchone()
        return context

    def rows(self, table: str) -> int:
        """How many rows a table has."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as connection:
            (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return count

    async def close(self) -> None:
        """Close every store."""
        await self._stack.aclose()


class PostgresBackend:
    """One schema of the server, to be opened any number of times."""

    def __init__(self, server: postgres.Server) -> None:
        self.server, self.schema = server, f"test_{uuid4().hex}"
        self._stack = AsyncExitStack()

    async def open(self, **options: Any) -> PostgresStore:
        """A store on the schema; closed at the end of the test if not before."""
        more = {"busy_timeout": 5.0, "schema": self.schema} | options
        return await self._stack.enter_async_context(PostgresStore(self.server.url, **more))

    async def die(self, store: Store) -> None:
        """End a store with its jobs still claimed."""
        await store.__aexit__(None, None, None)

    def context(self, job_id: JobId) -> bytes | None:
        """The sealed context that is kept of a job."""
        ((context,),) = self.server.ask(
            f"SELECT context FROM {self.schema}.payloads JOIN {self.schema}.jobs USING (seq) WHERE id = %s",
            job_id,
        )
        return context

    def rows(self, table: str) -> int:
        """How many rows a table has."""
        ((count,),) = self.server.ask(f"SELECT count(*) FROM {self.schema}.{table}")
        return count

    async def close(self) -> None:
        """Close every store."""
        await self._stack.aclose()


class Backend(Protocol):
    """Where jobs are kept, for a test: a store each for as many processes as it plays."""

    async def open(self) -> Store: ...
    async def die(self, store: Store) -> None: ...
    def context(self, job_id: JobId) -> bytes | None: ...
    def rows(self, table: str) -> int: ...
    async def close(self) -> None: ...


BACKENDS: dict[str, Callable[[Path], Backend]] = {
    "sqlite": lambda folder: SQLiteBackend(folder / "jobs.db"),
    "postgres": lambda _: PostgresBackend(postgres.shared()),
}


def invocations(*jobs: Job) -> list[Invocation]:
    """The attempts that claiming these jobs began."""
    return [Invocation.of(job) for job in jobs]
