"""SQLite connections: how they are set up, and the thread that each of them lives on."""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Concatenate, ParamSpec, TypeVar

import aiosqlite

from jobs.errors import DatabaseUnusable, StoreBusy

from .faults import damaged
from .gate import Gate
from .place import Place

_QUICK_CHECK_BYTES = 8 << 20  #: a larger file is not examined at start: about 10 ms a megabyte

P = ParamSpec("P")
R = TypeVar("R")


def connect_writer(place: Place, timeout: float) -> sqlite3.Connection:
    """A connection that writes; its caller holds the gate. Creates the file. Waits for nobody once it is open.

    `timeout`: seconds to wait for other programs. Raises `sqlite3.Error`, and `DatabaseUnusable` if the
    file is damaged."""
    if not place.path.exists():
        os.close(os.open(place.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    connection = _connect(place, "rw", timeout)
    try:
        if place.path.stat().st_size <= _QUICK_CHECK_BYTES:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise damaged(place.path, verdict)
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise DatabaseUnusable(
                f"SQLite cannot keep a write-ahead log beside {place.path}: name a file on a local disk"
            )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA secure_delete = ON")
        # Else every UPDATE keeps its undo journal in a temporary file: five times as slow.
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA busy_timeout = 0")
    except BaseException:
        connection.close()
        raise
    return connection


def touch(connection: sqlite3.Connection) -> None:
    """Within a transaction, write something that changes nothing: its commit says whether writing works."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {version}")


def close_writer(connection: sqlite3.Connection, gate: Gate, deadline: float) -> None:
    """Leave everything in the database file itself, and close, for whoever closes last also checkpoints."""
    with suppress(StoreBusy, sqlite3.Error), gate.held(deadline):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
    # The gate's holder has the database open, so this would not be the last.
    connection.close()


def connect_reader(place: Place, timeout: float) -> sqlite3.Connection:
    """A connection that cannot write, nor checkpoint when it closes; its caller holds the gate."""
    connection = _connect(place, "ro", timeout)
    try:
        connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(place: Place, mode: str, timeout: float) -> sqlite3.Connection:
    # Another thread closes it only if its own has ended before.
    return sqlite3.connect(
        f"{place.path.as_uri()}?mode={mode}",
        timeout=timeout,
        uri=True,
        isolation_level=None,
        check_same_thread=False,
    )


class Connection:
    """A connection on a thread of its own. A call is one hop there and back, and once begun it runs to
    its end, whatever becomes of its caller: so a whole transaction is one function."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        shut: Callable[[sqlite3.Connection], None] = sqlite3.Connection.close,
    ) -> None:
        self._connect, self._shut = connect, shut
        self._aio = aiosqlite.Connection(self._first, iter_chunk_size=64)
        self._made: sqlite3.Connection | None = None
        self._open = False

    def _first(self) -> sqlite3.Connection:
        self._made = self._connect()
        return self._made

    async def open(self) -> None:
        """Connect; what `connect` raises comes out here, and leaves neither thread nor connection."""

        async def opened() -> None:
            await self._aio
            self._open = True

        try:
            await to_the_end(opened())
        except asyncio.CancelledError:
            await self.close()
            raise
        finally:
            if not self._open:
                # It has nothing left to do but to say so to this loop, which may be about to close.
                self._aio._thread.join()  # noqa: SLF001
                # aiosqlite forgets a connection that comes when nobody waits for it any more.
                if self._made is not None:
                    self._made.close()
            self._made = None

    async def run(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Call the function with the connection, on its thread."""
        # The one use of aiosqlite's private call: its public ones are a hop, and an await, a statement.
        execute: Any = self._aio._execute  # noqa: SLF001
        result: R = await execute(self._call, function, args, kwargs)
        return result

    def _call(self, function: Callable[..., R], args: Any, kwargs: Any) -> R:
        return function(self._aio._conn, *args, **kwargs)  # noqa: SLF001

    async def reopen(self) -> None:
        """Connect anew in place of the connection there is; if that fails, the old one stays."""
        await self.run(self._replace)

    def _replace(self, old: sqlite3.Connection) -> None:
        self._aio._connection = self._connect()  # noqa: SLF001
        old.close()

    async def close(self) -> None:
        """End the connection and its thread, even if cancelled meanwhile."""

        async def closed() -> None:
            try:
                await self.run(self._shut)
            finally:
                await self._aio.close()

        if self._open:
            self._open = False
            await to_the_end(closed())


async def to_the_end(work: Coroutine[Any, Any, R]) -> R:
    """Await work that must not stop half-way: a cancellation waits until it is done."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        if not task.cancelled():
            task.exception()
        raise asyncio.CancelledError
    return task.result()
