"""Migrates a database one step further than this release does: `migrating_process.py DATABASE [PAUSE]`.

It stops after that many of the step's statements. In a file it says so, and goes on when told to; in PostgreSQL,
which is sent the whole step at once, it waits for the lock `PAUSED`."""

import sys
from collections.abc import Iterator
from pathlib import Path

from jobs.stores import migrate

SQL = """
CREATE TABLE further (n INTEGER);
INSERT INTO further SELECT seq FROM jobs;
ALTER TABLE jobs ADD COLUMN further INTEGER;
UPDATE jobs SET further = seq;
"""
PAUSED = 4711  #: an advisory lock


class Step(migrate.Migration):
    def statements(self) -> Iterator[str]:
        for number, statement in enumerate([*super().statements(), ""]):
            if pause and number == int(pause[0]):
                print("paused", flush=True)
                sys.stdin.readline()
            if statement:
                yield statement


def in_file() -> list[int]:
    number = len(migrate.migrations()) + 1
    known = [*migrate.migrations(), Step(number, f"{number:04}_further", SQL)]
    migrate.migrations = lambda: known  # type: ignore[assignment]
    return migrate.migrate(Path(database), busy_timeout=30.0)


def on_server() -> list[int]:
    from jobs.stores.postgres import migrate as postgres
    from jobs.stores.postgres.server import Server

    statements = SQL.split(";")
    if pause:
        statements.insert(int(pause[0]), f"SELECT pg_advisory_xact_lock({PAUSED})")
    known = migrate.migrations("postgres")
    known = [
        *known,
        migrate.Migration(len(known) + 1, f"{len(known) + 1:04}_further", ";".join(statements)),
    ]
    postgres.migrations = lambda _: known
    return postgres.migrate(Server(database, busy_timeout=30.0))


if __name__ == "__main__":
    _, database, *pause = sys.argv
    print("applied", *(on_server() if "://" in database else in_file()), flush=True)
