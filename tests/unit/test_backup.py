"""Backup and restore: whole copies or none, and a database is never beside the log of another."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import ConfigurationError, DatabaseUnusable, StoreBusy, StoreError, StoreFull
from jobs.model import JobQuery, JobState
from jobs.stores import migrate
from jobs.stores import restore as restoring
from jobs.stores.backup import backup
from jobs.stores.migrate import Migration, migrations
from jobs.stores.restore import restore
from jobs.stores.sqlite import SQLiteStore
from tests.disks import mounted
from tests.store_play import claimed_one, ended, ids, new_job, new_jobs

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "copies" / "copy.db"


@pytest.fixture(autouse=True)
def _folder_for_copies(copy: Path) -> None:
    copy.parent.mkdir()


def store_at(path: Path) -> SQLiteStore:
    return SQLiteStore(path, busy_timeout=5.0)


def contents(folder: Path) -> dict[str, bytes]:
    files = {file for file in folder.rglob("*") if file.is_file()}
    return {str(file): file.read_bytes() for file in files if not file.name.endswith("-gate")}


async def filled(path: Path, count: int = 3, **fields: Any) -> list[str]:
    async with store_at(path) as store:
        await store.add(jobs := new_jobs(count, **fields))
    return ids(jobs)


async def held(path: Path) -> list[str]:
    """The ids of the jobs in a database."""
    async with store_at(path) as store:
        return ids(reversed((await store.find(JobQuery(limit=1000))).jobs))


async def test_a_copy_of_a_database_in_use_is_one_sound_file_of_the_owners(
    path: Path, copy: Path
) -> None:
    async with store_at(path) as store:
        done = await claimed_one(store)
        await store.finish([ended(done)])
        running = await claimed_one(store, new_job(context=b"sealed"))
        await store.add([waiting := new_job()])
        copied = await asyncio.to_thread(backup, path, copy)
        await store.add([new_job()])
    assert copied.census.states == {"SUCCESS": 1, "STARTED": 1, "PENDING": 1}
    assert copied.census.sealed == 1
    assert list(copy.parent.iterdir()) == [copy]
    assert copy.stat().st_mode & 0o777 == 0o600
    assert copied.size == copy.stat().st_size
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert await held(copy) == ids([done, running, waiting])


async def test_an_earlier_copy_is_replaced_only_by_force(path: Path, copy: Path) -> None:
    await filled(path)
    backup(path, copy)
    before = copy.read_bytes()
    jobs = await filled(path)
    with pytest.raises(ConfigurationError, match=rf"{copy} exists: .* --force"):
        backup(path, copy)
    assert copy.read_bytes() == before
    backup(path, copy, force=True)
    assert (await held(copy))[-3:] == jobs


async def test_a_copy_is_not_written_over_a_database_in_use(path: Path, tmp_path: Path) -> None:
    await filled(path)
    other = tmp_path / "other.db"
    await filled(other)
    for target in (path, other):
        with pytest.raises(ConfigurationError, match=f"{target} is a database in use"):
            backup(path, target, force=True)
    for target in (tmp_path, tmp_path / "missing" / "copy.db"):
        with pytest.raises(ConfigurationError, match="name a file in a folder there is"):
            backup(path, target, force=True)


async def test_the_key_is_copied_on_request_and_else_named(path: Path, copy: Path) -> None:
    await filled(path)
    assert backup(path, copy).key_left is None
    key = path.with_name("jobs.db.key")
    key.write_text("secret")
    assert backup(path, copy, force=True).key_left == key
    copied = backup(path, copy, force=True, with_key=True)
    assert copied.key == copy.with_name("copy.db.key")
    assert copied.key.read_text() == "secret"
    assert copied.key.stat().st_mode & 0o777 == 0o600


@needs_root
async def test_a_copy_for_which_there_is_no_room_is_not_there(path: Path, copy: Path) -> None:
    await filled(path, 200, args=f'"{"x" * 5000}"')
    with mounted(copy.parent, "size=512k"):
        with pytest.raises(StoreFull, match=str(copy)):
            backup(path, copy)
        assert list(copy.parent.iterdir()) == []
    await filled(path)


def make_nothing(path: Path) -> None:
    pass


def make_garbage(path: Path) -> None:
    path.write_bytes(b"\x7fELF" + bytes(range(256)) * 40)


def make_short(path: Path) -> None:
    asyncio.run(filled(path))
    path.write_bytes(path.read_bytes()[:50])


def make_damaged(path: Path) -> None:
    asyncio.run(filled(path, 100))
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


UNUSABLE = [
    (make_nothing, r"there is no (database|backup) at"),
    (Path.mkdir, r"is not a file|there is no backup"),
    (make_garbage, "is not a SQLite database"),
    (make_short, "is not a SQLite database"),
    (make_damaged, "is damaged"),
    (make_newer, "has schema version 99 and this release knows"),
    (make_another_programs, "belongs to another program"),
]


@pytest.mark.parametrize(("make", "message"), UNUSABLE)
def test_what_cannot_be_copied_is_left_alone(
    path: Path, copy: Path, make: Callable[[Path], None], message: str
) -> None:
    make(path)
    before = contents(path.parent)
    with pytest.raises(DatabaseUnusable, match=message) as caught:
        backup(path, copy)
    assert str(path) in str(caught.value)
    after = contents(path.parent)
    assert {name: after[name] for name in before} == before
    assert list(copy.parent.iterdir()) == []


@needs_root
def test_a_read_only_place_is_named(path: Path, copy: Path) -> None:
    asyncio.run(filled(path))
    backup(path, copy)
    with mounted(path.parent / "disk", "size=2m") as disk:
        asyncio.run(filled(disk / "jobs.db"))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        before = contents(disk)
        for refused in (
            lambda: backup(disk / "jobs.db", copy, force=True),
            lambda: restore(copy, disk / "jobs.db", force=True),
        ):
            with pytest.raises(DatabaseUnusable, match=f"{disk} is not writable"):
                refused()
        with pytest.raises(StoreError, match=f"{disk} cannot be written to"):
            backup(path, disk / "copy.db")
        assert contents(disk) == before


async def test_a_network_file_system_is_named(
    path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(path)
    backup(path, copy)
    monkeypatch.setattr("jobs.stores.place.filesystem", lambda _: "nfs4")
    for refused in (
        lambda: backup(path, copy, force=True),
        lambda: restore(copy, path, force=True),
    ):
        with pytest.raises(DatabaseUnusable, match=r"network file system \(nfs4\)"):
            refused()
    backup(path, copy, force=True, allow_network_filesystem=True)


# putting one back


async def test_what_is_restored_is_what_was_copied(path: Path, copy: Path) -> None:
    """Jobs that ran then are those of a dead process; they run again."""
    async with store_at(path) as store:
        await claimed_one(store, running := new_job())
        await asyncio.to_thread(backup, path, copy)
        await store.add([new_job()])
    restored = restore(copy, path, force=True)
    assert restored.census.states == {"STARTED": 1}
    assert path.stat().st_mode & 0o777 == 0o600
    async with store_at(path) as store:
        await store.reap()
        assert ids((await store.claim(9)).jobs) == [running.id]


async def test_a_database_that_is_replaced_is_kept_with_its_log(
    path: Path, copy: Path, tmp_path: Path
) -> None:
    """As a crash leaves it: the latest commits are in the log only, which must go along."""
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    old = await filled(path)
    backup(path, copy)
    async with store_at(path) as store:
        await store.add(new := new_jobs(50))
        for file in path.parent.glob("jobs.db*"):
            if file.is_file():
                shutil.copy(file, crashed)
    restored = restore(copy, crashed / "jobs.db", force=True)
    assert restored.put_aside is not None
    assert await held(crashed / "jobs.db") == old
    assert await held(restored.put_aside) == old + ids(new)


async def test_a_log_that_was_left_alone_is_not_applied_to_what_is_restored(
    path: Path, copy: Path
) -> None:
    await filled(path)
    backup(path, copy)
    async with store_at(path) as store:
        await store.add(new_jobs(50))
        log = path.with_name("jobs.db-wal").read_bytes()
    path.unlink()
    path.with_name("jobs.db-wal").write_bytes(log)
    assert restore(copy, path).put_aside is not None
    assert len(await held(path)) == 3


async def test_a_database_is_replaced_only_by_force(path: Path, copy: Path) -> None:
    await filled(path)
    backup(path, copy)
    before = contents(path.parent)
    with pytest.raises(ConfigurationError, match=rf"{path} exists: .* --force"):
        restore(copy, path)
    with pytest.raises(ConfigurationError, match="is the database itself"):
        restore(path, path, force=True)
    assert contents(path.parent) == before


async def test_a_database_in_use_is_not_replaced(path: Path, copy: Path) -> None:
    await filled(path)
    backup(path, copy)
    async with store_at(path) as store:
        with pytest.raises(StoreBusy, match=rf"in use by the process {os.getpid()}"):
            restore(copy, path, force=True)
        await store.add([new_job()])


OPEN = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("SELECT 1 FROM jobs")
print(flush=True)
sys.stdin.read()
"""


def test_a_database_that_another_program_has_open_is_not_replaced(path: Path, copy: Path) -> None:
    asyncio.run(filled(path))
    backup(path, copy)
    command = [sys.executable, "-c", OPEN, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(StoreBusy, match="open in another program"):
            restore(copy, path, force=True)
        other.communicate()
    restore(copy, path, force=True)


@pytest.mark.parametrize(("make", "message"), UNUSABLE)
def test_what_cannot_be_restored_leaves_the_database_as_it_is(
    path: Path, copy: Path, make: Callable[[Path], None], message: str
) -> None:
    asyncio.run(filled(path))
    make(copy)
    before = contents(path.parent)
    with pytest.raises(DatabaseUnusable, match=message) as caught:
        restore(copy, path, force=True)
    assert str(copy) in str(caught.value)
    assert contents(path.parent) == before


async def test_a_database_with_a_log_is_no_backup(path: Path, copy: Path) -> None:
    async with store_at(path) as store:
        await store.add(new_jobs(3))
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    with pytest.raises(ConfigurationError, match=f"quart-jobs backup --database {copy}"):
        restore(copy, path, force=True)


@needs_root
async def test_without_room_for_it_the_database_is_left_as_it_is(path: Path, copy: Path) -> None:
    with mounted(path.parent / "disk", "size=1m") as disk:
        kept = await filled(disk / "jobs.db")
        await filled(path, 200, args=f'"{"x" * 5000}"')
        backup(path, copy)
        with pytest.raises(StoreFull):
            restore(copy, disk / "jobs.db", force=True)
        assert await held(disk / "jobs.db") == kept


async def test_a_restore_that_is_interrupted_leaves_no_database_and_can_be_repeated(
    path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = await filled(path)
    backup(path, copy)
    put_aside = restoring._put_aside

    def interrupted(*arguments: Any) -> None:
        put_aside(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(restoring, "_put_aside", interrupted)
        with pytest.raises(KeyboardInterrupt):
            restore(copy, path, force=True)
    with pytest.raises(DatabaseUnusable):
        await held(path)
    assert "restore it again" in path.read_text()
    restore(copy, path, force=True)
    assert await held(path) == jobs


async def test_a_backup_of_an_earlier_release_is_migrated_at_the_next_start(
    path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = await filled(path)
    backup(path, copy)
    extra = Migration(len(migrations()) + 1, "9999_next", "CREATE TABLE more (n);")
    known = [*migrations(), extra]
    monkeypatch.setattr(migrate, "migrations", lambda: known)
    await filled(path)
    restore(copy, path, force=True)
    assert await held(path) == jobs
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (extra.number,)


async def test_the_key_comes_along_where_there_is_none(path: Path, copy: Path) -> None:
    await filled(path)
    key = path.with_name("jobs.db.key")
    key.write_text("secret")
    backup(path, copy, with_key=True)
    assert restore(copy, path, force=True).key_left is None
    key.write_text("another")
    assert restore(copy, path, force=True).key_left == copy.with_name("copy.db.key")
    assert key.read_text() == "another"
    key.unlink()
    assert restore(copy, path, force=True).key == key
    assert key.read_text() == "secret"
    assert JobState.PENDING in (await _states(path)).values()


async def _states(path: Path) -> dict[str, JobState]:
    async with store_at(path) as store:
        return {job.id: job.state for job in (await store.find(JobQuery())).jobs}
