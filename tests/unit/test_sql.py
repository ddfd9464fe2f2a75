"""The SQL itself: the file's form, how each statement finds its rows, and what the schema refuses."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jobs.model import AttemptEnd, JobState
from jobs.stores import attempts, events, keys, reads, writes
from jobs.stores.migrate import apply
from jobs.stores.queries import SQL, load
from jobs.stores.reads import LISTING, NAMED, OWNED

STATEMENTS = (
    {
        name: statement
        for name, statement in SQL.items()
        if "{which}" not in statement and name != "find"
    }
    | events.STATEMENTS
    | {
        f"find {how} {state}": statement
        for how, statements in (("any", LISTING), ("owned", OWNED), ("named", NAMED))
        for state, statement in statements.items()
    }
)

PARTIAL = {"jobs_ready", "jobs_started", "jobs_published"}
"""Indexes that hold a few of the jobs only: those that wait, that run, that a broker has. To read one through is
not to read all jobs."""


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        apply(connection, Path("memory"))
        yield connection


def parse(tmp_path: Path, text: str) -> dict[str, str]:
    file = tmp_path / "file.sql"
    file.write_text(text)
    return load(file)


def test_statements_are_loaded_by_name(tmp_path: Path) -> None:
    text = "-- one --\n-- Why.\nSELECT 1\n\n-- two --\n-- What.\nSELECT 2 -- inside\nFROM t\n"
    assert parse(tmp_path, text) == {"one": "SELECT 1", "two": "SELECT 2 -- inside\nFROM t"}


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1",
        "-- one --\nSELECT 1",
        "-- one --\n-- Why.\n",
        "-- one --\n-- Why.\nSELECT 1\n-- one --\n-- Again.\nSELECT 2",
        "-- one --\n-- Why.\nSELECT 1\n-- two --\nSELECT 2",
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"file\.sql"):
        parse(tmp_path, text)


def test_every_statement_is_used() -> None:
    source = "".join(
        Path(each.__file__).read_text() for each in (writes, reads, attempts, events, keys)
    )
    assert {name for name in SQL if f'SQL["{name}"]' not in source} == set()


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_reads_all_jobs(database: sqlite3.Connection, name: str) -> None:
    statement = STATEMENTS[name]
    values: Any = [None] * statement.count("?") or dict.fromkeys(re.findall(r":(\w+)", statement))
    plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    for step in plan:
        scanned = re.fullmatch(
            r"SCAN (jobs|payloads|attempts|events|every)(?: USING .*INDEX (\w+))?.*", step
        )
        assert scanned is None or scanned[2] in PARTIAL, plan


def test_a_claim_needs_no_sorting(database: sqlite3.Connection) -> None:
    values = {"now": 1, "claimant": "me", "limit": 1}
    plan = database.execute(f"EXPLAIN QUERY PLAN {SQL['claimable']}", values).fetchall()
    assert not [row for row in plan if "TEMP B-TREE" in row[3]]


@pytest.mark.parametrize("state", list(JobState))
def test_a_page_of_jobs_is_cut_before_it_is_joined(
    database: sqlite3.Connection, state: JobState
) -> None:
    statement = LISTING[state]
    assert statement.index("LIMIT") < statement.index("JOIN")


@pytest.mark.parametrize("state", list(JobState))
def test_one_owners_jobs_are_found_by_an_index(
    database: sqlite3.Connection, state: JobState
) -> None:
    values = dict.fromkeys(re.findall(r":(\w+)", OWNED[state]), 1)
    plan = database.execute(f"EXPLAIN QUERY PLAN {OWNED[state]}", values).fetchall()
    assert [row[3] for row in plan if "USING" in row[3] and "INDEX jobs_" in row[3]], plan


PENDING: dict[str, Any] = {
    "id": "a",
    "task": "t",
    "queue": "q",
    "priority": 0,
    "ready": 1,
    "max_attempts": 1,
    "created_at": 1,
    "state": "PENDING",
}
STARTED = PENDING | {"state": "STARTED", "attempt": 1, "claimed_by": "me", "started_at": 1}
SUCCESS = PENDING | {"state": "SUCCESS", "attempt": 1, "finished_at": 1}
REVOKED = PENDING | {"state": "REVOKED", "finished_at": 1}


ATTEMPT: dict[str, Any] = {"job": 1, "number": 1, "worker": "me", "finished_at": 1}


def insert(database: sqlite3.Connection, row: dict[str, Any], table: str = "jobs") -> None:
    names, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
    database.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", row)


@pytest.mark.parametrize(
    "row", [PENDING, PENDING | {"ready": 0, "run_at": 1}, STARTED, SUCCESS, REVOKED]
)
def test_a_possible_row_is_taken(database: sqlite3.Connection, row: dict[str, Any]) -> None:
    insert(database, row)


@pytest.mark.parametrize(
    "row",
    [
        PENDING | {"state": "RETRY"},
        PENDING | {"state": "pending"},
        PENDING | {"state": None},
        PENDING | {"ready": 2},
        PENDING | {"ready": 0},
        PENDING | {"claimed_by": "me"},
        PENDING | {"started_at": 1},
        PENDING | {"finished_at": 1},
        PENDING | {"cancel_requested_at": 1},
        PENDING | {"max_attempts": 0},
        PENDING | {"crashes": 1},
        PENDING | {"attempt": 1, "crashes": 1, "lost": 1},
        PENDING | {"attempt": 1, "lost": -1},
        PENDING | {"attempt": -1},
        PENDING | {"priority": "high"},
        PENDING | {"created_at": 1.5},
        STARTED | {"ready": 0, "run_at": 1},
        STARTED | {"attempt": 0},
        STARTED | {"claimed_by": None},
        STARTED | {"started_at": None},
        STARTED | {"finished_at": 1},
        SUCCESS | {"attempt": 0},
        SUCCESS | {"finished_at": None},
        SUCCESS | {"claimed_by": "me"},
        SUCCESS | {"ready": 0, "run_at": 1},
        SUCCESS | {"state": "FAILURE", "attempt": 0},
        SUCCESS | {"state": "FAILURE", "finished_at": None},
        REVOKED | {"finished_at": None},
        REVOKED | {"ready": 0, "run_at": 1},
        REVOKED | {"claimed_by": "me"},
    ],
)
def test_a_row_that_cannot_be_is_refused(database: sqlite3.Connection, row: dict[str, Any]) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        insert(database, row)


def test_each_end_of_an_attempt_is_a_possible_row_with_an_error_or_without(
    database: sqlite3.Connection,
) -> None:
    for end in AttemptEnd:
        good = end in (AttemptEnd.SUCCESS, AttemptEnd.SHUTDOWN)
        row = ATTEMPT | {"outcome": end.value}
        insert(database, row | {"error": None if good else "{}"}, "attempts")
        with pytest.raises(sqlite3.IntegrityError):
            insert(database, row | {"error": "{}" if good else None}, "attempts")


@pytest.mark.parametrize(
    "wrong",
    [
        {"outcome": "expired", "error": "{}"},
        {"outcome": None},
        {"number": 0},
        {"worker": None},
        {"finished_at": None},
        {"pid": "one"},
        {"log": "text"},
    ],
)
def test_an_attempt_that_cannot_be_is_refused(
    database: sqlite3.Connection, wrong: dict[str, Any]
) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        insert(database, ATTEMPT | {"outcome": "success"} | wrong, "attempts")
