"""The SQL for PostgreSQL: every statement is used and finds its rows by an index, whatever the planner thinks."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobs.stores.postgres import commits, events, migrate, reads, store, writes
from jobs.stores.postgres.queries import SQL
from jobs.stores.postgres.reads import LISTING, NAMED, OWNED
from jobs.stores.postgres.server import Server
from jobs.stores.queries import SQL as OF_SQLITE
from tests import postgres

STATEMENTS = (
    {
        name: statement
        for name, statement in SQL.items()
        if "{which}" not in statement and name not in ("find", "begin", "status")
    }
    | {f"events: {name}": statement for name, statement in events.STATEMENTS.items()}
    | {
        f"find {how} {state}": statement
        for how, statements in (("any", LISTING), ("owned", OWNED), ("named", NAMED))
        for state, statement in statements.items()
    }
)

MANY = """
INSERT INTO jobs (id, task, queue, priority, state, ready, attempt, max_attempts, created_at, finished_at)
SELECT 'job-' || n, 't', 'q', 0, 'SUCCESS', TRUE, 1, 1, n, n FROM generate_series(1, 20000) AS n;
INSERT INTO payloads (seq, args) SELECT seq, '{}' FROM jobs;
INSERT INTO attempts (job, number, outcome, worker, finished_at) SELECT seq, 1, 'success', 'me', 1 FROM jobs;
INSERT INTO events (job, run, attempt, kind, at, data) SELECT seq, 1, 1, 'log', 1, 'x' FROM jobs;
"""


@pytest.fixture(scope="module", params=["", MANY], ids=["empty", "many"])
def session(request: pytest.FixtureRequest) -> Iterator[psycopg.Connection[Any]]:
    """A session as the store has it, before a table of which the planner has no statistics."""
    server = Server(postgres.shared().url, busy_timeout=5.0, schema="test_sql")
    migrate.migrate(server)
    with server.connect() as connection:
        connection.execute("BEGIN")
        if request.param:
            connection.execute(request.param, prepare=False)
        yield connection
        connection.execute("ROLLBACK")


def explained(session: psycopg.Connection[Any], statement: str) -> str:
    """The plan for whatever values, as the store has it."""
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        if found[0] == "%s" or found[0] not in names:
            names.append(found[0])
            return f"${len(names)}"
        return f"${names.index(found[0]) + 1}"

    statement = re.sub(r"%(\(\w+\))?s", number, statement)
    rows = session.execute(f"EXPLAIN (GENERIC_PLAN) {statement}", prepare=False)
    return "\n".join(line for (line,) in rows)


def test_every_statement_is_used() -> None:
    modules = (writes, reads, commits, events, store)
    source = "".join(Path(each.__file__ or "").read_text() for each in modules)
    used = re.findall(r'SQL\["(\w+)"\]|\.(?:fetch|run)\(\s*"(\w+)"', source)
    assert {name for pair in used for name in pair if name} == set(SQL)


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_reads_all_jobs(session: psycopg.Connection[Any], name: str) -> None:
    plan = explained(session, STATEMENTS[name])
    assert not re.search(r"Seq Scan on (jobs|payloads|attempts|events)\b", plan), plan
    assert not re.search(r"(Hash|Merge)( \w+)* Join", plan), plan
    # An index without a condition is read from end to end; that is meant where rows come in its order.
    for index, rest in re.findall(r"using (\w+) on \w+.*\n((?: +[A-Z][^:\n]*:.*\n?)*)", plan):
        meant = {
            "jobs_started",
            "jobs_due",
            "claimants_pkey",
            "processes_pkey",
            "migrations_pkey",
        } | ({"jobs_ready"} if "find" in name or name == "queued" else set())
        assert "Index Cond" in rest or index in meant, plan


def test_a_claim_needs_no_sorting(session: psycopg.Connection[Any]) -> None:
    plan = explained(session, SQL["claim"])
    assert "Sort" not in plan, plan
    assert "jobs_ready" in plan, plan


def test_both_stores_have_the_same_migrations() -> None:
    """Of equal numbers and names; what one has no need of may be missing at its end."""
    ours = [each.name for each in migrate.migrations("postgres")]
    theirs = [each.name for each in migrate.migrations("sqlite")]
    assert ours == theirs[: len(ours)]


def test_a_page_has_the_columns_of_the_other_store() -> None:
    """Both are read by position."""

    def columns(statement: str) -> list[str]:
        head = statement.partition("FROM")[0].replace("page.seq", "jobs.seq")
        return re.findall(r"[\w.']+|'\{\{\}\}'", head)

    for name in ("get", "find", "attempts", "keys"):
        assert columns(SQL[name]) == columns(OF_SQLITE[name]), name
