"""Brings the schema in a PostgreSQL database to that of this code, forward only.

All that is missing is one transaction, under a lock: processes that start together wait for each other.
"""

from typing import Any

import psycopg

from jobs.errors import DatabaseUnusable, StoreError
from jobs.model import now_ms
from jobs.stores.migrate import migrations

from .server import OLDEST, Server

_RECORDS = """
CREATE TABLE IF NOT EXISTS migrations (
    number integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL, applied_at bigint NOT NULL
)
"""


def migrate(server: Server) -> list[int]:
    """Bring a database up to date; the numbers of the migrations applied. Raises `StoreError`."""
    try:
        with server.connect() as connection:
            return apply(connection, server)
    except psycopg.Error as error:
        raise server.translated(error) from error


def apply(connection: psycopg.Connection[tuple[Any, ...]], server: Server) -> list[int]:
    """Apply what is missing. Raises `DatabaseUnusable`, and changes nothing, if the database cannot hold the
    jobs, is newer than this code, or was migrated by other files than these."""
    _check_server(connection, server)
    if not missing(connection, server):
        return []
    with connection.transaction():
        connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"migrate {server.schema}",)
        )
        try:
            # Where it is there already, IF NOT EXISTS would still ask for the right to make it.
            if connection.execute(
                "SELECT to_regnamespace(%s) IS NULL", (server.schema,)
            ).fetchone() == (True,):
                connection.execute(f"CREATE SCHEMA {server.schema}")
            connection.execute(_RECORDS)
        except psycopg.errors.InsufficientPrivilege as error:
            raise DatabaseUnusable(
                f"in {server.location} this user may not make the schema {server.schema}: let its owner say"
                f" CREATE SCHEMA {server.schema} AUTHORIZATION <user>"
            ) from error
        done = []
        for number in missing(connection, server):
            migration = migrations("postgres")[number - 1]
            connection.execute(migration.sql, prepare=False)
            connection.execute(
                "INSERT INTO migrations VALUES (%s, %s, %s, %s)",
                (number, migration.name, migration.sha256, now_ms()),
            )
            done.append(number)
    return done


def missing(connection: psycopg.Connection[tuple[Any, ...]], server: Server) -> list[int]:
    """The numbers of the migrations that are still to be applied. Raises `DatabaseUnusable`."""
    known = migrations("postgres")
    (there,) = connection.execute("SELECT to_regclass('migrations') IS NOT NULL").fetchone() or (0,)
    rows = connection.execute("SELECT number, sha256 FROM migrations").fetchall() if there else []
    applied: dict[int, str] = dict(rows)
    if (version := max(applied, default=0)) > len(known):
        raise DatabaseUnusable(
            f"{server.location} has schema version {version} and this release knows {len(known)}:"
            " upgrade quart-jobs, or name another database"
        )
    for migration in known:
        if applied.get(migration.number, migration.sha256) != migration.sha256:
            raise DatabaseUnusable(
                f"{server.location} was made by another version of migration {migration.name}:"
                " use the release that made it, or name another database"
            )
    return [migration.number for migration in known if migration.number not in applied]


def _check_server(connection: psycopg.Connection[tuple[Any, ...]], server: Server) -> None:
    info = connection.info
    if info.server_version < OLDEST:
        raise DatabaseUnusable(
            f"{server.location} is PostgreSQL {info.server_version // 10_000}:"
            f" {OLDEST // 10_000} or newer is needed"
        )
    encoding = info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise DatabaseUnusable(
            f"{server.location} has the encoding {encoding}: jobs need UTF8 (CREATE DATABASE … ENCODING 'UTF8')"
        )


def channel(connection: psycopg.Connection[tuple[Any, ...]]) -> str:
    """Where the processes that share the jobs tell each other what they have done."""
    row = connection.execute("SELECT 'quart_jobs_' || 'jobs'::regclass::oid").fetchone()
    if row is None:
        raise StoreError("the database has no jobs")
    return str(row[0])
