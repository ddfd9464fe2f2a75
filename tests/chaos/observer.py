"""Looks into the database from outside, as no member of the service does."""

import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psycopg

from jobs.model import JobState
from jobs.stores.postgres.server import SCHEMA

from .history import History, Sighting

EVERY = 0.05  #: seconds between two looks

_ROWS = """
SELECT
    id, {args} ->> 'token', task, state, attempt, max_attempts, timeout, crashes, lost,
    {error} ->> 'kind'
FROM jobs LEFT JOIN payloads USING (seq) ORDER BY jobs.seq
"""

_ATTEMPTS = """
SELECT jobs.id, number FROM attempts JOIN jobs ON jobs.seq = job
WHERE outcome != 'shutdown' ORDER BY number
"""

_STANDS = "SELECT id, state, attempt FROM jobs"


@dataclass(frozen=True, slots=True)
class Row:
    """A job as it is kept."""

    job_id: str
    token: str | None
    task: str
    state: JobState
    attempt: int
    max_attempts: int = 1
    timeout: float | None = None
    crashes: int = 0
    lost: int = 0
    kind: str | None = None  #: of the error
    attempts: Sequence[int] | None = None  #: recorded as spent; None where no such record is kept


class Records:
    """What a database says of its jobs, whoever keeps it there. `fetch` gives the rows of a statement, on a
    connection of its own: one that stays would keep SQLite's log from ever being removed."""

    def __init__(
        self, fetch: Callable[[str], list[tuple[Any, ...]]], *, args: str, error: str
    ) -> None:
        self._fetch = fetch
        self._rows = _ROWS.format(args=args, error=error)

    def rows(self) -> list[Row]:
        """All jobs that are kept. Raises what `fetch` does."""
        attempts: defaultdict[str, list[int]] = defaultdict(list)
        for job_id, number in self._fetch(_ATTEMPTS):
            attempts[job_id].append(number)
        return [
            Row(*(job_id, token, task, JobState(state), *rest), attempts=attempts[job_id])
            for job_id, token, task, state, *rest in self._fetch(self._rows)
        ]

    def stands(self) -> list[tuple[str, str, int]]:
        """Of each job its id, its state and its attempt. Raises `Unseen`."""
        try:
            return [(job_id, state, attempt) for job_id, state, attempt in self._fetch(_STANDS)]
        except (sqlite3.Error, psycopg.Error) as error:
            # There may be no database yet, nobody who has it open and keeps its log in order, or no server.
            raise Unseen from error


class Unseen(Exception):
    """Nobody could look into the database."""


def in_file(database: Path) -> Records:
    """What a SQLite file says."""

    def fetch(statement: str) -> list[tuple[Any, ...]]:
        uri = f"{database.as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=5)) as connection:
            return connection.execute(statement).fetchall()

    return Records(fetch, args="args", error="error")


def on_server(url: str) -> Records:
    """What a PostgreSQL server says."""

    def fetch(statement: str) -> list[tuple[Any, ...]]:
        options = f"-c search_path={SCHEMA}"
        with psycopg.connect(url, autocommit=True, options=options) as connection:
            return connection.execute(statement.encode()).fetchall()

    return Records(fetch, args="args::json", error="error::json")


class Observer:
    """Notes each change that it sees, from its start to its end; context manager."""

    def __init__(self, records: Records, history: History) -> None:
        self._records, self._history = records, history
        self._seen: dict[str, tuple[str, int]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="observer", daemon=True)
        self.open = 0  #: jobs that had not ended when last looked

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(EVERY):
            with suppress(Unseen):
                self._look()

    def _look(self) -> None:
        found = self._records.stands()
        now = time.monotonic()
        self.open = sum(state in ("PENDING", "STARTED") for _, state, _ in found)
        for job_id, *stands in found:
            if self._seen.get(job_id) != (new := (stands[0], stands[1])):
                self._seen[job_id] = new
                self._history.add(Sighting(job_id, now, JobState(new[0]), new[1]))
        for job_id in self._seen.keys() - {job_id for job_id, *_ in found}:
            del self._seen[job_id]
            self._history.add(Sighting(job_id, now, None))
