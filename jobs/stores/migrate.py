"""Brings a database to the schema of this code, forward only.

Each migration is a file; it and the record of it are one transaction, and what is to be done is
decided inside that transaction, so processes that start together do not disturb each other.
"""

import hashlib
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import DatabaseUnusable
from jobs.model import now_ms

from .connection import close_writer, connect_writer
from .faults import translated
from .gate import Gate
from .moved import refuse_if_moved
from .place import APPLICATION_ID, Place, of_another_program

_RECORDS = """
CREATE TABLE IF NOT EXISTS migrations (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL, applied_at INTEGER NOT NULL
) STRICT
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: `0001_words.sql`."""

    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Tells whether the file is still what was applied."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    def statements(self) -> Iterator[str]:
        """The file's statements, one at a time: a script would commit what is open."""
        statement = ""
        for line in self.sql.splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                yield statement
                statement = ""
        if re.sub(r"--[^\n]*", "", statement).strip():
            raise ValueError(f"migration {self.name} ends within a statement")


def migrations(kind: str = "sqlite") -> list[Migration]:
    """All of a kind of store, in order: from the installed package, else from the source tree."""
    package = Path(__file__).parents[1]
    folder = package / "migrations"
    if not folder.is_dir():
        folder = package.parent / "migrations"
    found = [
        Migration(int(path.name[:4]), path.stem, path.read_text(encoding="utf-8"))
        for path in sorted((folder / kind).glob("[0-9][0-9][0-9][0-9]_*.sql"))
    ]
    if [migration.number for migration in found] != list(range(1, len(found) + 1)) or not found:
        raise RuntimeError(
            f"the migrations in {folder / kind} are not numbered 0001, 0002, …: reinstall"
        )
    return found


def check_version(version: int, path: Path) -> None:
    """Raises `DatabaseUnusable` if a later release has written the database."""
    known = len(migrations())
    if version > known:
        raise DatabaseUnusable(
            f"the database {path} has schema version {version} and this release knows {known}:"
            " upgrade quart-jobs, or name another database"
        )


def apply(connection: sqlite3.Connection, path: Path) -> list[int]:
    """Apply what is missing and return its numbers; the caller holds the gate.

    Raises `DatabaseUnusable`, and changes nothing, if the database is newer than this code, another
    program's, or was migrated by other files than these."""
    done: list[int] = []
    for migration in migrations():
        connection.execute("BEGIN IMMEDIATE")
        try:
            if _is_missing(connection, migration, path):
                for statement in migration.statements():
                    connection.execute(statement)
                connection.execute(_RECORDS)
                connection.execute(
                    "INSERT INTO migrations VALUES (?, ?, ?, ?)",
                    (migration.number, migration.name, migration.sha256, now_ms()),
                )
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {migration.number}")
                done.append(migration.number)
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise
    return done


def _is_missing(connection: sqlite3.Connection, migration: Migration, path: Path) -> bool:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        if connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
            raise of_another_program(path)
        return True
    check_version(version, path)
    if migration.number > version:
        return True
    applied = connection.execute(
        "SELECT sha256 FROM migrations WHERE number = ?", (migration.number,)
    ).fetchone()
    if applied != (migration.sha256,):
        raise DatabaseUnusable(
            f"the database {path} was made by another version of migration {migration.name}:"
            " use the release that made it, or name another database"
        )
    return False


def connect(place: Place, gate: Gate, budget: float) -> tuple[sqlite3.Connection, list[int]]:
    """A connection that writes to an up-to-date database, made under the gate within `budget` seconds,
    and the numbers of the migrations that this applied. Raises `StoreError`."""
    deadline = time.monotonic() + budget
    with gate.held(deadline):
        try:
            connection = connect_writer(place, budget)
            try:
                refuse_if_moved(connection)
                done = apply(connection, place.path)
                place.secure()
            except BaseException:
                connection.close()
                raise
        except (sqlite3.Error, OSError) as error:
            raise translated(error, place.path) from error
    return connection, done


def migrate(
    path: Path, *, busy_timeout: float = 5.0, allow_network_filesystem: bool = False
) -> list[int]:
    """Bring a database up to date, creating it if need be; the numbers of the migrations applied."""
    place = Place.at(path)
    place.check(allow_network_filesystem=allow_network_filesystem)
    check_version(place.look(), place.path)
    with closing(Gate(place.gate)) as gate:
        connection, done = connect(place, gate, busy_timeout)
        close_writer(connection, gate, time.monotonic() + busy_timeout)
    return done
