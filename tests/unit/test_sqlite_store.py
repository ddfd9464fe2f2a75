"""What is SQLite's own: the file and its side files, locks and budgets, the log, a clean end."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from jobs import housekeeping
from jobs.errors import ConfigurationError, DatabaseUnusable, StoreBusy, StoreError, StoreFull
from jobs.model import JobQuery, JobState, now_ms
from jobs.protocols import Wake
from jobs.settings import Settings
from jobs.stores import commits, open_store, place, sqlite_path
from jobs.stores.connection import Connection
from jobs.stores.gate import Gate
from jobs.stores.sqlite import SQLiteStore
from tests.disks import fill, mounted
from tests.store_play import (
    PATIENCE,
    add,
    claimed_one,
    ended,
    ids,
    invocations,
    new_job,
    new_jobs,
    until,
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def no_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store does not tidy up meanwhile, however slow the machine is."""
    monkeypatch.setattr(commits, "_QUIET", 3600.0)


def store_at(path: Path, **options: Any) -> SQLiteStore:
    return SQLiteStore(path, **{"busy_timeout": 5.0} | options)


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SQLiteStore]:
    async with store_at(path, busy_timeout=0.2) as store:
        yield store


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kept(folder: Path) -> dict[str, bytes]:
    """The same, but for what SQLite writes there of its readers and locks."""
    return {path: data for path, data in contents(folder).items() if not path.endswith("-shm")}


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.01)


def log_size(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size


# where it may be


def make_garbage(path: Path) -> None:
    path.write_bytes(b"\x7fELF" + bytes(range(256)) * 40)


def make_short_garbage(path: Path) -> None:
    path.write_text("hello")


def make_damaged(path: Path) -> None:
    asyncio.run(filled(path))
    middle = path.stat().st_size // 2
    with path.open("r+b") as file:
        file.seek(middle)
        file.write(b"\xff" * 4096)


async def filled(path: Path) -> None:
    async with store_at(path) as store:
        await store.add(new_jobs(500))


def make_another_programs(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE users (name TEXT)")


def make_newer(path: Path) -> None:
    asyncio.run(filled(path))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def make_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_garbage, "is not a SQLite database"),
        (make_short_garbage, "is not a SQLite database"),
        (make_damaged, "is damaged"),
        (make_another_programs, "belongs to another program"),
        (make_newer, r"has schema version 99 and this release knows \d+"),
        (make_folder, "is not a file"),
    ],
)
def test_what_is_no_database_of_ours_is_refused_and_left_alone(
    path: Path, make: Callable[[Path], None], message: str
) -> None:
    make(path)
    kept = {name: data for name, data in contents(path.parent).items() if "-gate" not in name}

    async def opened() -> None:
        async with store_at(path):
            pass

    with pytest.raises(DatabaseUnusable, match=message) as caught:
        asyncio.run(opened())
    assert str(path) in str(caught.value)
    assert {n: d for n, d in contents(path.parent).items() if "-gate" not in n} == kept


async def test_a_missing_folder_is_refused_and_not_made(tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    with pytest.raises(DatabaseUnusable, match=f"the folder {folder} .* does not exist"):
        async with store_at(folder / "jobs.db"):
            pass
    assert not folder.exists()


@needs_root
async def test_a_read_only_file_system_is_refused(tmp_path: Path) -> None:
    with mounted(tmp_path, "ro"):
        with pytest.raises(DatabaseUnusable, match="is read-only"):
            async with store_at(tmp_path / "jobs.db"):
                pass
        assert list(tmp_path.iterdir()) == []


async def test_a_read_only_file_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await filled(path)
    path.chmod(0o400)
    if os.geteuid() == 0:  # whom no mode stops
        monkeypatch.setattr(os, "access", lambda file, _: file != path)
    before = contents(path.parent)
    with pytest.raises(DatabaseUnusable, match=f"{path} is not writable"):
        async with store_at(path):
            pass
    assert contents(path.parent) == before


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p", "virtiofs"])
async def test_a_network_file_system_is_refused_by_name_unless_allowed(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        f"36 35 {os.major(device)}:{os.minor(device)} / /srv rw shared:1 - {kind} host:/srv rw\n"
    )
    monkeypatch.setattr(place, "MOUNTS", mounts)
    with pytest.raises(DatabaseUnusable, match=rf"network file system \({kind}\)"):
        async with store_at(path):
            pass
    assert not path.exists()
    async with store_at(path, allow_network_filesystem=True) as store:
        await store.add([new_job()])


def test_the_kernel_names_the_file_system_of_a_folder(tmp_path: Path) -> None:
    told = subprocess.run(
        ["stat", "-f", "-c", "%T", "/dev/shm"], capture_output=True, text=True, check=True
    )
    assert place.filesystem(Path("/dev/shm")) == told.stdout.strip()
    assert place.filesystem(Path("/proc")) == "proc"


async def test_a_path_may_hold_any_character_and_lead_through_links(tmp_path: Path) -> None:
    folder = tmp_path / "a ?b=#%20 ü"
    folder.mkdir()
    (tmp_path / "link.db").symlink_to(folder / "real.db")
    async with store_at(tmp_path / "link.db") as store:
        job = new_job()
        await store.add([job])
        async with store_at(folder / "real.db") as other:
            assert (await other.get(job.id)).id == job.id
    assert (folder / "real.db").is_file()
    assert store.location == str(folder / "real.db")


@pytest.mark.parametrize(
    ("database", "path"),
    [
        ("jobs.db", "jobs.db"),
        ("/var/jobs.db", "/var/jobs.db"),
        ("sqlite:///jobs.db", "jobs.db"),
        ("sqlite:////var/jobs.db", "/var/jobs.db"),
    ],
)
def test_the_database_is_a_path_or_a_url(database: str, path: str) -> None:
    assert sqlite_path(database) == Path(path)


@pytest.mark.parametrize(
    "database", ["postgresql://h/d", "sqlite://jobs.db", "", "sqlite://", ":memory:"]
)
def test_another_database_is_refused_in_words(database: str) -> None:
    with pytest.raises(ConfigurationError, match="JOBS_DATABASE"):
        sqlite_path(database)


async def test_the_settings_open_a_store(path: Path) -> None:
    async with open_store(Settings(database=f"sqlite:///{path}")) as store:
        assert store.location == str(path)
        await store.check()


# what lies beside it


async def test_only_the_owner_reads_the_database_and_its_side_files(path: Path) -> None:
    old = os.umask(0)
    try:
        async with store_at(path) as store:
            await claimed_one(store)
            modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.rglob("*")}
    finally:
        os.umask(old)
    assert modes.pop("jobs.db-claimants") == 0o700
    assert set(modes) == {"jobs.db", "jobs.db-wal", "jobs.db-shm", "jobs.db-gate", store.claimant}
    assert set(modes.values()) == {0o600}


async def test_a_database_that_others_could_read_is_closed_to_them(path: Path) -> None:
    await filled(path)
    path.chmod(0o644)
    await filled(path)
    assert path.stat().st_mode & 0o777 == 0o600


async def test_after_the_end_all_is_in_one_file(path: Path) -> None:
    async with store_at(path) as store:
        await store.add(new_jobs(100))
    assert {file.name for file in path.parent.iterdir()} == {
        *("jobs.db", "jobs.db-gate", "jobs.db-claimants")
    }
    assert list(path.with_name("jobs.db-claimants").iterdir()) == []


@pytest.mark.parametrize("size", [50, 1_000])
async def test_a_purged_context_is_nowhere_in_the_files(path: Path, size: int) -> None:
    canary = os.urandom(16).hex().encode()
    async with store_at(path) as store:
        await store.add(new_jobs(20, context=canary * size))
        jobs = (await store.claim(20)).jobs
        await store.finish([ended(job) for job in jobs])
    assert [name for name, data in contents(path.parent).items() if canary in data] == []


async def test_the_log_is_emptied_when_all_is_quiet(
    path: Path, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "_QUIET", 0.05)
    await store.add(new_jobs(100))
    await eventually(lambda: not log_size(path))
    await store.add([new_job()])
    assert log_size(path)


async def test_the_log_is_emptied_although_a_dispatcher_keeps_house(
    path: Path, store: SQLiteStore
) -> None:
    await store.add(new_jobs(100))
    for _ in range(3):
        await asyncio.sleep(0.9 * housekeeping.REAP_EVERY)
        if not log_size(path):
            break
        await store.reap()
    assert not log_size(path)


async def test_who_leaves_first_leaves_no_log_behind(path: Path, store: SQLiteStore) -> None:
    async with store_at(path) as leaving:
        await leaving.add(new_jobs(100))
        assert log_size(path)
    assert log_size(path) == 0


async def test_opening_a_file_again_takes_no_locks_from_those_who_have_it_open(
    path: Path, store: SQLiteStore, no_quiet: None
) -> None:
    await store.add(new_jobs(10))
    async with store_at(path):
        await store.add(new_jobs(10))
    await store.add(new_jobs(10))
    # Another process that believes to be the last deletes the log when it goes.
    script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT 1 FROM jobs'); c.close()"
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", script, str(path)], check=True)
    assert log_size(path)


async def test_the_log_stays_small_while_jobs_pour_in(path: Path, store: SQLiteStore) -> None:
    for _ in range(40):
        await store.add(new_jobs(20, args=f'"{"x" * 50_000}"'))
    assert path.stat().st_size > 30_000_000
    assert log_size(path) < 10_000_000


# waiting for others


async def test_a_write_waits_for_the_gate_only_as_long_as_it_may(
    path: Path, store: SQLiteStore
) -> None:
    job, refused = new_job(), new_job()
    await store.add([job])
    with closing(Gate(path.with_name("jobs.db-gate"))) as gate:
        with gate.held(0):
            began = time.monotonic()
            results = await asyncio.gather(
                store.add([refused]), store.claim(1), store.check(), return_exceptions=True
            )
            assert [type(result) for result in results] == [StoreBusy] * 3
            assert 0.2 <= time.monotonic() - began < 2
            assert (await store.get(job.id)).state is JobState.PENDING
        await store.check()
    assert ids((await store.claim(9)).jobs) == [job.id]


async def test_a_writes_patience_counts_from_its_call(path: Path) -> None:
    """Not from when those before it have given up."""
    async with store_at(path, busy_timeout=1.0) as store:
        with closing(Gate(path.with_name("jobs.db-gate"))) as gate, gate.held(0):
            first = asyncio.ensure_future(store.add([new_job()]))
            await asyncio.sleep(0.1)
            began = time.monotonic()
            with pytest.raises(StoreBusy):
                await store.add([new_job()])
            assert time.monotonic() - began < 1.6
            assert isinstance(first.exception(), StoreBusy)


async def test_a_write_waits_for_another_program_only_as_long_as_it_may(
    path: Path, store: SQLiteStore
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy):
            await store.add([new_job()])
        waiting = asyncio.create_task(add(store, [job := new_job()]))
        await asyncio.sleep(0.01)
        other.execute("COMMIT")
        await waiting
    assert ids((await store.find(JobQuery())).jobs) == [job.id]


async def test_a_store_that_opens_waits_only_as_long_as_it_may(path: Path) -> None:
    with (
        closing(Gate(path.with_name("jobs.db-gate"))) as gate,
        gate.held(0),
        pytest.raises(StoreBusy),
    ):
        async with store_at(path, busy_timeout=0.05):
            pass
    assert not path.exists()


async def test_too_many_waiting_jobs_are_refused_at_once_but_never_what_frees_them(
    path: Path,
) -> None:
    async with store_at(path, queue_limit=10) as store:
        running = await claimed_one(store)
        adds = [asyncio.create_task(add(store, new_jobs(6))) for _ in range(5)]
        finishing = asyncio.create_task(store.finish([ended(running)]))
        results = await asyncio.gather(*adds, return_exceptions=True)
        assert [type(result) for result in results] == [type(None)] * 2 + [StoreBusy] * 3
        assert await finishing == {running.id}
        await store.add(new_jobs(20))


async def test_a_long_list_holds_up_nobody_who_asks_for_one_job(store: SQLiteStore) -> None:
    job = new_job()
    await store.add([job])
    lister = store._parts.reads._lister
    release = threading.Event()
    listing = asyncio.create_task(lister.run(lambda _: release.wait(PATIENCE)))
    assert (await store.get(job.id)).id == job.id
    assert await store.states([job.id])
    release.set()
    assert await listing


# a full or failing disk


@needs_root
async def test_a_full_disk_refuses_writes_and_takes_them_again_when_there_is_room(
    tmp_path: Path,
) -> None:
    with mounted(tmp_path, "size=2m"):
        async with store_at(tmp_path / "jobs.db") as store:
            job = await claimed_one(store)
            fill(tmp_path / "ballast")
            refused = new_job(args=f'"{"x" * 300_000}"')
            for write in (store.add([refused]), store.finish([ended(job, result=refused.args)])):
                with pytest.raises(StoreFull):
                    await write
            assert (await store.get(job.id)).state is JobState.STARTED
            (tmp_path / "ballast").unlink()
            assert await store.finish([ended(job)]) == {job.id}
            await store.add([refused])
            await store.check()
            await asyncio.gather(*(store.add([job]) for job in new_jobs(10)))


MIB = 1 << 20


@needs_root
async def test_on_a_full_disk_the_ballast_serves_what_is_under_way_and_nothing_new(
    tmp_path: Path,
) -> None:
    """One store gives it up, and both know; the first to find room makes it again for both."""
    with mounted(tmp_path / "disk", "size=16m") as disk:
        path, ballast = disk / "jobs.db", disk / "jobs.db-ballast"
        async with (
            store_at(path, ballast_bytes=2 * MIB) as one,
            store_at(path, ballast_bytes=2 * MIB) as two,
        ):
            assert ballast.stat().st_blocks * 512 == 2 * MIB
            assert ballast.stat().st_mode & 0o777 == 0o600
            first, second, third = [await claimed_one(store) for store in (one, two, two)]
            waiting = new_job()
            await one.add([waiting])
            fill(disk / "filler")
            large = f'"{"x" * 500_000}"'
            with pytest.raises(StoreFull):
                await one.add([new_job(args=large)])
            assert ballast.exists()
            assert await one.finish([ended(first, result=large)]) == {first.id}
            assert not ballast.exists()
            for store in (one, two):
                for write in (store.add([new_job()]), store.claim(1), store.check()):
                    with pytest.raises(StoreFull, match="what is left of it serves"):
                        await write
            assert await two.finish([ended(second, result=large)]) == {second.id}
            await two.release(invocations(third))
            assert await one.cancel(waiting.id) is JobState.PENDING
            assert await one.prune(now_ms() + 1) == 3
            (disk / "filler").unlink()
            await eventually(ballast.exists)
            for store in (one, two):
                await store.add([new_job()])
                await store.check()
            assert ids((await one.claim(1)).jobs) == [third.id]
        assert ballast.stat().st_blocks * 512 == 2 * MIB


@needs_root
async def test_a_store_opens_on_a_disk_that_is_full(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=16m") as disk:
        async with store_at(disk / "jobs.db", ballast_bytes=2 * MIB) as store:
            await store.add([job := new_job()])
        fill(disk / "filler")
        async with store_at(disk / "jobs.db", ballast_bytes=2 * MIB) as store:
            assert not (disk / "jobs.db-ballast").exists()
            assert await store.cancel(job.id) is JobState.PENDING
            with pytest.raises(StoreFull):
                await store.add([new_job()])


@needs_root
async def test_a_disk_without_room_for_the_ballast_takes_no_jobs(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=2m") as disk:
        async with store_at(disk / "jobs.db", ballast_bytes=2 * MIB) as store:
            with pytest.raises(StoreFull):
                await store.add([new_job()])
            assert not (disk / "jobs.db-ballast").exists()


@needs_root
@pytest.mark.parametrize("files", range(1, 7))
async def test_a_disk_that_takes_no_more_files_is_said_in_words(tmp_path: Path, files: int) -> None:
    path = tmp_path / "disk" / "jobs.db"
    with (
        mounted(path.parent, f"size=2m,nr_inodes={files}"),
        pytest.raises(StoreError, match=str(path)),
    ):
        async with store_at(path):
            pass


@pytest.mark.parametrize(
    ("harm", "how"),
    [
        (lambda path: path.unlink(), "deleted"),
        (lambda path: path.rename(path.with_name("elsewhere.db")), "deleted"),
        (lambda path: make_garbage(path.with_name("g")) or path.with_name("g").replace(path), "replaced"),
        (lambda path: path.write_bytes(b""), "emptied"),
    ],
)  # fmt: skip
async def test_a_file_that_is_taken_away_is_noticed_and_not_made_anew(
    path: Path, harm: Callable[[Path], Any], how: str
) -> None:
    async with store_at(path) as store:
        await store.add([job := new_job()])
        harm(path)
        left = kept(path.parent)
        for write in (store.add([new_job()]), store.check(), store.claim(1)):
            with pytest.raises(DatabaseUnusable, match=f"{path} was {how} while it was in use"):
                await write
        store._parts.writer._commits.failure = "the disk failed, and so it is opened once more"
        with pytest.raises(DatabaseUnusable, match=how):
            await store.add([new_job()])
        assert kept(path.parent) == left
        elsewhere = path.with_name("elsewhere.db")
        if elsewhere.exists():
            elsewhere.rename(path)
            await store.add([new_job()])
            assert await store.states([job.id])


async def test_nothing_is_written_to_a_file_that_is_found_damaged(path: Path) -> None:
    await filled(path)
    async with store_at(path) as store:
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (path.stat().st_size - 4096))
        await store._parts.writer._connection.run(lambda raw: raw.execute("PRAGMA shrink_memory"))
        with pytest.raises(DatabaseUnusable, match="is damaged"):
            await store.claim(1)
        size = log_size(path)
        for write in (store.add([new_job()]), store.check()):
            with pytest.raises(DatabaseUnusable, match=r"is damaged .*: restore a backup"):
                await write
        assert log_size(path) == size


async def test_after_a_disk_failure_the_store_is_not_ready_until_a_write_succeeds(
    path: Path, store: SQLiteStore
) -> None:
    kept, lost = new_job(), new_job()
    await store.add([kept])
    connection = store._parts.writer._connection
    broken: Any = await connection.run(lambda raw: raw)
    connection._aio._connection = FailingOnce(broken)
    with pytest.raises(Exception, match="disk I/O error") as caught:
        await store.add([lost])
    assert type(caught.value).__name__ == "StoreError"
    assert connection._aio._connection is not broken
    with pytest.raises(Exception, match="disk I/O error"):
        await store.check()
    await eventually(lambda: store._parts.writer.failure is None)
    await store.check()
    assert isinstance(connection._aio._connection, sqlite3.Connection)
    assert set(await store.states(ids([kept, lost]))) == {kept.id}


async def test_after_a_disk_failure_only_a_commit_that_writes_is_proof(
    path: Path, store: SQLiteStore
) -> None:
    await store.add([new_job()])
    store._parts.writer._commits.failure = "the disk failed"
    before = log_size(path)
    assert await store.prune(0) == 0
    assert log_size(path) > before
    assert store._parts.writer.failure is None


class FailingOnce:
    """A connection whose next commit fails as it does when the disk cannot sync."""

    def __init__(self, real: sqlite3.Connection) -> None:
        self._real = real

    def execute(self, statement: str, *values: Any) -> Any:
        if statement == "COMMIT":
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = 1034  # SQLITE_IOERR_FSYNC
            error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
            raise error
        return self._real.execute(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


# coming and going


@pytest.mark.parametrize("turns", [*range(25), 40, 80])
async def test_a_store_whose_opening_is_cancelled_leaves_nothing_behind(
    path: Path, turns: int
) -> None:
    async def opened() -> None:
        async with store_at(path):
            await asyncio.Event().wait()

    opening = asyncio.create_task(opened())
    for _ in range(turns):
        await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait({opening})
    assert opening.cancelled()
    with suppress(FileNotFoundError):
        assert list(path.with_name("jobs.db-claimants").iterdir()) == []
    async with store_at(path, busy_timeout=0.05) as store:
        await store.check()


async def test_a_store_whose_closing_is_cancelled_closes_all_the_same(path: Path) -> None:
    store = await store_at(path).__aenter__()
    await store.add([new_job()])
    closing_ = asyncio.create_task(store.__aexit__(None, None, None))
    for _ in range(3):
        await asyncio.sleep(0)
        closing_.cancel()
    await asyncio.wait({closing_})
    assert list(path.with_name("jobs.db-claimants").iterdir()) == []


async def test_a_connection_that_is_made_too_late_is_closed() -> None:
    """As when a loop ends that cancels every task it has, those that open a connection too."""
    began, release = threading.Event(), threading.Event()
    made: list[sqlite3.Connection] = []

    def connect() -> sqlite3.Connection:
        began.set()
        release.wait(PATIENCE)
        made.append(sqlite3.connect(":memory:", check_same_thread=False))
        return made[0]

    opening = asyncio.create_task(Connection(connect).open())
    await asyncio.to_thread(began.wait, PATIENCE)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    release.set()
    await asyncio.wait({opening})
    assert opening.cancelled()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        made[0].execute("SELECT 1")


def test_a_loop_that_ends_in_a_hurry_hangs_on_nothing(path: Path) -> None:
    async def main() -> None:
        async def serve() -> None:
            async with store_at(path) as store:
                async with asyncio.TaskGroup() as group:
                    group.create_task(store.wait())
                    for _ in range(5):
                        group.create_task(add(store, [new_job()]))
                await asyncio.Event().wait()

        serving = asyncio.create_task(serve())
        await asyncio.sleep(0.05)
        assert not serving.done()

    asyncio.run(main())


async def test_nothing_is_lost_while_two_stores_write_at_once(path: Path) -> None:
    async with store_at(path) as one, store_at(path) as two:
        jobs = new_jobs(100)
        await asyncio.gather(
            *((one, two)[n % 2].add([job]) for n, job in enumerate(jobs)),
        )
        taken = await asyncio.gather(one.claim(60), two.claim(60))
        assert sorted(ids(taken[0].jobs) + ids(taken[1].jobs)) == sorted(ids(jobs))
        await until(one, Wake.WORK)
