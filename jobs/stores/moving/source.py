"""The database file under a move."""

import json
import secrets
import sqlite3
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from jobs.errors import ConfigurationError, DatabaseUnusable
from jobs.model import now_ms
from jobs.protocols import Wake
from jobs.stores import moved
from jobs.stores.commits import Transaction
from jobs.stores.connection import close_writer, connect_reader, connect_writer
from jobs.stores.faults import translated
from jobs.stores.gate import Gate
from jobs.stores.migrate import check_version, migrations
from jobs.stores.moved import Mark, Stage
from jobs.stores.place import Original, Place
from jobs.stores.queries import load
from jobs.stores.writes import REAP

from .tables import API_KEYS, EVERY, TABLES, Row, Table

SQL = load(Path(__file__).with_name("source.sql"))

PATIENCE = 30.0  #: seconds that a write waits for those of services
_CHANGES = {"INSERT": "NEW", "UPDATE": "OLD", "DELETE": "OLD"}  #: and the row that has the key


class Notes(NamedTuple):
    """What has changed: how many notes tell of it, the number of the last, and keys by table."""

    many: int
    last: int
    keys: Mapping[str, set[int]]


class Source:
    """A database file that services may be using: all writes are under the gate, as theirs are."""

    def __init__(
        self, place: Place, gate: Gate, writer: sqlite3.Connection, reader: sqlite3.Connection
    ) -> None:
        self.path = place.path
        self._place, self._gate, self._writer, self._reader = place, gate, writer, reader
        self._original = Original(place.path)
        self._columns = {
            table.name: self._in_order(
                table, [name for (name,) in self._read(SQL["columns"], table=table.name)]
            )
            for table in EVERY
        }

    # --- how far the move is

    def mark(self) -> Mark | None:
        """The move that was begun, if any."""
        return moved.mark(self._reader)

    def begin(self, target: str) -> Mark:
        """From now on every change is noted."""
        begun = Mark(secrets.token_hex(16), target, Stage.COPYING)
        with self._writing() as connection:
            connection.execute(SQL["create_mark"])
            connection.execute(SQL["create_notes"])
            for table in TABLES:
                for change, row in _CHANGES.items():
                    names = {"table": table.name, "key": table.key, "change": change, "row": row}
                    connection.execute(SQL["note_changes"].format(**names))
            connection.execute(SQL["set_mark"], begun._asdict())
        return begun

    def hold(self, target: str) -> None:
        """From now on no job begins."""
        with self._writing() as connection:
            self._drop(connection, "move_hold")
            said = self._refusal(target, Stage.HELD)
            connection.execute(SQL["hold"].format(refusal=said))
            connection.execute(SQL["set_stage"], {"stage": Stage.HELD, "target": target})

    def let_go(self) -> None:
        """Jobs begin again, if it is no more than that."""
        with self._writing() as connection:
            found = moved.mark(connection)
            if found is not None and found.stage is Stage.HELD:
                self._drop(connection, "move_hold")
                stage = {"stage": Stage.COPYING, "target": found.target}
                connection.execute(SQL["set_stage"], stage)

    def close(self, target: str) -> bool:
        """From now on nothing is written; False, and nothing has changed, if a job runs."""
        with self._writing() as connection:
            if connection.execute(SQL["running"]).fetchone():
                return False
            self._shut(connection, target, Stage.CLOSED)
        return True

    def leave(self, target: str) -> None:
        """The jobs are elsewhere for good, and who opens the file is told where."""
        with self._writing() as connection:
            self._drop(connection, "move_*")
            self._shut(connection, target, Stage.MOVED)

    def undo(self) -> None:
        """As if no move had been begun."""
        with self._writing() as connection:
            self._drop(connection, "move_*")
            connection.execute("DROP TABLE move")
            connection.execute("DROP TABLE move_notes")

    def _shut(self, connection: sqlite3.Connection, target: str, stage: Stage) -> None:
        said = self._refusal(target, stage)
        for table in EVERY:
            for change in _CHANGES:
                trigger = SQL["close"].format(table=table.name, change=change, refusal=said)
                connection.execute(trigger)
        connection.execute(SQL["set_stage"], {"stage": stage, "target": target})

    def _refusal(self, target: str, stage: Stage) -> str:
        """As a literal: a trigger takes no parameters."""
        said = moved.refusal(self.path, target, stage).replace("'", "''")
        return f"'{said}'"

    def _drop(self, connection: sqlite3.Connection, names: str) -> None:
        for (name,) in connection.execute(SQL["triggers"], {"names": names}).fetchall():
            connection.execute(f"DROP TRIGGER {name}")

    # --- the jobs that run

    def running(self) -> Sequence[tuple[str, str]]:
        """Id and task of each."""
        return self._read(SQL["running"]).fetchall()

    def reap(self) -> None:
        """Put back what dead processes held, as services do: there may be none."""
        self._place.claimants.mkdir(mode=0o700, exist_ok=True)
        with self._writing() as connection:
            REAP.apply(Transaction(connection, "", now_ms(), Wake(0)), [self._place.claimants])

    # --- reading

    def columns(self, table: Table) -> Sequence[str]:
        """Of the rows: the key first."""
        return self._columns[table.name]

    def top(self, table: Table) -> int:
        """The highest key."""
        names = {"table": table.name, "key": table.key}
        ((highest,),) = self._read(SQL["top"].format(**names))
        return int(highest)

    def given(self, table: Table) -> int:
        """The highest key that ever was, as far as is known: none is given twice."""
        found = self._read(SQL["given"], table=table.name).fetchone() or (0,)
        return max(self.top(table), *found)

    def rows(self, table: Table, after: int, top: int) -> Generator[Row, None, None]:
        """Those with keys between, in order. To be closed soon: it holds the log up."""
        return self._stream(self._said("rows", table), after=after, top=top)

    def every_row(self, table: Table) -> Generator[Row, None, None]:
        """In the order of the keys."""
        return self._stream(self._said("all_rows", table, order=table.key))

    def these(self, table: Table, keys: Collection[int]) -> Generator[Row, None, None]:
        """Those with these keys which are still there."""
        return self._stream(self._said("these", table), keys=json.dumps(list(keys)))

    def api_keys(self) -> Generator[Row, None, None]:
        """In the order they were made."""
        return self._stream(self._said("all_rows", API_KEYS, order="created_at, rowid"))

    def sealed(self) -> int:
        """How many jobs carry what is sealed with the key of the services."""
        ((count,),) = self._read(SQL["sealed"])
        return int(count)

    # --- what has changed

    def notes(self, limit: int) -> "Notes":
        """The oldest of them."""
        notes = self._read(SQL["notes"], limit=limit).fetchall()
        keys: dict[str, set[int]] = {table.name: set() for table in TABLES}
        for _, name, key in notes:
            keys[name].add(key)
        return Notes(len(notes), notes[-1][0] if notes else 0, keys)

    def forget_notes(self, last: int) -> None:
        """What they tell of has been copied."""
        with self._writing() as connection:
            connection.execute(SQL["forget_notes"], {"last": last})

    # --- how

    def _in_order(self, table: Table, columns: Sequence[str]) -> Sequence[str]:
        return [table.key, *(name for name in columns if name != table.key)]

    def _said(self, statement: str, table: Table, **more: str) -> str:
        columns = ", ".join(self.columns(table))
        return SQL[statement].format(table=table.name, key=table.key, columns=columns, **more)

    def _read(self, statement: str, **values: Any) -> sqlite3.Cursor:
        return self._reader.execute(statement, values)

    def _stream(self, statement: str, **values: Any) -> Generator[Row, None, None]:
        """An open cursor would keep the connection in the past."""
        with closing(self._read(statement, **values)) as rows:
            yield from rows

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, with what other processes wrote before it."""
        with self._gate.held(time.monotonic() + PATIENCE):
            self._original.check()
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                self._writer.rollback()
                raise


@contextmanager
def opened(
    path: Path, *, busy_timeout: float, allow_network_filesystem: bool = False
) -> Iterator[Source]:
    """The file, which is to have the schema of this code. Raises `StoreError`, also for what fails later."""
    place = Place.at(path)
    place.check(allow_network_filesystem=allow_network_filesystem)
    version = place.look()
    if not place.path.exists() or not place.path.stat().st_size:
        raise ConfigurationError(f"there is no database at {place.path}: nothing to move")
    check_version(version, place.path)
    with closing(Gate(place.gate)) as gate:
        try:
            with gate.held(time.monotonic() + PATIENCE):
                writer = connect_writer(place, busy_timeout)
            try:
                writer.execute(f"PRAGMA busy_timeout = {round(1000 * busy_timeout)}")
                _check_schema(writer, place)
                with gate.held(time.monotonic() + PATIENCE):
                    reader = connect_reader(place, busy_timeout)
                with closing(reader):
                    yield Source(place, gate, writer, reader)
            finally:
                close_writer(writer, gate, time.monotonic() + busy_timeout)
        except sqlite3.Error as error:
            raise translated(error, place.path) from error


def _check_schema(connection: sqlite3.Connection, place: Place) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    check_version(version, place.path)
    if version < len(migrations()):
        raise DatabaseUnusable(
            f"the database {place.path} has schema version {version} and this release has {len(migrations())}:"
            " migrate it first (`quart-jobs migrate`, or start a service of this release); a move that an earlier"
            " release began is finished, or undone, by that release"
        )
