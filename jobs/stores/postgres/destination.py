"""The PostgreSQL database to which jobs move."""

import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from jobs.errors import ConfigurationError, DatabaseUnusable, StoreBusy
from jobs.model import now_ms
from jobs.stores.moving.tables import (
    API_KEYS,
    EVERY,
    TABLES,
    Portion,
    Positions,
    Row,
    Standing,
    Table,
)
from jobs.stores.queries import load

from . import migrate
from .server import SCHEMA, Server, will_not_pass

SQL = load(Path(__file__).with_name("destination.sql"))

_BOOL = 16  #: the number of the type
_LOCK = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
_GUARDED = ("jobs", "claimants")


class _Form(NamedTuple):
    """How rows of a table come and go."""

    columns: Sequence[str]
    types: Sequence[int]
    flags: Sequence[int]  #: where there is a boolean, which in a file is 0 or 1
    more: Sequence[None]  #: what it has here alone


class Destination:
    """One session with the database, which is the only one that may write to it during a move."""

    def __init__(
        self, connection: psycopg.Connection[tuple[Any, ...]], server: Server, columns: Any
    ) -> None:
        self._connection, self.location = connection, server.location
        self._forms = {table.name: self._form(table, columns(table)) for table in EVERY}

    def _form(self, table: Table, columns: Sequence[str]) -> _Form:
        found = self._connection.execute(SQL["columns"], {"table": table.name}).fetchall()
        types: dict[str, int] = dict(found)
        if missing := set(columns) - types.keys():
            raise DatabaseUnusable(
                f"{self.location} has no {table.name}.{missing.pop()}: it has another schema"
            )
        more = ["xact"] if "xact" in types else []  # NULL: long ago
        return _Form(
            [*columns, *more],
            [types[name] for name in columns],
            [at for at, name in enumerate(columns) if types[name] == _BOOL],
            [None] * len(more),
        )

    # --- how far the move is

    def find(self, token: str) -> Standing | None:
        """How far it is here, if it has come here."""
        if self._ask(SQL["exists"]) != [(True,)]:
            return None
        found = self._ask(SQL["find"], token=token)
        if not found:
            return None
        ((positions, finished),) = found
        stood = None if positions is None else json.loads(positions)
        return Standing(stood and {name: tuple(both) for name, both in stood.items()}, finished)

    def begin(self, token: str, source: str) -> None:
        """From now on no service can use this database. Raises `ConfigurationError` if one does, or has."""
        refusal = (
            f"the jobs of {source} are being moved to {self.location}, and not all are there: finish that with"
            " `quart-jobs move`, or undo it with --abort"
        )
        with self._connection.transaction():
            self._connection.execute(SQL["create_moves"])
            if there := self._ask(SQL["under_way"]):
                raise ConfigurationError(
                    f"a move from {there[0][0]} to {self.location} was begun: finish it, or undo it with --abort"
                )
            self._connection.execute(SQL["create_guard"])
            for table in _GUARDED:  # from here on services wait for this transaction
                self._compose("guard", table=table, token=token, refusal=refusal)
            ((filled, used),) = self._ask(SQL["used"])
            if filled:
                raise ConfigurationError(
                    f"{self.location} has jobs or API keys already: move to a database, or after DROP SCHEMA to a"
                    " schema, that has none"
                )
            if used:
                raise ConfigurationError(
                    f"a service uses {self.location}: stop it until all is moved"
                )
            self._ask(SQL["begin"], token=token, source=source, now=now_ms())
        self.enter(token)

    def enter(self, token: str) -> None:
        """This session is the one that may write."""
        self._connection.execute("SELECT set_config('quart_jobs.move', %s, FALSE)", (token,))

    def finish(self, token: str) -> None:
        """Services may use the database."""
        with self._connection.transaction():
            self._compose("finish", token=token, now=now_ms())

    def clear(self, token: str) -> None:
        """Take back what was copied: the move never came here."""
        with self._connection.transaction():
            self._compose("clear", token=token)

    # --- rows

    def append(self, token: str, table: Table, rows: Portion, positions: Positions) -> None:
        """Copy rows that come after all that were copied; `positions` are those before. With them goes how far
        the move is then."""
        after, top = positions[table.name]
        with self._connection.transaction():
            self._copy(table, rows)
            positions[table.name] = (top if rows.is_all else rows.last or after), top
            self.set_positions(token, positions)

    def set_positions(self, token: str, positions: Positions) -> None:
        """How far the move is."""
        self._ask(SQL["set_positions"], token=token, positions=json.dumps(positions))

    def replace(self, changed: Mapping[str, set[int]], rows: Mapping[str, Iterable[Row]]) -> None:
        """Copy these rows, of these keys, in place of those there are; what has gone, goes here, too."""
        with self._connection.transaction():
            for table in TABLES:
                if keys := changed[table.name]:
                    self._compose("remove", table, keys=list(keys))
            for table in TABLES:
                if changed[table.name]:
                    self._copy(table, rows[table.name])

    def replace_api_keys(self, rows: Iterable[Row]) -> None:
        """Copy all of them, in this order."""
        with self._connection.transaction():
            self._compose("remove_all", API_KEYS)
            self._copy(API_KEYS, rows)

    def set_given(self, table: Table, given: int) -> None:
        """No number up to this one is given again."""
        if given:
            self._ask(SQL["set_given"], table=table.name, key=table.key, given=given)

    def every_row(self, table: Table) -> Generator[Row, None, None]:
        """In the order of the keys; as they are in a file."""
        form = self._forms[table.name]
        columns = form.columns[: len(form.types)]
        statement = self._composed("copy_out", table, columns=columns)
        with self._connection.cursor().copy(statement) as copy:
            copy.set_types(form.types)
            for row in copy.rows():
                yield _as_in_a_file(row, form.flags) if form.flags else row

    def analyze(self) -> None:
        """Tell the planner what is here."""
        for table in EVERY:
            self._connection.execute(f"ANALYZE {table.name}")

    def _copy(self, table: Table, rows: Iterable[Row]) -> None:
        form = self._forms[table.name]
        statement = self._composed("copy_in", table, columns=form.columns)
        with self._connection.cursor().copy(statement) as copy:
            for row in rows:
                copy.write_row([*_as_here(row, form.flags), *form.more])

    # --- how

    def _ask(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []

    def _compose(
        self,
        name: str,
        of: Table | None = None,
        *,
        keys: Any = None,
        table: str = "",
        **values: Any,
    ) -> None:
        statement = self._composed(name, of or Table(table, ""), **values)
        if keys is None:
            self._connection.execute(statement, prepare=False)
        else:
            self._connection.execute(statement, {"keys": keys})

    def _composed(
        self, name: str, table: Table, *, columns: Iterable[str] = (), **values: Any
    ) -> sql.Composed:
        """A statement of which parts cannot be parameters."""
        return sql.SQL(SQL[name]).format(
            table=sql.Identifier(table.name),
            key=sql.Identifier(table.key),
            columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
            **{name: sql.Literal(value) for name, value in values.items()},
        )


def _as_here(row: Row, flags: Sequence[int]) -> Sequence[Any]:
    if not flags:
        return row
    values = list(row)
    for at in flags:
        values[at] = bool(values[at])
    return values


def _as_in_a_file(row: Row, flags: Sequence[int]) -> Row:
    values = list(row)
    for at in flags:
        values[at] = int(values[at])
    return tuple(values)


def _prepare(connection: psycopg.Connection[tuple[Any, ...]], server: Server) -> None:
    """Make the schema. One that there is stays as it is: it may be somebody's."""
    left = migrate.missing(connection, server)
    if left and left[0] > 1:
        raise DatabaseUnusable(
            f"{server.location} has the schema of an earlier release, whose services may use it: name another"
            " database, or migrate it first"
        )
    migrate.apply(connection, server)


@contextmanager
def opened(
    url: str, columns: Any, *, busy_timeout: float, schema: str = SCHEMA
) -> Iterator[Destination]:
    """The database, with the schema of this code, for one move at a time; `columns` are those of a table in the
    file. Raises `StoreError`, also for what fails later."""
    server = Server(url, busy_timeout=busy_timeout, schema=schema)
    try:
        with server.connect() as connection:
            _prepare(connection, server)
            if connection.execute(_LOCK, (f"move {schema}",)).fetchone() != (True,):
                raise StoreBusy(f"another `quart-jobs move` to {server.location} is under way")
            yield Destination(connection, server, columns)
    except psycopg.Error as error:
        reason = server.translated(error)
        if type(error) is psycopg.OperationalError and will_not_pass(error):
            raise DatabaseUnusable(str(reason)) from error
        raise reason from error
