"""Commits, one after another, under the gate: what a writer does on its connection's thread."""

import logging
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from jobs.errors import DatabaseUnusable, StoreBusy
from jobs.model import now_ms
from jobs.protocols import Wake

from .ballast import Ballast
from .connection import touch
from .faults import is_damage, is_disk_failure, is_full, primary_code, short, translated
from .gate import Gate, patiently
from .place import Original
from .verbs import Committed, Request

log = logging.getLogger("jobs.store")

_CHECKPOINT_BYTES = 4 << 20  #: of log, about; then it is copied into the database
_COMMIT_BYTES = 20_000  #: of log that the smallest commit writes: a page of each index it touches
_QUIET = 0.5  #: seconds without a write, after which the log is emptied; a dispatcher writes every second


@dataclass(slots=True)
class Transaction:
    """What the verbs of one transaction share."""

    connection: sqlite3.Connection
    claimant: str
    now: int  #: ms
    wake: Wake  #: what the transaction changes, for the doorbell
    size: int = 0  #: bytes, about, that it adds to the log


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


class Commits:
    """Commits batches of requests to one database file.

    `original` is that file, and `ballast` what lies beside it for a full disk."""

    def __init__(
        self, gate: Gate, path: Path, *, claimant: str, ballast: Ballast, original: Original
    ) -> None:
        self._gate, self._path, self._claimant = gate, path, claimant
        self._ballast, self._original = ballast, original
        self._version: int | None = None  #: moves with the commits of others
        self._logged = 0  #: bytes, about, since the last checkpoint
        self._last_work = 0.0
        self._damage: str | None = None
        self.failure: str | None = None
        """What the disk did last, until something has been written and synced again."""

    def commit(
        self, connection: sqlite3.Connection, batch: Sequence[Request], deadline: float
    ) -> Committed:
        """All requests, which are sorted by their verb's order, in one transaction; if that fails, in one
        each, so that a failure is only its own caller's. Raises what all of them fail with."""
        try:
            with self._gate.held(deadline):
                committed = self._commit(connection, batch, deadline)
        except Exception as error:
            self._note(error)
            raise
        finally:
            self._last_work = time.monotonic()
        self.failure = None
        self._note(committed.failure)
        return committed

    def look(self, connection: sqlite3.Connection) -> bool:
        """Whether other processes have committed since the last look. Empties the log when all is quiet,
        and looks after the ballast."""
        if self._ballast.due:
            with suppress(StoreBusy, OSError), self._gate.held(0.0):
                self._ballast.tend()
        if self._logged and time.monotonic() - self._last_work > _QUIET:
            self._last_work = time.monotonic()
            with suppress(StoreBusy), self._gate.held(0.0):
                self._note(self._checkpoint(connection, "TRUNCATE"))
        try:
            before, self._version = self._version, _data_version(connection)
        except sqlite3.Error:
            return False  # the next write will say what is wrong
        return before != self._version

    def _note(self, error: Exception | None) -> None:
        if error is None:
            return
        if is_disk_failure(error):
            self.failure = str(translated(error, self._path))
        elif is_damage(error) and self._damage is None:
            self._damage = str(translated(error, self._path))
            log.critical("nothing more is written: %s", self._damage)

    def _commit(
        self, connection: sqlite3.Connection, batch: Sequence[Request], deadline: float
    ) -> Committed:
        if self._damage is not None:
            raise DatabaseUnusable(self._damage)
        self._original.check()
        try:
            committed = self._transact(connection, batch, deadline)
        except Exception as error:
            if len(batch) == 1 or isinstance(error, StoreBusy) or _is_everybodys(error):
                raise
            committed = self._replay(connection, batch, deadline)
        if self._logged >= _CHECKPOINT_BYTES:
            failure = self._checkpoint(connection, "PASSIVE")
            committed = replace(committed, failure=committed.failure or failure)
        return committed

    def _transact(
        self, connection: sqlite3.Connection, batch: Sequence[Request], deadline: float
    ) -> Committed:
        """One transaction; if the disk is full, once more with the ballast for what may use it."""
        try:
            return self._transact_once(connection, batch, deadline)
        except sqlite3.Error as error:
            vital = all(request.verb.vital for request in batch)
            if not (is_full(error) and vital and self._ballast.spend()):
                raise
        # The log must not take it all: what is in it may fit into the database's free pages.
        self._checkpoint(connection, "TRUNCATE")
        return self._transact_once(connection, batch, deadline)

    def _transact_once(
        self, connection: sqlite3.Connection, batch: Sequence[Request], deadline: float
    ) -> Committed:
        failed = self.failure is not None
        durable = failed or any(request.verb.durable for request in batch)
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        patiently(partial(_begin, connection), deadline)
        try:
            version = _data_version(connection)
            wake = Wake(0) if version == self._version else ~Wake(0)
            transaction = Transaction(connection, self._claimant, now_ms(), wake)
            results: list[Any] = []
            whole = self._ballast.tend()
            for verb, requests in groupby(batch, key=attrgetter("verb")):
                payloads = [request.payload for request in requests]
                if whole or verb.vital:
                    results += verb.apply(transaction, payloads)
                else:
                    results += [short(self._path) for _ in payloads]
            if failed:
                touch(connection)  # a commit of nothing would prove nothing
            connection.execute("COMMIT")
            self._version = version
            self._logged += _COMMIT_BYTES + transaction.size
        except BaseException:
            with suppress(sqlite3.Error):
                connection.rollback()
            raise
        return Committed(results, transaction.wake)

    def _replay(
        self, connection: sqlite3.Connection, batch: Sequence[Request], deadline: float
    ) -> Committed:
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
                failure = error if _is_everybodys(error) else None
            else:
                results += committed.results
                wake |= committed.wake
        return Committed(results, wake, failure)

    def _checkpoint(self, connection: sqlite3.Connection, mode: str) -> Exception | None:
        """Under the gate only. What a reader holds up, or a full disk, is left for the next time."""
        try:
            (held_up, _, _) = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error as error:
            return error
        if not held_up:
            self._logged = 0
        return None


def _is_everybodys(error: Exception) -> bool:
    return is_disk_failure(error) or is_damage(error)
