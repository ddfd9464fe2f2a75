"""A log that ends anywhere, as a loss of power leaves it: what was acknowledged before that point is there."""

import asyncio
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from jobs.model import JobId
from jobs.stores.sqlite import SQLiteStore
from tests.store_play import ended, ids, new_jobs

HEADER, FRAME = 32, 24 + 4096  #: bytes, https://sqlite.org/fileformat2.html#the_write_ahead_log

Log = tuple[bytes, bytes, list[tuple[JobId, int]]]
"""A database, its log, and each job that was added with the size that the log had when that was said."""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    return asyncio.run(written(tmp_path_factory.mktemp("log") / "jobs.db"))


async def written(path: Path) -> Log:
    said: list[tuple[JobId, int]] = []
    async with SQLiteStore(path, busy_timeout=5.0) as store:
        for turn in range(20):
            if turn % 2:
                await store.finish([ended(job) for job in (await store.claim(1)).jobs])
            jobs = new_jobs(2)
            await store.add(jobs)
            said += [(job_id, wal(path).stat().st_size) for job_id in ids(jobs)]
        return path.read_bytes(), wal(path).read_bytes(), said


def wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


async def opens(folder: Path, log: Log, cut: int) -> None:
    """With the log cut there, the store has all that was said before, and of the rest no job without
    those before it."""
    database, whole, said = log
    path = folder / f"{cut}.db"
    path.write_bytes(database)
    wal(path).write_bytes(whole[:cut])
    async with SQLiteStore(path, busy_timeout=5.0) as store:
        found = await store.states([job_id for job_id, _ in said])
        kept = [job_id for job_id, size in said if size <= cut]
        assert list(found) == [] or set(found) == {job_id for job_id, _ in said[: len(found)]}
        assert len(found) >= len(kept)
        await store.check()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_log_cut_at_a_page_keeps_what_came_before(tmp_path: Path, log: Log) -> None:
    cuts = range(HEADER, len(log[1]) + 1, FRAME)
    assert len(cuts) > 60
    for cut in cuts:
        await opens(tmp_path, log, cut)


async def test_a_log_cut_anywhere_keeps_what_came_before(tmp_path: Path, log: Log) -> None:
    anywhere = random.Random(7)
    for cut in {0, 1, HEADER - 1, *(anywhere.randrange(len(log[1])) for _ in range(30))}:
        await opens(tmp_path, log, cut)


async def test_a_log_with_a_wrong_byte_ends_before_it(tmp_path: Path, log: Log) -> None:
    database, whole, said = log
    wrong = bytearray(whole)
    wrong[len(whole) // 2] ^= 0x40
    await opens(tmp_path, (database, bytes(wrong), said), len(whole) // 2)


async def test_without_its_log_a_database_opens_with_what_it_held(tmp_path: Path, log: Log) -> None:
    path = tmp_path / "jobs.db"
    path.write_bytes(log[0])
    async with SQLiteStore(path, busy_timeout=5.0) as store:
        await store.add(new_jobs(1))
