"""What is right and wrong with a PostgreSQL database, in words. Changes nothing."""

import time
from collections.abc import Iterator
from typing import Any

import psycopg

from jobs.errors import StoreError
from jobs.model import now_ms
from jobs.settings import Settings
from jobs.stores.findings import Finding, ok, problem, warning

from .destination import SQL as OF_MOVES
from .migrate import missing
from .server import OLDEST, Server
from .writes import SEEN_WITHIN

_APART = 2000  #: ms between two clocks from which on run times are visibly off


def examine(settings: Settings) -> Iterator[Finding]:
    """All findings about the database that the settings name; services may use it meanwhile."""
    server = Server(settings.database, busy_timeout=settings.busy_timeout)
    began = time.monotonic()
    try:
        with server.connect() as connection:
            took = 1000 * (time.monotonic() - began)
            yield ok("database", f"{server.location}: answered in {took:.0f} ms")
            yield _version(connection)
            yield _encoding(connection)
            try:
                left = missing(connection, server)
            except StoreError as error:
                yield problem("schema", str(error))
                return
            if left:
                yield ok(
                    "schema",
                    f"{len(left)} migrations are to come: a service applies them as it starts",
                )
            else:
                yield ok("schema", "up to date")
            yield _clock(connection)
            yield _syncs(connection)
            if not left:
                yield from _moves(connection)
                yield from _jobs(connection)
    except psycopg.Error as error:
        yield problem(
            "database",
            str(server.translated(error)),
            "look at the server, the network between, and JOBS_DATABASE",
        )
    if not (settings.secret_key and settings.secret_key.get_secret_value()):
        yield warning(
            "key",
            "JOBS_SECRET_KEY is not set here",
            "set it, the same for every service on this database, unless the app has a SECRET_KEY",
        )


def _version(connection: psycopg.Connection[Any]) -> Finding:
    version = connection.info.server_version
    said = f"{version // 10_000}.{version % 10_000}"
    if version < OLDEST:
        return problem("PostgreSQL", said, f"upgrade it to {OLDEST // 10_000} or newer")
    return ok("PostgreSQL", said)


def _encoding(connection: psycopg.Connection[Any]) -> Finding:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        return problem("encoding", str(encoding), "make a database WITH ENCODING 'UTF8'")
    return ok("encoding", encoding)


def _clock(connection: psycopg.Connection[Any]) -> Finding:
    ((theirs,),) = connection.execute(
        "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    ).fetchall()
    apart = abs(now_ms() - theirs)
    if apart > _APART:
        return warning(
            "clock",
            f"{apart / 1000:.0f} s apart from the database's",
            "set both by NTP: a job's times are by either",
        )
    return ok("clock", "as the database's")


def _syncs(connection: psycopg.Connection[Any]) -> Finding:
    (fsync,) = connection.execute("SHOW fsync").fetchone() or ("",)
    if fsync != "on":
        return problem(
            "durability",
            "fsync is off: a loss of power loses accepted jobs, or the whole database",
            "set fsync = on in postgresql.conf",
        )
    return ok("durability", "fsync is on")


def _moves(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    if connection.execute(OF_MOVES["exists"]).fetchone() != (True,):
        return
    for (source,) in connection.execute(OF_MOVES["under_way"]):
        yield problem(
            "move",
            f"the jobs of {source} are being moved here, and not all are there: no service starts",
            "finish it with `quart-jobs move`, or undo it with --abort",
        )


def _jobs(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    rows = connection.execute("SELECT state, count(*) FROM jobs GROUP BY state ORDER BY state")
    said = ", ".join(f"{count} {state}" for state, count in rows)
    yield ok("jobs", said or "none")
    ((alive, silent),) = connection.execute(
        "SELECT count(*) FILTER (WHERE seen_at >= now), count(*) FILTER (WHERE seen_at < now) FROM claimants,"
        " (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint - %s AS now) AS clock",
        (5 * SEEN_WITHIN,),
    ).fetchall()
    yield ok("services", f"{alive} seen just now" + (f", {silent} silent" if silent else ""))
