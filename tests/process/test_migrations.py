"""Processes that start together migrate once, and one that dies within a migration leaves none of it."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jobs.stores.migrate import migrations
from jobs.stores.sqlite import SQLiteStore
from tests.running import PATIENCE, ROOT, Starter, starter
from tests.store_play import new_jobs

start = pytest.fixture(starter)

KNOWN = len(migrations())
STATEMENTS = 4  #: in the further migration


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database of this release with some jobs."""

    async def filled() -> None:
        async with SQLiteStore(tmp_path / "jobs.db", busy_timeout=5.0) as store:
            await store.add(new_jobs(50))

    asyncio.run(filled())
    return tmp_path / "jobs.db"


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def migrating(path: Path, *pause: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tests/apps/migrating_process.py"), str(path), *pause],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def ask(path: Path, statement: str) -> Any:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute(statement).fetchone()[0]


def test_an_old_file_is_migrated_by_one_of_those_that_start_together(
    path: Path, processes: list[subprocess.Popen[str]]
) -> None:
    processes += [migrating(path) for _ in range(4)]
    said = sorted(process.communicate(timeout=PATIENCE)[0].strip() for process in processes)
    assert said == ["applied"] * 3 + [f"applied {KNOWN + 1}"]
    assert ask(path, "PRAGMA user_version") == KNOWN + 1
    assert ask(path, "SELECT count(*) FROM further") == 50


@pytest.mark.parametrize("pause", range(STATEMENTS + 1))
def test_a_kill_within_a_migration_leaves_the_old_version_whole(
    path: Path, processes: list[subprocess.Popen[str]], pause: int
) -> None:
    """Whatever has been done of it by then; the next that starts does it all."""
    processes.append(killed := migrating(path, str(pause)))
    assert killed.stdout is not None
    assert killed.stdout.readline() == "paused\n"
    killed.kill()
    killed.wait(PATIENCE)
    assert ask(path, "PRAGMA user_version") == KNOWN
    assert ask(path, "SELECT count(*) FROM sqlite_schema WHERE sql LIKE '%further%'") == 0
    assert ask(path, "SELECT count(*) FROM jobs") == 50
    processes.append(again := migrating(path))
    assert again.communicate(timeout=PATIENCE)[0] == f"applied {KNOWN + 1}\n"
    assert ask(path, "SELECT count(*) FROM jobs WHERE further = seq") == 50


def test_four_services_that_start_together_on_a_fresh_file_all_serve(start: Starter) -> None:
    start.write(
        "mine.py", "from jobs import task\n\n@task\ndef double(n: int) -> int:\n    return 2 * n\n"
    )
    services = [
        start.quart_jobs(
            *("serve", "--tasks", "mine", "--bind", "127.0.0.1:0"), JOBS_LANES=str(int(not number))
        )
        for number in range(4)
    ]
    for number, service in enumerate(services):
        service.serves()
        assert service.result(service.post("/tasks/mine.double/jobs", {"n": number})) == 2 * number
    assert ask(start.folder / "jobs.db", "SELECT count(*) FROM migrations") == KNOWN
    for service in services:
        assert service.stop() == 0
        assert "Traceback" not in service.output
