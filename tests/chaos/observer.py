"""Looks into the database from outside, as no member of the service does."""

import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from jobs.model import JobState

from .history import History, Sighting

EVERY = 0.05  #: seconds between two looks

_ROWS = """
SELECT id, args ->> 'token', task, state, attempt, max_attempts, timeout, crashes, lost, error ->> 'kind'
FROM jobs LEFT JOIN payloads USING (seq) ORDER BY jobs.seq
"""

_ATTEMPTS = """
SELECT jobs.id, number FROM attempts JOIN jobs ON jobs.seq = job
WHERE outcome != 'shutdown' ORDER BY number
"""


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


def rows(database: Path) -> list[Row]:
    """All jobs that are kept."""
    with closing(_connect(database)) as connection:
        attempts = _attempts(connection)
        return [
            Row(
                *(job_id, token, task, JobState(state), *rest),
                attempts=None if attempts is None else attempts[job_id],
            )
            for job_id, token, task, state, *rest in connection.execute(_ROWS)
        ]


def _attempts(connection: sqlite3.Connection) -> defaultdict[str, list[int]] | None:
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'attempts'").fetchone():
        return None
    found: defaultdict[str, list[int]] = defaultdict(list)
    for job_id, number in connection.execute(_ATTEMPTS):
        found[job_id].append(number)
    return found


class Observer:
    """Notes each change that it sees, from its start to its end; context manager."""

    def __init__(self, database: Path, history: History) -> None:
        self._database, self._history = database, history
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
            # There may be no database yet, or nobody who has it open and keeps its log in order.
            with suppress(sqlite3.Error):
                self._look()

    def _look(self) -> None:
        # A new connection each time: one that stays would keep the log from ever being removed.
        with closing(_connect(self._database)) as connection:
            found = connection.execute("SELECT id, state, attempt FROM jobs").fetchall()
        now = time.monotonic()
        self.open = sum(state in ("PENDING", "STARTED") for _, state, _ in found)
        for job_id, *stands in found:
            if self._seen.get(job_id) != (new := (stands[0], stands[1])):
                self._seen[job_id] = new
                self._history.add(Sighting(job_id, now, JobState(new[0]), new[1]))
        for job_id in self._seen.keys() - {job_id for job_id, *_ in found}:
            del self._seen[job_id]
            self._history.add(Sighting(job_id, now, None))


def _connect(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=5)
