"""Jobs in a PostgreSQL database, for any number of processes on any number of machines."""

import asyncio
import logging
import os
import secrets
import socket
import time
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import NamedTuple, Self

import psycopg

from jobs.errors import DatabaseUnusable, StoreError
from jobs.model import JobId
from jobs.stores.background import end
from jobs.stores.bell import Bell
from jobs.stores.claimant import new_name
from jobs.stores.grouped import GroupedStore, Verbs

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
    ENTER,
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


class PostgresStore(GroupedStore):
    """A `Store`; see there for what each method promises. To be opened once.

    `busy_timeout`: seconds that a write waits for other programs, or for a server that has gone;
    `queue_limit`: jobs that may wait to be added; `schema`: where the tables are. Opening waits
    `patience` seconds for the server, migrates the database, and raises `StoreError`."""

    _verbs = Verbs(
        add=ADD,
        claim=CLAIM,
        claim_these=CLAIM_THESE,
        publish=PUBLISH,
        unpublish=UNPUBLISH,
        finish=FINISH,
        say=SAY,
        release=RELEASE,
        cancel=CANCEL,
        cancel_many=CANCEL_MANY,
        retry=RETRY,
        prune=PRUNE,
        add_key=ADD_KEY,
        revoke_key=REVOKE_KEY,
        enter=ENTER,
    )

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

    async def check(self) -> None:
        """See `Store.check`. Commits, and so finds out."""
        await self._parts.writer.submit(PROBE, None)


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
