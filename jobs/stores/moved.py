"""The mark of a move in a database file: where its jobs go, and how far that is."""

import sqlite3
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from jobs.errors import DatabaseMoved


class Stage(StrEnum):
    """How far a move is. What a stage forbids, triggers in the file forbid to every process that uses it."""

    COPYING = "copying"  #: changes are noted
    HELD = "held"  #: no job begins
    CLOSED = "closed"  #: nothing is written: the jobs may soon be claimed elsewhere
    MOVED = "moved"  #: they may be claimed elsewhere


class Mark(NamedTuple):
    """A move: its name, where to, how far."""

    token: str
    target: str  #: in words, without user and password
    stage: Stage


def mark(connection: sqlite3.Connection) -> Mark | None:
    """The move that was begun, if any. Raises `sqlite3.Error`."""
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'move'").fetchone():
        return None
    token, target, stage = connection.execute("SELECT token, target, stage FROM move").fetchone()
    return Mark(token, target, Stage(stage))


def refusal(path: Path | str, target: str, stage: Stage) -> str:
    """What is said to who writes to the file in this stage."""
    if stage is Stage.HELD:
        return f"no job of {path} begins now: they are about to be moved to {target}"
    if stage is Stage.CLOSED:
        return (
            f"the jobs of {path} are being moved to {target}: try again there. (If the move was interrupted:"
            " `quart-jobs move` goes on with it, --abort undoes it)"
        )
    return f"the jobs of {path} have moved to {target}: set JOBS_DATABASE to its address"


def refuse_if_moved(connection: sqlite3.Connection) -> None:
    """Raises `DatabaseMoved` if nothing may be written to the file any more."""
    found = mark(connection)
    if found is not None and found.stage in (Stage.CLOSED, Stage.MOVED):
        (_, _, path) = connection.execute("PRAGMA database_list").fetchone()
        raise DatabaseMoved(refusal(path, found.target, found.stage))
