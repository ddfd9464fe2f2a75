"""What a database holds, counted. Reads every row: for commands, not for a service."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from .faults import damaged
from .rows import shown


@dataclass(frozen=True, slots=True)
class Census:
    """Jobs by shown state, and how many of them carry a sealed request snapshot."""

    states: dict[str, int]
    sealed: int

    def __str__(self) -> str:
        return ", ".join(f"{count} {state}" for state, count in self.states.items()) or "none"


def take_census(connection: sqlite3.Connection) -> Census:
    """Count the jobs. Raises `sqlite3.Error`."""
    rows = connection.execute(
        "SELECT state, min(attempt, 1), count(*) FROM jobs GROUP BY 1, 2 ORDER BY min(seq)"
    ).fetchall()
    states: dict[str, int] = {}
    for state, attempt, count in rows:
        name = shown(state, attempt).value
        states[name] = states.get(name, 0) + count
    (sealed,) = connection.execute(
        "SELECT count(*) FROM payloads WHERE context IS NOT NULL"
    ).fetchone()
    return Census(states, sealed)


def check_integrity(connection: sqlite3.Connection, path: Path) -> None:
    """Raise `DatabaseUnusable` if the database is damaged; `sqlite3.Error` if that makes it unreadable."""
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise damaged(path, verdict)
