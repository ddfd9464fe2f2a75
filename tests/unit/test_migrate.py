"""Migrations: forward only, whole or not at all, and nothing else is touched."""

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from jobs.errors import DatabaseUnusable, StoreBusy
from jobs.model import JobState, Outcome, new_job_id
from jobs.stores import migrate as module
from jobs.stores.gate import Gate
from jobs.stores.migrate import Migration, migrate, migrations
from jobs.stores.place import APPLICATION_ID, Place
from jobs.stores.sqlite import SQLiteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


def ask(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def with_migrations(monkeypatch: pytest.MonkeyPatch, *extra: Migration) -> None:
    known = [*migrations(), *extra]
    monkeypatch.setattr(module, "migrations", lambda: known)


def next_migration(sql: str) -> Migration:
    number = len(migrations()) + 1
    return Migration(number, f"{number:04}_next", sql)


def test_a_new_database_gets_every_migration_and_the_record_of_each(path: Path) -> None:
    numbers = [migration.number for migration in migrations()]
    assert migrate(path) == numbers
    assert ask(path, "PRAGMA user_version") == [(numbers[-1],)]
    assert ask(path, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert ask(path, "PRAGMA journal_mode") == [("wal",)]
    assert ask(path, "SELECT number, name, sha256 FROM migrations") == [
        (one.number, one.name, hashlib.sha256(one.sql.encode()).hexdigest()) for one in migrations()
    ]


def test_a_database_that_is_up_to_date_is_left_as_it_is(path: Path) -> None:
    migrate(path)
    before = path.read_bytes()
    assert migrate(path) == []
    assert path.read_bytes() == before


def test_only_what_is_missing_is_applied(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(path)
    extra = next_migration("CREATE TABLE more (n INTEGER);\nINSERT INTO more VALUES (1);")
    with_migrations(monkeypatch, extra)
    assert migrate(path) == [extra.number]
    assert ask(path, "SELECT n FROM more") == [(1,)]
    assert migrate(path) == []


async def test_a_database_of_the_first_version_is_migrated_and_keeps_its_jobs(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(module, "migrations", lambda: migrations()[:1])
        assert migrate(path) == [1]
    ended, waiting = new_job_id(), new_job_id()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            "INSERT INTO jobs (seq, id, task, queue, priority, ready, max_attempts, created_at, state,"
            " attempt, started_at, finished_at) VALUES (1, ?, 't', 'q', 0, 1, 1, 5, 'SUCCESS', 1, 6, 7)",
            (ended,),
        )
        connection.execute(
            "INSERT INTO jobs (seq, id, task, queue, priority, ready, max_attempts, created_at)"
            " VALUES (2, ?, 't', 'q', 0, 1, 1, 5)",
            (waiting,),
        )
        connection.execute("INSERT INTO payloads (seq, args, result) VALUES (1, '{}', '\"r\"')")
        connection.execute("INSERT INTO payloads (seq, args) VALUES (2, '{\"a\": 1}')")
    async with SQLiteStore(path, busy_timeout=5) as store:
        assert ask(path, "PRAGMA user_version") == [(len(migrations()),)]
        kept = await store.get(ended)
        assert (kept.state, kept.result, kept.finished_at) == (JobState.SUCCESS, '"r"', 7)
        assert await store.attempts(ended) == []  # it ended before they were kept
        (claimed,) = (await store.claim(9)).jobs
        assert (claimed.id, claimed.args) == (waiting, '{"a": 1}')
        await store.finish([Outcome(waiting, 1, JobState.SUCCESS, "1")])
        assert len(await store.attempts(waiting)) == 1


def test_a_migration_that_fails_leaves_nothing_of_itself(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = len(migrations())
    with_migrations(
        monkeypatch, next_migration("CREATE TABLE more (n);\nINSERT INTO none VALUES (1);")
    )
    with pytest.raises(Exception, match="none"):
        migrate(path)
    assert ask(path, "PRAGMA user_version") == [(done,)]
    assert ask(path, "SELECT count(*) FROM migrations") == [(done,)]
    assert ask(path, "SELECT name FROM sqlite_schema WHERE name = 'more'") == []


def test_a_database_of_a_later_release_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later:
        with_migrations(later, next_migration("CREATE TABLE more (n);"))
        migrate(path)
    before = path.read_bytes(), sorted(path.parent.iterdir())
    known = len(migrations())
    with pytest.raises(
        DatabaseUnusable,
        match=f"schema version {known + 1} and this release knows {known}: upgrade",
    ):
        migrate(path)
    assert (path.read_bytes(), sorted(path.parent.iterdir())) == before


def test_a_version_that_is_still_in_the_log_is_seen(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA user_version = 99")
        monkeypatch.setattr(Place, "look", lambda _: 0)
        with pytest.raises(DatabaseUnusable, match="schema version 99"):
            migrate(path)


def test_a_migration_that_was_changed_after_it_was_applied_is_noticed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(path)
    (first, *others) = migrations()
    changed = [Migration(first.number, first.name, first.sql + "\n-- changed"), *others]
    monkeypatch.setattr(module, "migrations", lambda: changed)
    with pytest.raises(DatabaseUnusable, match=f"another version of migration {first.name}"):
        migrate(path)


def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE users (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(DatabaseUnusable, match="belongs to another program"):
        migrate(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_an_empty_file_becomes_a_database(path: Path) -> None:
    path.touch()
    assert migrate(path)


def test_a_migration_waits_for_the_gate_and_not_for_ever(path: Path) -> None:
    with (
        closing(Gate(Place.at(path).gate)) as gate,
        gate.held(0),
        pytest.raises(StoreBusy),
    ):
        migrate(path, busy_timeout=0.05)
    assert migrate(path)


def test_a_migration_that_ends_within_a_statement_is_an_error() -> None:
    whole = Migration(1, "0001_x", "SELECT ';'; -- a comment; more\nSELECT 2; -- the end\n\n")
    assert len(list(whole.statements())) == 2
    with pytest.raises(ValueError, match="within a statement"):
        list(Migration(1, "0001_x", "SELECT 1;\nSELECT 2").statements())


def test_a_missing_migration_file_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "jobs"
    (package / "stores").mkdir(parents=True)
    folder = package / "migrations" / "sqlite"
    folder.mkdir(parents=True)
    monkeypatch.setattr(module, "__file__", str(package / "stores" / "migrate.py"))
    with pytest.raises(RuntimeError, match="not numbered"):
        migrations()
    (folder / "0002_second.sql").write_text("SELECT 1;")
    with pytest.raises(RuntimeError, match="not numbered"):
        migrations()
    (folder / "0001_first.sql").write_text("SELECT 1;")
    assert [migration.name for migration in migrations()] == ["0001_first", "0002_second"]
