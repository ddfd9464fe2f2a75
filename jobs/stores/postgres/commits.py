"""Commits, one after another, on one session: what a writer does on its thread.

The server may go at any moment, and come back. What was under way is then done again on a new session,
until the deadline; but a transaction whose COMMIT was not answered may have been committed. The server
knows: it is asked by the transaction's number, as long as it has not crashed since.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

import psycopg
from psycopg import errors

from jobs.errors import StoreError
from jobs.model import JobId
from jobs.protocols import Wake
from jobs.stores.reasons import NOT_BEGUN
from jobs.stores.verbs import Committed, Request

from .queries import SQL
from .server import Server, cut, is_unreachable, pause

log = logging.getLogger("jobs.store")

JUDGE_AFTER = 2.0
"""Seconds of its own session before a process judges others: after a restart of the server they may be
just about to come back, too."""

_CONFLICTS = (errors.DeadlockDetected, errors.SerializationFailure)
_NOTHING = Wake(0)


@dataclass(slots=True)
class Transaction:
    """What the verbs of one transaction share."""

    connection: psycopg.Connection[tuple[Any, ...]]
    claimant: str
    host: str  #: that this process runs on
    now: int  #: ms, by the clock of the database
    held: dict[JobId, int]  #: the attempts that this process has claimed and not accounted for
    judges: bool  #: whether it may say who is dead
    wake: Wake = _NOTHING  #: what the transaction changes, for the doorbell
    news: Wake = _NOTHING  #: the same, for the doorbells of other processes alone
    took: list[tuple[JobId, int]] = field(default_factory=list)
    gave: list[tuple[JobId, int]] = field(default_factory=list)

    def fetch(self, name: str, **values: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        return self.connection.execute(SQL[name], values).fetchall()

    def run(self, name: str, **values: Any) -> int:
        """Run a statement that has no rows; how many it has changed."""
        return self.connection.execute(SQL[name], values).rowcount


class _Number(NamedTuple):
    """Of a transaction: the server's number for it, and when it began, in ms by the server's clock."""

    xid: str
    began: int


class _Unanswered(Exception):
    """The session ended with the COMMIT, and whether that took place has not been found out."""


class Commits:
    """Commits batches of requests. To be used on one thread, but for `held` and `cut`."""

    def __init__(self, server: Server, claimant: str, host: str, channel: str) -> None:
        self._server, self._channel = server, channel
        self._claimant, self._host = claimant, host
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._since = 0.0  #: when it was made
        self._unanswered: list[_Number] = []
        self._away = False  #: whether the server could not be reached the last time
        self.held: dict[JobId, int] = {}
        """The attempts claimed here and neither finished nor released."""

    def commit(self, batch: Sequence[Request], deadline: float) -> Committed:
        """All requests, which are sorted by their verb's order, in one transaction; if that fails, in one
        each, so that a failure is only its own caller's. Raises what all of them fail with."""
        if self._away:
            deadline = 0.0  # nobody is to wait as long again for what is known
        while True:
            connection = self._connected(deadline)
            try:
                return self._all(connection, batch, deadline)
            except psycopg.Error as error:
                undone = connection.closed or isinstance(error, _CONFLICTS)
                if not undone or time.monotonic() >= deadline:
                    raise
            except _Unanswered as error:
                raise StoreError(
                    f"{self._server.location} was lost in the middle of a commit: it is not known whether"
                    " that took place"
                ) from error

    def cut(self) -> None:
        """Give up what the server does not answer. From another thread."""
        if (connection := self._connection) is not None:
            cut(connection)

    def close(self) -> None:
        """End the session."""
        if self._connection is not None:
            self._connection.close()

    def _connected(self, deadline: float) -> psycopg.Connection[tuple[Any, ...]]:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        while True:
            try:
                self._connection = self._server.connect()
            except psycopg.Error as error:
                if not pause(deadline):
                    if not self._away:
                        log.error("%s", self._server.translated(error))
                    self._away = True
                    raise
            else:
                if self._away:
                    log.warning("%s is back", self._server.location)
                self._since, self._away = time.monotonic(), False
                return self._connection

    def _all(
        self,
        connection: psycopg.Connection[tuple[Any, ...]],
        batch: Sequence[Request],
        deadline: float,
    ) -> Committed:
        try:
            return self._transact(connection, batch, deadline)
        except psycopg.Error as error:
            if connection.closed or len(batch) == 1 or is_unreachable(error):
                raise
        return self._replay(batch, deadline)

    def _replay(self, batch: Sequence[Request], deadline: float) -> Committed:
        results: list[Any] = []
        wake = _NOTHING
        for request in batch:
            try:
                committed = self.commit([request], deadline)
            except Exception as error:  # noqa: BLE001 - it is raised to the caller
                results.append(self._server.translated(error))
            else:
                results += committed.results
                wake |= committed.wake
        return Committed(results, wake)

    def _transact(
        self,
        connection: psycopg.Connection[tuple[Any, ...]],
        batch: Sequence[Request],
        deadline: float,
    ) -> Committed:
        begun = connection.execute(SQL["begin"], prepare=False)
        begun.nextset()
        xid, now = begun.fetchone() or ("", 0)
        try:
            if not any(request.verb.durable for request in batch):
                connection.execute("SET LOCAL synchronous_commit = off")
            judges = time.monotonic() - self._since > JUDGE_AFTER
            me = self._claimant, self._host
            transaction = Transaction(connection, *me, now, self.held, judges)
            unsettled = self._settle(transaction)
            results: list[Any] = []
            for verb, requests in groupby(batch, key=attrgetter("verb")):
                results += verb.apply(transaction, [request.payload for request in requests])
        except BaseException:
            with suppress(psycopg.Error):
                connection.execute("ROLLBACK")
            raise
        self._end(transaction, _Number(xid, now), deadline)
        self._unanswered = unsettled
        for job_id, attempt in transaction.gave:
            if self.held.get(job_id) == attempt:
                del self.held[job_id]
        self.held.update(transaction.took)
        return Committed(results, transaction.wake)

    def _end(self, transaction: Transaction, number: _Number, deadline: float) -> None:
        connection, news = transaction.connection, transaction.wake | transaction.news
        told = (
            f"SELECT pg_notify('{self._channel}', '{news.value} {self._claimant}');" if news else ""
        )
        try:
            connection.execute(f"{told} COMMIT", prepare=False)
        except psycopg.Error as error:
            if not connection.closed:
                raise
            self._unanswered.append(number)
            status = self._status(number, deadline)
            if status not in ("committed", "aborted"):
                raise _Unanswered from error
            self._unanswered.remove(number)
            if status == "aborted":
                raise

    def _status(self, number: _Number, deadline: float) -> str | None:
        """What became of a transaction; None if the server does not know yet, or cannot be asked."""
        while True:
            with suppress(psycopg.Error):
                asked = self._connected(deadline).execute(SQL["status"], number._asdict())
                ((status,),) = asked.fetchall()
                if status != "in progress":
                    return str(status)
            if not pause(deadline):
                return None

    def _settle(self, transaction: Transaction) -> list[_Number]:
        """Give back what a transaction claimed that nobody here knows of; those that are still to be asked for."""
        if not self._unanswered:
            return []
        unsettled = [
            number
            for number in self._unanswered
            if transaction.fetch("status", **number._asdict()) == [("in progress",)]
        ]
        transaction.run(
            "disown",
            claimant=self._claimant,
            now=transaction.now,
            held=list(self.held),
            not_begun=NOT_BEGUN,
        )
        transaction.wake |= Wake.WORK
        return unsettled


def keys(attempts: Iterable[Any]) -> list[tuple[JobId, int]]:
    """The attempts that these are about."""
    return [(each.job_id, each.attempt) for each in attempts]
