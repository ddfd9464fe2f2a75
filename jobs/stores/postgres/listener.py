"""The doorbell across processes, and the sign of life: one session that listens and holds a lock.

The lock ends with the session, and that with the process or its machine. A session may also end by itself;
what was said before the next one listens has been missed, so it begins with a ring for everything.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg

from jobs.protocols import Wake

from .server import Server, first_line

log = logging.getLogger("jobs.store")

LOOK_EVERY = 2.0  #: seconds between looks whether the session still answers
_ANSWER = 5.0  #: seconds that an answer may take
_PAUSE = 0.25  #: seconds before the next try to connect


class Listener:
    """Rings for what other processes say on `channel`, and holds the advisory lock `lock`."""

    def __init__(
        self, server: Server, channel: str, claimant: str, lock: int, ring: Callable[[Wake], None]
    ) -> None:
        self._server, self._channel, self._claimant = server, channel, claimant
        self._lock, self._ring = lock, ring
        self._locked = False
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Listen, and hold the lock, from the return on. Raises `psycopg.Error`."""
        connection = await self._connect()
        self._task = asyncio.create_task(self._run(connection), name="jobs: store listener")

    async def close(self) -> None:
        """Let go of the lock."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _connect(self) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        connection = await self._server.connect_async()
        try:
            self._locked = False
            await self._hold(connection)
            await connection.execute(f'LISTEN "{self._channel}"')
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _hold(self, connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        """The server may still think an earlier session alive, which then holds the lock for us."""
        if not self._locked:
            held = await connection.execute("SELECT pg_try_advisory_lock(%s)", (self._lock,))
            self._locked = await held.fetchone() == (True,)

    async def _run(self, connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        while True:
            try:
                await self._hear(connection)
            except (psycopg.Error, TimeoutError) as error:
                log.warning(
                    "no longer hearing from %s: %s", self._server.location, first_line(error)
                )
            finally:
                await connection.close()
            connection = await self._connected_again()
            log.warning("hearing from %s again", self._server.location)
            self._ring(~Wake(0))

    async def _hear(self, connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        while True:
            async for note in connection.notifies(timeout=LOOK_EVERY):
                wake, _, sender = note.payload.partition(" ")
                if sender != self._claimant:
                    self._ring(Wake(int(wake)))
            async with asyncio.timeout(_ANSWER):
                await connection.execute("SELECT 1")
                await self._hold(connection)

    async def _connected_again(self) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        while True:
            with suppress(psycopg.Error):
                return await self._connect()
            await asyncio.sleep(_PAUSE)
