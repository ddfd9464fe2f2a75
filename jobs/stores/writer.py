"""Group commit: whoever waits while a commit is under way forms the next one.

One task, one connection, one transaction at a time, which is one function on the connection's thread
from BEGIN to COMMIT; nobody awaits inside it, so a caller that goes away leaves nothing open.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, Generic, TypeVar

from jobs.errors import StoreBusy, StoreError
from jobs.model import now_ms
from jobs.protocols import Wake

from .connection import Connection
from .faults import is_disk_failure, primary_code, translated
from .gate import Gate, patiently

_CHECKPOINT_BYTES = 4 << 20  #: of log, about; then it is copied into the database
_COMMIT_BYTES = 20_000  #: of log that the smallest commit writes: a page of each index it touches
_QUIET = 0.5  #: seconds without a write, after which the log is emptied; a dispatcher writes every second

P = TypeVar("P")
R = TypeVar("R")


@dataclass(slots=True)
class Transaction:
    """What the verbs of one transaction share."""

    connection: sqlite3.Connection
    claimant: str
    now: int  #: ms
    wake: Wake  #: what the transaction changes, for the doorbell
    size: int = 0  #: bytes, about, that it adds to the log


@dataclass(frozen=True, slots=True, eq=False)
class Verb(Generic[P, R]):
    """One kind of write. `apply` does all of a transaction's requests of the kind, and returns one result
    each, in order; a result that is an exception is raised to its caller alone."""

    order: int  #: place within a transaction
    apply: Callable[[Transaction, Sequence[P]], Sequence[R | Exception]]
    durable: bool = True
    """Whether it must survive a loss of power. What need not costs no sync of the disk of its own."""


@dataclass(slots=True)
class _Request:
    verb: Verb[Any, Any]
    payload: Any
    future: "asyncio.Future[Any]"


@dataclass(frozen=True, slots=True)
class _Committed:
    results: Sequence[Any]
    wake: Wake
    failure: Exception | None = None  #: of the disk, after the commit


def _begin(connection: sqlite3.Connection) -> bool:
    """Whether the database could be locked for writing."""
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if primary_code(error) != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def _data_version(connection: sqlite3.Connection) -> int:
    """A number that changes when another connection has committed."""
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return int(version)


class Writer:
    """Takes writes from any number of tasks of one event loop."""

    def __init__(
        self,
        connection: Connection,
        gate: Gate,
        path: Path,
        *,
        claimant: str,
        busy_timeout: float,
        queue_limit: int,
        ring: Callable[[Wake], None],
    ) -> None:
        self._connection, self._gate, self._path = connection, gate, path
        self._claimant, self._busy_timeout, self._queue_limit = claimant, busy_timeout, queue_limit
        self._ring = ring
        self._waiting: list[_Request] = []
        self._rows = 0  #: of the waiting requests
        self._awake = asyncio.Event()
        self._closing = False
        self._version: int | None = None  #: moves with the commits of others
        self._logged = 0  #: bytes, about, since the last checkpoint
        self._writing = False
        self._last_work = 0.0
        self.failure: str | None = None  #: what the disk did last, until a write succeeds
        self._task = asyncio.create_task(self._run(), name="jobs: store writer")

    def submit(self, verb: Verb[P, R], payload: P, *, rows: int = 0) -> "asyncio.Future[R]":
        """Put a write into the next transaction. Its future is done after the commit; cancelling the
        future does not take the write back.

        `rows` count against the limit of the queue. Raises `StoreBusy` if too much is waiting."""
        if self._closing or self._task.done():
            raise StoreError("the store is closed")
        if rows and self._rows >= self._queue_limit:
            raise StoreBusy(f"{self._rows} jobs are waiting to be stored: try again")
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        if not self._waiting:
            self._awake.set()
        self._waiting.append(_Request(verb, payload, future))
        self._rows += rows
        return future

    async def close(self) -> None:
        """Finish what is waiting, and end."""
        self._closing = True
        self._awake.set()
        await asyncio.wait({self._task})

    async def look(self) -> None:
        """Ring for what other processes have committed; empty the log when all is quiet."""
        if not self._writing and await self._connection.run(self._look):
            self._ring(~Wake(0))

    async def _run(self) -> None:
        batch: list[_Request] = []
        try:
            while True:
                await self._awake.wait()
                self._awake.clear()
                batch, self._waiting, self._rows = self._waiting, [], 0
                if batch:
                    await self._write(batch)
                    batch = []
                elif self._closing:
                    break
                if self._closing:
                    await asyncio.sleep(0)  # a claim that nobody waited for is given back now
                    self._awake.set()
        finally:
            for request in batch + self._waiting:
                request.future.cancel()

    async def _write(self, batch: list[_Request]) -> None:
        batch.sort(key=attrgetter("verb.order"))
        self._writing = True
        try:
            if self.failure is not None:
                await self._connection.reopen()
            committed = await self._connection.run(self._commit, batch)
        except Exception as error:  # noqa: BLE001 - it is raised to the callers
            results: Sequence[Any] = [translated(error, self._path) for _ in batch]
            self._note(error)
        else:
            results = committed.results
            self.failure = None
            self._note(committed.failure)
            self._ring(committed.wake)
        finally:
            self._writing = False
            self._last_work = time.monotonic()
        for request, result in zip(batch, results, strict=True):
            if request.future.done():
                continue
            if isinstance(result, Exception):
                request.future.set_exception(result)
            else:
                request.future.set_result(result)

    def _note(self, error: Exception | None) -> None:
        if error is not None and is_disk_failure(error):
            self.failure = str(translated(error, self._path))

    # What follows runs on the connection's thread.

    def _commit(self, connection: sqlite3.Connection, batch: Sequence[_Request]) -> _Committed:
        deadline = time.monotonic() + self._busy_timeout
        with self._gate.held(deadline):
            try:
                committed = self._transact(connection, batch, deadline)
            except Exception as error:
                if len(batch) == 1 or isinstance(error, StoreBusy) or is_disk_failure(error):
                    raise
                committed = self._replay(connection, batch, deadline)
            if self._logged >= _CHECKPOINT_BYTES:
                failure = self._checkpoint(connection, "PASSIVE")
                committed = replace(committed, failure=committed.failure or failure)
        return committed

    def _transact(
        self, connection: sqlite3.Connection, batch: Sequence[_Request], deadline: float
    ) -> _Committed:
        durable = any(request.verb.durable for request in batch)
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        patiently(partial(_begin, connection), deadline)
        try:
            version = _data_version(connection)
            wake = Wake(0) if version == self._version else ~Wake(0)
            transaction = Transaction(connection, self._claimant, now_ms(), wake)
            results: list[Any] = []
            for verb, requests in groupby(batch, key=attrgetter("verb")):
                results += verb.apply(transaction, [request.payload for request in requests])
            connection.execute("COMMIT")
            self._version = version
            self._logged += _COMMIT_BYTES + transaction.size
        except BaseException:
            with suppress(sqlite3.Error):
                connection.rollback()
            raise
        return _Committed(results, transaction.wake)

    def _replay(
        self, connection: sqlite3.Connection, batch: Sequence[_Request], deadline: float
    ) -> _Committed:
        """One transaction each, so that a failure is only its own caller's."""
        results: list[Any] = []
        wake = Wake(0)
        failure: Exception | None = None
        for request in batch:
            try:
                if failure is not None:
                    raise failure
                committed = self._transact(connection, [request], deadline)
            except Exception as error:  # noqa: BLE001 - it is raised to the caller
                results.append(translated(error, self._path))
                failure = error if is_disk_failure(error) else None
            else:
                results += committed.results
                wake |= committed.wake
        return _Committed(results, wake, failure)

    def _look(self, connection: sqlite3.Connection) -> bool:
        if self._logged and time.monotonic() - self._last_work > _QUIET:
            self._last_work = time.monotonic()
            with suppress(StoreBusy), self._gate.held(0.0):
                self._note(self._checkpoint(connection, "TRUNCATE"))
        try:
            before, self._version = self._version, _data_version(connection)
        except sqlite3.Error:
            return False  # the next write will say what is wrong
        return before != self._version

    def _checkpoint(self, connection: sqlite3.Connection, mode: str) -> Exception | None:
        """Under the gate only. What a reader holds up, or a full disk, is left for the next time."""
        try:
            (held_up, _, _) = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error as error:
            return error
        if not held_up:
            self._logged = 0
        return None
