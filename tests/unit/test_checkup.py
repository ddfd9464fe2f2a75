"""What `doctor` says of a database: each fault by name, and the files are as they were."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jobs.model import now_ms
from jobs.settings import Settings
from jobs.stores import checkup, migrate
from jobs.stores.checkup import examine
from jobs.stores.findings import Finding, Level
from jobs.stores.gate import Gate
from jobs.stores.migrate import Migration, migrations
from jobs.stores.sqlite import SQLiteStore
from tests.disks import fill, mounted
from tests.store_play import claimed_one, ended, new_job, new_jobs

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")

BALLAST = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


def store_at(path: Path) -> SQLiteStore:
    return SQLiteStore(path, busy_timeout=5.0, ballast_bytes=BALLAST)


async def filled(path: Path) -> None:
    async with store_at(path) as store:
        await store.add(new_jobs(100))


def contents(folder: Path) -> dict[str, bytes | None]:
    """What is in the files. Not in the index of the log: SQLite shares it within this process, whose store
    may write to it."""
    files = {file for file in folder.rglob("*") if file.is_file()}
    return {str(file): None if "-shm" in file.name else file.read_bytes() for file in files}


def examined(path: Path, **settings: Any) -> dict[str, Finding]:
    """The findings by subject; nothing has changed meanwhile."""
    before = contents(path.parent) if path.parent.is_dir() else {}
    fields: dict[str, Any] = {"busy_timeout": 0.05, "ballast_bytes": BALLAST} | settings
    findings = list(examine(Settings(database=str(path), **fields)))
    assert (contents(path.parent) if path.parent.is_dir() else {}) == before
    found = {finding.subject: finding for finding in findings}
    assert len(found) == len(findings)
    return found


def problems(found: dict[str, Finding]) -> str:
    return "\n".join(one.said for one in found.values() if one.level is Level.PROBLEM)


async def test_a_sound_database_in_use_is_described(path: Path) -> None:
    async with store_at(path) as store:
        done = await claimed_one(store)
        await store.finish([ended(done)])
        await claimed_one(store)
        await store.add(new_jobs(2))
        found = examined(path)
    assert {subject for subject, one in found.items() if one.level is not Level.OK} <= {"SQLite"}
    assert found["jobs"].said.startswith("1 SUCCESS, 1 STARTED, 2 PENDING; the oldest that waits")
    assert found["processes"].said == f"1 use the database: {os.getpid()}"
    assert found["disk"].said.endswith("1 MiB of ballast")
    assert found["schema"].said == f"version {len(migrations())}"


async def test_a_database_that_was_closed_is_examined(path: Path) -> None:
    await filled(path)
    found = examined(path)
    assert found["database"].level is Level.OK
    assert found["jobs"].level is Level.WARNING
    assert "100 PENDING" in found["jobs"].said
    assert "no process is there to run them" in found["jobs"].said


async def crashed(path: Path, folder: Path) -> Path:
    """The files as a crash leaves them."""
    folder.mkdir()
    async with store_at(path) as store:
        await claimed_one(store, new_job(context=b"sealed"))
        for file in path.parent.glob("jobs.db*"):
            if file.is_file():
                shutil.copy(file, folder)
    return folder / path.name


async def test_what_a_crash_has_left_is_examined(path: Path, tmp_path: Path) -> None:
    left = await crashed(path, tmp_path / "crashed")
    index = left.with_name("jobs.db-shm").read_bytes()
    found = examined(left)
    assert left.with_name("jobs.db-shm").read_bytes() == index
    assert found["database"].level is Level.OK
    assert found["processes"].level is Level.WARNING
    assert "1 jobs are marked as running in processes that have died" in found["processes"].said
    assert found["key"].level is Level.WARNING
    assert examined(left, secret_key="s")["key"].level is Level.OK
    left.with_name("jobs.db-shm").unlink()
    found = examined(left)
    assert found["database"].level is Level.WARNING
    assert "has to be recovered" in found["database"].said


def test_where_nothing_is_nothing_is_made(path: Path) -> None:
    found = examined(path)
    assert "does not exist yet" in found["database"].said
    assert not problems(found)


def make_garbage(path: Path) -> None:
    path.write_bytes(b"\x7fELF" + bytes(range(256)) * 40)


def make_short(path: Path) -> None:
    asyncio.run(filled(path))
    path.write_bytes(path.read_bytes()[:50])


def make_damaged(path: Path) -> None:
    asyncio.run(filled(path))
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096 * 4)


def make_newer(path: Path) -> None:
    asyncio.run(filled(path))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def make_another_programs(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE users (name TEXT)")


def make_nothing_of_its_folder(path: Path) -> None:
    path.parent.rmdir()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_garbage, "is not a SQLite database"),
        (make_short, "is not a SQLite database"),
        (make_damaged, "is damaged"),
        (make_newer, "has schema version 99 and this release knows"),
        (make_another_programs, "belongs to another program"),
        (make_nothing_of_its_folder, "does not exist: create it"),
        (Path.mkdir, "is not a file"),
    ],
)
def test_what_is_no_database_of_ours_is_a_problem(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "folder" / "jobs.db"
    path.parent.mkdir()
    make(path)
    assert message in problems(examined(path))


async def test_a_network_file_system_is_a_problem(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.stores.place.filesystem", lambda _: "nfs4")
    assert "network file system (nfs4)" in problems(examined(path))


@needs_root
async def test_a_full_disk_is_a_problem_once_the_ballast_is_gone(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=8m") as disk:
        path = disk / "jobs.db"
        async with store_at(path) as store:
            running = await claimed_one(store)
            fill(disk / "filler")
            assert "nearly full: 0 MiB free" in examined(path)["disk"].said
            await store.finish([ended(running, result=f'"{"x" * 500_000}"')])
            found = examined(path)
        assert "the ballast was given up, and no job is taken" in problems(found)
        assert found["disk"].advice.startswith("make 2 MiB free")


async def test_a_write_lock_that_is_held_is_a_problem(path: Path) -> None:
    await filled(path)
    with closing(Gate(path.with_name("jobs.db-gate"))) as gate, gate.held(0):
        found = examined(path)
    assert "so nothing can be written" in problems(found)
    assert found["jobs"].level is Level.OK


async def test_files_that_others_can_read_are_named(path: Path) -> None:
    await filled(path)
    path.chmod(0o644)
    assert f"others can read {path}" in examined(path)["permissions"].said
    path.chmod(0o600)
    key = path.with_name("jobs.db.key")
    key.write_text("secret")
    key.chmod(0o640)
    found = examined(path)
    assert f"others can read {key}: no service starts" in problems(found)
    assert found["permissions"].advice == f"chmod 600 {key}"
    if os.geteuid() == 0:
        key.chmod(0o600)
        os.chown(key, 12345, 0)
        assert "belong to 2 users" in examined(path)["permissions"].said


async def test_a_clock_that_was_set_back_is_noticed(path: Path) -> None:
    async with store_at(path) as store:
        await store.add([new_job(created_at=now_ms() + 3_600_000)])
    assert "the clock was set back" in examined(path)["clock"].said


async def test_an_older_schema_and_a_large_log_are_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(path)
    known = [*migrations(), Migration(len(migrations()) + 1, "9999_next", "SELECT 1;")]
    for module in (migrate, checkup):
        monkeypatch.setattr(module, "migrations", lambda: known)
    assert examined(path)["schema"].level is Level.WARNING
    monkeypatch.setattr(checkup, "_LARGE_LOG", -1)
    assert "keeps it from shrinking" in examined(path)["log"].said


@pytest.mark.parametrize(
    ("version", "level"), [((3, 51, 2), Level.WARNING), ((3, 51, 3), Level.OK)]
)
def test_a_sqlite_with_the_bug_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], level: Level
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    assert examined(path)["SQLite"].level is level
