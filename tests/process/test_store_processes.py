"""Several processes on one database file: started, killed, stopped, and their disk failing."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from jobs.model import ErrorKind, JobId, JobQuery, JobState
from jobs.protocols import Wake
from jobs.stores.migrate import migrations
from jobs.stores.sqlite import SQLiteStore
from tests.store_play import PATIENCE, silence

ROOT = Path(__file__).parents[2]


class Process:
    """A `store_process.py`, and what it says."""

    def __init__(self, command: str, path: Path, *, under: tuple[str, ...] = ()) -> None:
        self.run = subprocess.Popen(
            [*under, sys.executable, str(ROOT / "tests/apps/store_process.py"), command, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )

    def says(self, word: str) -> str:
        """What comes after the word in the next line, which must begin with it."""
        assert self.run.stdout is not None
        line = self.run.stdout.readline()
        if not line.startswith(word):
            _, errors = self.run.communicate(timeout=PATIENCE)
            pytest.fail(f"said {line!r} and not {word!r}: {errors}")
        return line.removeprefix(word).strip()

    def tell(self) -> None:
        assert self.run.stdin is not None
        self.run.stdin.write("\n")
        self.run.stdin.flush()

    def ends(self) -> tuple[int, list[str], str]:
        """Its exit status, the lines it still had to say, and its errors."""
        output, errors = self.run.communicate(timeout=PATIENCE * 3)
        return self.run.returncode, output.splitlines(), errors

    def kill(self) -> None:
        self.run.kill()
        self.run.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in started:
        process.kill()


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    async with SQLiteStore(path, busy_timeout=10.0) as store:
        yield store


def sound(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_four_processes_that_start_together_migrate_once(
    path: Path, processes: list[Process]
) -> None:
    processes += [Process("migrate", path) for _ in range(4)]
    ends = [process.ends() for process in processes]
    assert [status for status, _, _ in ends] == [0] * 4, ends
    all_of_them = " ".join(["applied", *(str(each.number) for each in migrations())])
    assert sorted(lines[0] for _, lines, _ in ends) == ["applied"] * 3 + [all_of_them]


def test_every_job_runs_once_whichever_process_takes_it(
    path: Path, processes: list[Process]
) -> None:
    """Fault row 14."""
    processes += [Process("work", path) for _ in range(3)]
    ends = [process.ends() for process in processes]
    assert [status for status, _, _ in ends] == [0] * 3, ends
    ran = [line for _, lines, _ in ends for line in lines if line.startswith("ran")]
    assert len(ran) == len(set(ran)) == 300
    sound(path)


async def test_the_doorbell_rings_within_50_ms(
    path: Path, store: SQLiteStore, processes: list[Process]
) -> None:
    processes.append(other := Process("add_when_told", path))
    other.says("ready")
    delays = []
    for _ in range(5):
        await silence(store)
        other.tell()
        async with asyncio.timeout(PATIENCE):
            while Wake.WORK not in await store.wait():
                pass
        heard = time.monotonic()
        delays.append(heard - float(other.says("added")))
    # A busy machine may be late once, but not each time.
    assert min(delays) < 0.05


async def test_the_jobs_of_a_killed_process_are_put_back_at_once(
    store: SQLiteStore, path: Path, processes: list[Process]
) -> None:
    """Fault row 7."""
    processes.append(other := Process("hold", path))
    job_id = JobId(other.says("holds"))
    assert await store.reap() == set()
    assert (await store.get(job_id)).state is JobState.STARTED
    other.kill()
    await store.reap()
    job = await store.get(job_id)
    assert (job.state, job.lost) == (JobState.RETRY, 1)
    assert job.error is not None
    assert job.error.kind is ErrorKind.LOST
    (again,) = (await store.claim(1)).jobs
    assert again.context == b"sealed"
    assert [file.name for file in path.with_name("jobs.db-claimants").iterdir()] == [store.claimant]


async def test_a_process_that_stands_still_keeps_its_jobs(
    store: SQLiteStore, path: Path, processes: list[Process]
) -> None:
    """Fault row 13."""
    processes.append(other := Process("hold", path))
    job_id = JobId(other.says("holds"))
    other.run.send_signal(signal.SIGSTOP)
    await store.reap()
    assert (await store.get(job_id)).state is JobState.STARTED
    other.run.send_signal(signal.SIGCONT)
    other.tell()
    assert other.ends()[0] == 0


async def test_jobs_are_not_put_back_while_a_child_of_their_process_lives(
    store: SQLiteStore, path: Path, processes: list[Process]
) -> None:
    processes.append(other := Process("hold_with_a_child", path))
    child = int(other.says("child"))
    try:
        job_id = JobId(other.says("holds"))
        other.run.kill()
        other.run.wait()
        await store.reap()
        assert (await store.get(job_id)).state is JobState.STARTED
    finally:
        os.kill(child, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE):
        while (await store.get(job_id)).state is JobState.STARTED:
            await store.reap()


def test_what_was_acknowledged_is_there_after_a_kill(path: Path, processes: list[Process]) -> None:
    """Fault rows 5 and 6."""
    kept: set[str] = set()
    for _ in range(3):
        processes.append(one := Process("pour", path))
        kept |= {one.says("kept") for _ in range(50)}
        one.run.kill()
        assert one.run.stdout is not None
        kept |= {
            line.removeprefix("kept ").strip() for line in one.run.stdout if line.endswith("\n")
        }
    assert asyncio.run(missing(path, kept)) == set()
    sound(path)


async def missing(path: Path, job_ids: set[str]) -> set[str]:
    async with SQLiteStore(path, busy_timeout=10.0) as store:
        return job_ids - set(await store.states([JobId(job_id) for job_id in job_ids]))


@pytest.mark.parametrize("content", [b"garbage, and no database at all\n" * 10, None])
def test_a_process_that_cannot_open_says_why_and_ends(
    path: Path, processes: list[Process], content: bytes | None
) -> None:
    if content is None:
        path = path.parent / "missing" / "jobs.db"
    else:
        path.write_bytes(content)
    processes.append(one := Process("work", path))
    status, lines, errors = one.ends()
    assert (status, lines) == (1, [])
    assert len(errors.splitlines()) == 1
    assert str(path if content else path.parent) in errors
    if content is not None:
        assert path.read_bytes() == content
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.debian("strace")
def test_a_disk_that_cannot_sync_refuses_the_job_and_turns_the_store_unready(
    path: Path, processes: list[Process]
) -> None:
    inject = "inject=fdatasync,fsync:error=EIO:when=25..26"
    processes.append(
        one := Process(
            "meet_failures", path, under=("strace", "-f", "-qq", "-o", "/dev/null", "-e", inject)
        )
    )
    status, lines, errors = one.ends()
    assert status == 0, errors
    words = [line.split()[0] for line in lines]
    assert words[-2:] == ["ready", "bye"]
    assert "unready" in words
    refused = {line.split()[1] for line in lines if line.startswith("refused")}
    kept = {line.split()[1] for line in lines if line.startswith("kept")}
    assert refused
    assert asyncio.run(missing(path, kept)) == set()
    assert asyncio.run(missing(path, refused)) == refused
    sound(path)


async def test_a_database_whose_index_file_was_lost_opens_with_all_that_was_kept(
    path: Path, processes: list[Process]
) -> None:
    processes.append(one := Process("pour", path))
    kept = {one.says("kept") for _ in range(30)}
    one.kill()
    with suppress(FileNotFoundError):
        path.with_name("jobs.db-shm").unlink()
    assert await missing(path, kept) == set()
    async with SQLiteStore(path, busy_timeout=10.0) as store:
        assert len((await store.find(JobQuery(limit=1000))).jobs) >= 30
