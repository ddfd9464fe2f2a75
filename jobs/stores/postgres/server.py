"""The database server: its address, sessions with it, and what its errors mean to a caller."""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import errors
from psycopg.abc import Buffer
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.string import StrDumperUnknown

from jobs.errors import (
    ConfigurationError,
    DatabaseMoved,
    DatabaseUnusable,
    StoreBusy,
    StoreError,
    StoreFull,
)

SCHEMA = "quart_jobs"  #: of our tables, which thereby share a database with others' in peace
OLDEST = 140_000  #: server version
MOVING = "QJMOV"  #: the error of the triggers that refuse services until a move is over

_CONNECT_SECONDS = 5
_SETTINGS = """
SET search_path = {schema};
SET statement_timeout = 0;
SET lock_timeout = {lock_ms};
SET idle_in_transaction_session_timeout = 60000;
SET jit = off;
-- A peer that is cut off is noticed in about 15 s: here by the server, which then frees what the session holds.
SET tcp_keepalives_idle = 5;
SET tcp_keepalives_interval = 3;
SET tcp_keepalives_count = 3;
SET tcp_user_timeout = 15000;
-- Each statement has an index for each table. Plans are made once, perhaps while the tables are empty, and have
-- to be right when they are not: so no plan may depend on how many rows there seem to be.
SET plan_cache_mode = force_generic_plan;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SELECT set_config('synchronous_commit', 'on', false)
WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write');
"""


class Server:
    """A database by its URL, and the sessions that a store has with it.

    `busy_timeout`: seconds that a statement waits for rows which another program has locked. Raises
    `ConfigurationError` for what is no URL; none of its errors tells the password."""

    def __init__(self, url: str, *, busy_timeout: float, schema: str = SCHEMA) -> None:
        try:
            given = conninfo_to_dict(url)
        except psycopg.Error:
            raise ConfigurationError(
                "setting 'database' (JOBS_DATABASE): the address of the PostgreSQL database cannot be read:"
                " postgresql://user@host:5432/name; what is not a letter, digit or one of -._~ in a password"
                " is written as %XX"
            ) from None
        self.schema = schema
        self._settings = _SETTINGS.format(schema=schema, lock_ms=max(1, round(busy_timeout * 1000)))
        self._parameters: dict[str, Any] = {
            "client_encoding": "UTF8",
            "connect_timeout": _CONNECT_SECONDS,
            "target_session_attrs": "read-write",
            "application_name": "quart-jobs",
            # The same on this side.
            "keepalives_idle": 5,
            "keepalives_interval": 3,
            "keepalives_count": 3,
            "tcp_user_timeout": 15_000,
        } | given
        name = given.get("dbname") or given.get("user") or os.environ.get("PGDATABASE", "")
        host = given.get("host") or given.get("hostaddr") or os.environ.get("PGHOST") or "this host"
        port = f":{given['port']}" if given.get("port") else ""
        self.location = f"the PostgreSQL database {name} on {host}{port}"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """For psycopg's connect, of which each kind of connection has its own."""
        return {**self._parameters, "autocommit": True}

    @property
    def settings(self) -> str:
        """What each session says first."""
        return self._settings

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A session. Raises `psycopg.Error`."""
        connection = psycopg.connect(**self.parameters)
        try:
            prepare(connection, self.settings)
        except BaseException:
            connection.close()
            raise
        return connection

    async def connect_async(self) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        """A session for the event loop. Raises `psycopg.Error`."""
        connection = await psycopg.AsyncConnection.connect(**self.parameters)
        try:
            await prepare_async(connection, self.settings)
        except BaseException:
            await connection.close()
            raise
        return connection

    def translated(self, error: BaseException) -> Exception:
        """The `StoreError` that says the same; an error that is not the database's stays itself."""
        if not isinstance(error, psycopg.Error):
            return error if isinstance(error, Exception) else RuntimeError(str(error))
        said = first_line(error)
        if error.sqlstate == MOVING:
            return DatabaseMoved(said)
        if isinstance(error, errors.DiskFull):
            return StoreFull(f"the disk of {self.location} is full, so nothing can be written")
        if isinstance(
            error,
            errors.LockNotAvailable
            | errors.DeadlockDetected
            | errors.SerializationFailure
            | errors.QueryCanceled,
        ):
            return StoreBusy(f"{self.location} is locked by another program ({said})")
        if isinstance(error, errors.ReadOnlySqlTransaction):
            return DatabaseUnusable(f"{self.location} is read-only: name its primary server")
        if is_unreachable(error):
            return StoreError(f"{self.location} cannot be reached: {said}")
        return StoreError(f"{self.location} refused it: {said}")


def prepare(connection: psycopg.Connection[Any], settings: str) -> None:
    """Say what a session says first."""
    connection.execute(settings, prepare=False)
    _suit(connection)


async def prepare_async(connection: psycopg.AsyncConnection[Any], settings: str) -> None:
    """The same, for the event loop."""
    await connection.execute(settings, prepare=False)
    _suit(connection)


def _suit(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    connection.prepare_threshold = 1
    connection.adapters.register_dumper(str, _Text)


class _Text(StrDumperUnknown):
    """A text may not hold a NUL here: nothing is found by one, which is no failure of the database."""

    def dump(self, obj: str) -> Buffer | None:
        return super().dump(obj.replace("\0", "\ufffd"))


def is_unreachable(error: psycopg.Error) -> bool:
    """Whether the server was not there, or has gone."""
    gone = errors.AdminShutdown | errors.CrashShutdown | errors.CannotConnectNow
    if isinstance(error, gone | errors.TooManyConnections):
        return True
    return isinstance(error, psycopg.OperationalError) and (
        error.sqlstate is None or error.sqlstate.startswith("08")
    )


def will_not_pass(error: psycopg.Error) -> bool:
    """Whether the server, asked for a connection, refused it for a reason that waiting does not cure. It
    says so in words alone."""
    said = str(error)
    return "FATAL" in said and not any(
        word in said
        for word in ("starting up", "shutting down", "recovery", "too many", "reserved")
    )


def cut(connection: psycopg.Connection[Any]) -> None:
    """End what a connection waits for in another thread, with a failure."""
    with (
        suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(connection.fileno())) as line,
    ):
        line.shutdown(socket.SHUT_RDWR)


def pause(deadline: float) -> bool:
    """Wait a moment before the next try to connect; False if there is no time for one."""
    left = deadline - time.monotonic()
    if left <= 0:
        return False
    time.sleep(min(0.2, left))
    return True


def first_line(error: Exception) -> str:
    """What an error says, in short."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
