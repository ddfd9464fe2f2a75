"""`quart-jobs backup` and `restore`: a backup of a busy service becomes a service that does its work."""

import sqlite3
import threading
from contextlib import closing

import pytest

from tests.running import PATIENCE, Running, Starter, starter, until

start = pytest.fixture(starter)

TASKS = """
from jobs import task

@task
def double(n: int) -> int:
    return 2 * n
"""


class Load:
    """A client that submits jobs one after another until the service is gone."""

    def __init__(self, service: Running) -> None:
        self.acknowledged: dict[str, int] = {}
        self._service = service
        self._thread = threading.Thread(target=self._submit)
        self._thread.start()

    def _submit(self) -> None:
        n = 0
        while True:
            try:
                answer = self._service.post("/tasks/mine.double/jobs", {"n": n})
            except OSError:
                return
            if answer.status == 202:
                self.acknowledged[answer.json()["id"]] = n
            n += 1

    def end(self) -> None:
        self._thread.join(PATIENCE)


def ends(running: Running) -> tuple[int, str]:
    return running.process.wait(PATIENCE), running.output


def test_a_backup_under_load_is_restored_and_drained(start: Starter) -> None:
    """Whatever was acknowledged before the backup began is in it; nothing in it is lost or half there."""
    start.write("mine.py", TASKS)
    service = start.serve("--tasks", "mine", "--nice", "0")
    load = Load(service)
    try:
        until(lambda: len(load.acknowledged) >= 20)
        before = dict(load.acknowledged)
        code, said = ends(start.quart_jobs("backup", "copy.db"))
        assert code == 0, said
        assert "copy.db: " in said
        assert "checked, in " in said
        until(lambda: len(load.acknowledged) > len(before) + 5)
        code, said = ends(start.quart_jobs("restore", "copy.db", "--force"))
        assert (code, said.count("\n")) == (1, 1), said
        assert "is in use by the process" in said
    finally:
        service.close()
        load.end()

    with closing(sqlite3.connect(start.folder / "copy.db")) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = copy.execute(
            "SELECT id, state, args, result FROM jobs LEFT JOIN payloads USING (seq)"
        ).fetchall()
    held = {job_id: (state, args, result) for job_id, state, args, result in rows}
    assert before.keys() <= held.keys()
    assert all(args is not None for _, args, _ in held.values())
    assert {result is None for state, _, result in held.values() if state == "SUCCESS"} == {False}

    code, said = ends(start.quart_jobs("restore", "copy.db", "--force"))
    assert code == 0, said
    assert "the database that was there before" in said
    service = start.serve("--tasks", "mine", "--nice", "0")
    for state in ("PENDING", "RETRY", "STARTED"):
        until(lambda state=state: not service.get(f"/jobs?state={state}").json()["jobs"])
    for job_id, n in before.items():
        assert service.get(f"/jobs/{job_id}/result").json() == 2 * n
    assert service.stop() == 0


@pytest.mark.parametrize("command", ["backup", "restore", "migrate", "worker", "serve"])
def test_every_command_says_in_one_line_why_a_database_cannot_be_used(
    start: Starter, command: str
) -> None:
    start.write("mine.py", TASKS)
    garbage = start.folder / "garbage.db"
    garbage.write_bytes(b"no database " * 1000)
    arguments = {
        "backup": ["copy.db"],
        "restore": ["garbage.db", "--force"],
        "worker": ["--tasks", "mine"],
        "serve": ["--tasks", "mine", "--bind", "127.0.0.1:0"],
    }
    database = "fresh.db" if command == "restore" else "garbage.db"
    code, said = ends(
        start.quart_jobs(command, *arguments.get(command, []), "--database", database)
    )
    assert (code, said.count("\n")) == (2, 1), said
    assert f"{garbage} is not a SQLite database" in said
    assert garbage.read_bytes() == b"no database " * 1000
    assert {file.name for file in start.folder.iterdir()} - {"mine.py", "__pycache__"} == {
        "garbage.db"
    }
