"""`quart-jobs doctor`, beside a service and where something is wrong."""

import json
import sys

import pytest

from tests.running import PATIENCE, Running, Starter, starter, until

start = pytest.fixture(starter)

TASKS = """
import time
from jobs import task

@task
def linger(seconds: float) -> None:
    time.sleep(seconds)
"""


def ends(running: Running) -> tuple[int, str]:
    return running.process.wait(PATIENCE), running.output


def test_beside_a_service_it_finds_no_problem(start: Starter) -> None:
    start.write("mine.py", TASKS)
    service = start.serve("--tasks", "mine")
    accepted = service.post("/tasks/mine.linger/jobs", {"seconds": 50})
    until(lambda: service.get(accepted.headers["Location"]).json()["state"] == "STARTED")
    code, said = ends(start.quart_jobs("doctor"))
    assert code == 0, said
    assert said.rstrip().endswith(" 0 problems")
    assert "1 STARTED" in said
    assert f"1 use the database: {service.process.pid}" in said
    assert "ballast" in said
    for subject in ("Python", "SQLite", "file system", "open files", "child process", "clock"):
        assert f"  {subject}  " in said


def test_a_problem_is_an_exit_code_and_says_what_to_do(start: Starter) -> None:
    (start.folder / "jobs.db").write_bytes(b"no database " * 1000)
    code, said = ends(start.quart_jobs("doctor"))
    assert code == 1, said
    assert "problem  database" in said
    assert "is not a SQLite database: name another file" in said
    assert [file.name for file in start.folder.iterdir()] == ["jobs.db"]


def test_the_machines_limits_are_told_and_read_by_programs(start: Starter) -> None:
    command = [sys.executable, "-P", "-m", "service.cli", "doctor", "--json"]
    limited = start.command("sh", "-c", 'ulimit -n 100; exec "$@"', "sh", *command)
    code, said = ends(limited)
    assert code == 0, said
    told = json.loads(said)
    assert told["healthy"] is True
    (files,) = [one for one in told["findings"] if one["subject"] == "open files"]
    assert files["level"] == "warning"
    assert "100 open" in files["said"]
    assert "ulimit -n" in files["advice"]
    assert not list(start.folder.iterdir())
