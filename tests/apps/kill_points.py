"""Ends a process with SIGKILL at a named point of a job's way: `JOBS_KILL_AT=<name>`, imported by the
service beside its tasks. It dies there once, the first time that any process comes by; `JOBS_KILLED`
is the file that says so.

Nothing in `jobs` knows of this: the points are put around its functions from outside, and into its
transactions by SQLite's own trace of statements."""

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

from jobs import waiters
from jobs.channel import Channel
from jobs.engines.lanes import LaneEngine
from jobs.stores import connection
from jobs.stores.sqlite import SQLiteStore
from tests.chaos import effects

AT, KILLED = "JOBS_KILL_AT", "JOBS_KILLED"


def die() -> None:
    """SIGKILL, unless somebody has died here already."""
    try:
        fd = os.open(os.environ[KILLED], os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return
    os.write(fd, f"{os.getpid()} {time.monotonic()}".encode())
    os.kill(os.getpid(), signal.SIGKILL)


def _always(*_: Any) -> bool:
    return True


def before(owner: Any, name: str, when: Callable[..., bool] = _always) -> None:
    """Die before the function does anything."""
    inner = getattr(owner, name)

    def outer(*args: Any, **kwargs: Any) -> Any:
        if when(*args):
            die()
        return inner(*args, **kwargs)

    setattr(owner, name, outer)


def after(owner: Any, name: str, when: Callable[..., bool] = _always) -> None:
    """Die when the function has done everything."""
    inner = getattr(owner, name)

    def outer(*args: Any, **kwargs: Any) -> Any:
        result = inner(*args, **kwargs)
        if when(*args):
            die()
        return result

    setattr(owner, name, outer)


def soon() -> None:
    """Die as soon as Python lets other threads run: amid what SQLite is about to do."""
    threading.Thread(target=die).start()


def traced(statement: str, then: str | None = None, do: Callable[[], object] = die) -> None:
    """Die as SQLite begins a statement that contains a text, or, after that, one that begins with `then`."""
    inner = connection._connect
    met = False

    def look(sql: str) -> None:
        nonlocal met
        met = met or statement in sql
        if met and (then is None or sql.startswith(then)):
            do()

    def connect(*args: Any) -> sqlite3.Connection:
        made: sqlite3.Connection = inner(*args)
        if args[1] == "rw":
            made.set_trace_callback(look)
        return made

    connection._connect = connect


def committed(statement: str) -> None:
    """Die when a transaction with such a statement has been committed, before anyone hears of it."""
    commits: list[bool] = []
    traced(statement, "COMMIT", lambda: commits.append(True))
    after(connection.Connection, "_call", lambda *_: bool(commits))


def _begins(word: str, *_: Any) -> bool:
    return word == "begin"


ADD = "INSERT INTO jobs "
FINISH = "again_at"
REAP = "claimed_by IN (SELECT value FROM json_each('[\""
RELEASE = "attempt = attempt - 1"

POINTS: dict[str, Callable[[], None]] = {
    # the service
    "add: before the commit": lambda: traced(ADD, "COMMIT"),
    "add: within the commit": lambda: traced(ADD, "COMMIT", soon),
    "add: after the commit, before the answer": lambda: committed(ADD),
    "claimed, not started": lambda: before(LaneEngine, "start"),
    "result here, not recorded": lambda: before(SQLiteStore, "finish"),
    "finish: before the commit": lambda: traced(FINISH, "COMMIT"),
    "finish: within the commit": lambda: traced(FINISH, "COMMIT", soon),
    "finished, nobody told": lambda: before(waiters.Waiters, "deliver"),
    "reap: before the commit": lambda: traced(REAP, "COMMIT"),
    "release: before the commit": lambda: traced(RELEASE, "COMMIT"),
    "checkpoint": lambda: traced(ADD, "PRAGMA wal_checkpoint", soon),
    "migration": lambda: traced("CREATE TABLE payloads"),
    # a child
    "child: before it says that it starts": lambda: before(Channel, "begin"),
    "child: running": lambda: after(effects, "note", _begins),
    "child: result made, not sent": lambda: after(Channel, "end"),
    "child: result sent": lambda: after(Channel, "flush"),
}

if point := os.environ.get(AT):
    POINTS[point]()
