"""What the PostgreSQL store does beyond the contract: a server that goes away, hangs, or does not answer a COMMIT."""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors

from jobs import processes
from jobs.errors import ConfigurationError, DatabaseUnusable, StoreBusy, StoreError, StoreFull
from jobs.events import EventKind
from jobs.model import Job, JobId, JobQuery, JobState
from jobs.protocols import Progress, Wake
from jobs.settings import Settings
from jobs.stores import open_store, sqlite_path
from jobs.stores.postgres import PostgresStore, commits, migrate, store, writer
from jobs.stores.postgres.server import Server
from tests import postgres
from tests.store_play import (
    PATIENCE,
    PostgresBackend,
    add,
    claimed_one,
    ended,
    ids,
    new_job,
    new_jobs,
    silence,
    until,
)


@pytest.fixture
async def backend() -> AsyncIterator[PostgresBackend]:
    made = PostgresBackend(postgres.shared())
    yield made
    await made.close()


def sessions(one: PostgresStore) -> list[int]:
    """The server's processes that serve a store's writer; those that listen come with `listeners`."""
    connection = one._parts.writer._commits._connection
    assert connection is not None
    return [connection.info.backend_pid]


def kill(*pids: int) -> None:
    for pid in pids:
        postgres.shared().ask("SELECT pg_terminate_backend(%s)", pid)


def listener_of(backend: PostgresBackend, one: PostgresStore) -> int:
    ((pid,),) = backend.server.ask(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND (classid::bigint << 32) | objid::bigint ="
        f" (SELECT lock FROM {backend.schema}.claimants WHERE name = %s)",
        one.claimant,
    )
    return int(pid)


# the address


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("postgresql://ann:hush@db.example:5433/shop", "database shop on db.example:5433"),
        ("postgres://ann:hush@db.example/shop?sslmode=require", "database shop on db.example"),
        ("postgresql:///shop?password=hush&host=/run/pg", "database shop on /run/pg"),
        ("postgresql://ann:hush@db.example", "database ann on db.example"),
    ],
)
def test_the_place_is_told_without_the_password(url: str, location: str) -> None:
    store = open_store(Settings(database=url))
    assert store.location == f"the PostgreSQL {location}"


@pytest.mark.parametrize(
    "database",
    [
        "postgresql://ann:hush@[broken/shop",
        "postgresql://ann:hush@db/shop?nonsense=1",
        "mysql://ann:hush@db/shop",
        "mysql://db/shop?password=hush&x=1",
        "postgresql+psycopg://ann:hush@db/shop",
    ],
)
def test_an_address_that_is_none_is_refused_without_telling_the_password(database: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"JOBS_DATABASE.*postgresql://user@host"
    ) as caught:
        open_store(Settings(database=database))
    assert "hush" not in str(caught.value)
    assert "hush" not in str(caught.value.__cause__)


async def test_a_server_that_refuses_is_told_of_without_the_password(
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = postgres.shared().url.replace("/postgres?", "/nowhere?")
    with pytest.raises(DatabaseUnusable, match=r"nowhere.* does not exist") as caught:
        async with PostgresStore(url, busy_timeout=1.0):
            pass
    url = "postgresql://ann:hush@127.0.0.1:1/shop"
    with pytest.raises(StoreError, match=r"cannot be reached: .*refused") as unreachable:
        async with PostgresStore(url, busy_timeout=1.0, patience=0.1):
            pass
    assert not isinstance(unreachable.value, ConfigurationError)
    assert "hush" not in f"{caught.value} {unreachable.value} {caplog.text}"
    assert "waiting for the database" in caplog.text


def test_without_its_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("jobs.stores.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'quart-jobs\[postgres\]'"):
        open_store(Settings(database="postgresql://h/d"))


def test_a_file_needs_no_driver() -> None:
    code = "import sys; from jobs import stores; from jobs.settings import Settings\n"
    code += "stores.open_store(Settings()); sys.exit('psycopg' in sys.modules)"
    assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", code) == 0


def test_another_address_is_no_file() -> None:
    with pytest.raises(ConfigurationError, match="is not a SQLite file"):
        sqlite_path("postgresql://h/d")


# what errors mean


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.DiskFull("no space"), StoreFull),
        (errors.LockNotAvailable("locked"), StoreBusy),
        (errors.DeadlockDetected("deadlock"), StoreBusy),
        (errors.ReadOnlySqlTransaction("read-only"), DatabaseUnusable),
        (errors.AdminShutdown("shutdown"), StoreError),
        (errors.TooManyConnections("many"), StoreError),
        (psycopg.OperationalError("the connection is lost"), StoreError),
        (errors.CheckViolation("possible_state"), StoreError),
    ],
)
def test_an_error_of_the_server_is_one_of_ours(error: psycopg.Error, kind: type[Exception]) -> None:
    told = Server("postgresql://ann:hush@db/shop", busy_timeout=1.0).translated(error)
    assert type(told) is kind
    assert "the PostgreSQL database shop on db" in str(told)


async def test_rows_that_another_program_has_locked_are_waited_for_and_then_busy(
    backend: PostgresBackend,
) -> None:
    store = await backend.open(busy_timeout=0.3)
    job = new_job()
    await store.add([job])
    with psycopg.connect(backend.server.url) as other:
        other.execute(f"SELECT FROM {backend.schema}.jobs FOR UPDATE")
        with pytest.raises(StoreBusy, match="locked by another program"):
            await store.cancel(job.id)
        assert (await store.claim(1)).jobs == []
    assert await store.cancel(job.id) is JobState.PENDING


async def test_too_many_jobs_that_wait_to_be_added_are_refused(backend: PostgresBackend) -> None:
    store = await backend.open(queue_limit=10)
    adding = store.add(new_jobs(10))
    with pytest.raises(StoreBusy):
        store.add([new_job()])
    await adding
    await store.add([new_job()])


async def test_processes_that_add_the_same_jobs_in_another_order_do_not_fail_for_it(
    backend: PostgresBackend,
) -> None:
    store = await backend.open()
    jobs = new_jobs(2)
    insert = (
        f"INSERT INTO {backend.schema}.jobs (id, task, queue, priority, ready, max_attempts, created_at)"
        " VALUES (%s, 't', 'q', 0, TRUE, 1, 1)"
    )
    with psycopg.connect(backend.server.url) as other:
        other.execute(insert, (jobs[1].id,))
        adding = asyncio.create_task(add(store, jobs))
        await asyncio.sleep(0.3)  # now it waits for the second of them
        await asyncio.to_thread(other.execute, insert, (jobs[0].id,))  # and each for the other
        other.commit()
    await adding
    assert len(await store.states(ids(jobs))) == 2


# a session that ends


class Breaking:
    """A session that ends at its next COMMIT: before the server has it, or before its answer is here."""

    def __init__(
        self,
        real: psycopg.Connection[Any],
        committed: bool,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self._real, self._committed, self._before = real, committed, before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def execute(self, statement: str, *values: Any, **how: Any) -> Any:
        if not statement.endswith("COMMIT"):
            return self._real.execute(statement, *values, **how)
        self._before()
        if self._committed:
            self._real.execute(statement, *values, **how)
        self._real.close()
        raise psycopg.OperationalError("the connection is lost")


def break_next_commit(one: PostgresStore, committed: bool) -> None:
    committing = one._parts.writer._commits
    assert committing._connection is not None
    committing._connection = Breaking(committing._connection, committed)  # type: ignore[assignment]


@contextmanager
def no_server(one: PostgresStore) -> Iterator[None]:
    """Nobody can be reached by new sessions."""

    def refuse() -> Any:
        raise psycopg.OperationalError("connection refused")

    one._server.connect = refuse  # type: ignore[method-assign]
    yield
    del one._server.connect  # type: ignore[attr-defined]


@pytest.mark.parametrize("committed", [True, False])
async def test_a_commit_whose_answer_is_lost_counts_once(
    backend: PostgresBackend, committed: bool
) -> None:
    store = await backend.open()
    job = await claimed_one(store)
    jobs = new_jobs(3)
    break_next_commit(store, committed)
    assert list(await store.add(jobs)) == []
    assert len(await store.states(ids(jobs))) == 3
    break_next_commit(store, committed)
    assert await store.finish([ended(job)]) == {job.id}
    assert len(await store.attempts(job.id)) == 1
    break_next_commit(store, committed)
    claimed = (await store.claim(9)).jobs
    assert ids(claimed) == ids(jobs)
    assert [one.attempt for one in claimed] == [1, 1, 1]


async def test_a_commit_lost_in_a_crash_is_not_taken_for_another_that_got_its_number() -> None:
    server = postgres.Server("-c", "wal_writer_delay=10s")  # only a commit flushes
    try:
        url = f"{server.url}&application_name=quart-jobs"
        async with PostgresStore(url, busy_timeout=5.0) as store:
            committing = store._parts.writer._commits
            assert committing._connection is not None

            def crash() -> None:
                ((xid,),) = real.execute("SELECT pg_current_xact_id()::text::bigint").fetchall()
                server.stop(signal.SIGKILL)
                server.start()
                for _ in range(1000):
                    ((other,),) = server.ask("SELECT pg_current_xact_id()::text::bigint")
                    if other >= xid:
                        return

            real = committing._connection
            committing._connection = Breaking(real, committed=False, before=crash)  # type: ignore[assignment]
            jobs = new_jobs(3)
            with pytest.raises(StoreError, match="not known whether"):
                await store.add(jobs)
            assert not await store.states(ids(jobs))
            assert list(await store.add(jobs)) == []
            assert len(await store.states(ids(jobs))) == 3
    finally:
        server.close()


@pytest.mark.parametrize("committed", [True, False])
async def test_a_claim_that_nobody_knows_of_is_given_back(
    backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    monkeypatch.setattr(store, "BEAT_EVERY", 1000.0)
    one = await backend.open(busy_timeout=0.3)
    running = await claimed_one(one)
    job = new_job()
    await one.add([job])
    with no_server(one):
        break_next_commit(one, committed)
        with pytest.raises(StoreError, match="not known whether"):
            await one.claim(1)
        with pytest.raises(StoreError, match="cannot be reached"):
            await one.check()
    with pytest.raises(StoreError, match="refused it"):  # a transaction that comes to nothing
        await one.add([new_job(max_attempts=0)])
    again = (await one.claim(9)).jobs
    assert [(each.id, each.attempt) for each in again] == [(job.id, 1)]
    assert await one.finish([ended(running)]) == {running.id}


async def test_what_is_known_to_be_away_is_not_waited_for_again(
    backend: PostgresBackend, caplog: pytest.LogCaptureFixture
) -> None:
    store = await backend.open(busy_timeout=1.0)
    with no_server(store):
        kill(*sessions(store))
        with pytest.raises(StoreError, match="cannot be reached"):
            await store.add([new_job()])
        for _ in range(5):
            began = time.monotonic()
            with pytest.raises(StoreError, match="cannot be reached"):
                await store.add([new_job()])
            assert time.monotonic() - began < 0.5
    await store.add([new_job()])
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 2, said
    assert said[0].endswith("cannot be reached: connection refused")
    assert said[1].endswith("is back")


async def test_a_server_that_does_not_answer_is_given_up(
    backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_OVERDUE", 0.2)
    one = await backend.open(busy_timeout=0.2)
    (session,) = sessions(one)
    os.kill(session, signal.SIGSTOP)
    try:
        with pytest.raises(StoreError, match="cannot be reached"):
            await one.add([new_job()])
    finally:
        os.kill(session, signal.SIGCONT)
    await one.add([new_job()])


async def test_sessions_that_end_cost_no_read(backend: PostgresBackend) -> None:
    store = await backend.open()
    job = new_job()
    await store.add([job])
    await asyncio.gather(*(store.get(job.id) for _ in range(8)))
    for _ in range(2):
        backend.server.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'quart-jobs' AND pid != pg_backend_pid()"
        )
        found = await asyncio.gather(*(store.get(job.id) for _ in range(8)))
        assert set(ids(found)) == {job.id}


# the doorbell and who lives


async def test_what_is_done_while_nobody_listens_rings_when_one_does_again(
    backend: PostgresBackend,
) -> None:
    store, other = await backend.open(), await backend.open()
    job = await claimed_one(store)
    await silence(store)
    store_listener = listener_of(backend, store)
    with psycopg.connect(backend.server.url, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s)", (store_listener,))
        await other.cancel(job.id)
        await other.add([new_job()])
    await until(store, Wake.CANCEL | Wake.WORK)
    assert await store.cancel_requests() == {job.id}
    assert listener_of(backend, store) != store_listener, "it holds its lock again"


async def test_a_claimant_without_its_lock_that_was_seen_just_now_keeps_its_jobs(
    backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "JUDGE_AFTER", 0.0)
    store, other = await backend.open(), await backend.open()
    job = await claimed_one(store)
    kill(listener_of(backend, store))
    assert await other.reap() == set()
    assert (await other.get(job.id)).claimed_by == store.claimant


async def silent(backend: PostgresBackend, one: PostgresStore) -> None:
    """Let a store's claimant be as one whose host is cut off: without its lock, and not seen lately."""
    with psycopg.connect(backend.server.url, autocommit=True) as admin:
        admin.execute(
            f"UPDATE {backend.schema}.claimants SET seen_at = 0, lock = -1 WHERE name = %s",
            (one.claimant,),
        )


async def test_who_has_just_come_judges_nobody(
    backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BEAT_EVERY", 1000.0)
    one, other = await backend.open(), await backend.open()
    job = await claimed_one(one)
    await silent(backend, one)
    await other.reap()
    assert (await other.get(job.id)).state is JobState.STARTED
    monkeypatch.setattr(commits, "JUDGE_AFTER", 0.0)
    await other.reap()
    assert (await other.get(job.id)).state is JobState.RETRY


async def test_who_was_given_up_claims_nothing_until_it_was_seen_again(
    backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "JUDGE_AFTER", 0.0)
    monkeypatch.setattr(store, "BEAT_EVERY", 1000.0)
    one, other = await backend.open(), await backend.open()
    await silent(backend, one)
    await other.reap()
    await one.add([new_job()])
    assert (await one.claim(1)).jobs == []
    assert len((await other.claim(1)).jobs) == 1


async def test_who_was_given_up_but_lives_stops_what_others_took_and_claims_it_only_then(
    backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "JUDGE_AFTER", 0.0)
    monkeypatch.setattr(store, "BEAT_EVERY", 0.3)
    one, other = await backend.open(), await backend.open()
    job, kept = await claimed_one(one), None
    await silence(one)
    await silent(backend, one)
    await other.reap()
    await until(one, Wake.CANCEL)
    assert await one.cancel_requests() == {job.id}
    async with asyncio.timeout(PATIENCE):  # its next beat says that it lives
        while kept is None:
            fresh = new_job()
            await one.add([fresh])
            kept = next(iter((await one.claim(1)).jobs), None)
    assert kept.id != job.id, "the old attempt still runs here"
    assert job.id not in ids((await one.claim(9)).jobs)
    await silence(one)
    assert await one.finish([ended(job, JobState.REVOKED)]) == set()
    await until(one, Wake.WORK)
    assert job.id in ids((await one.claim(9)).jobs)


# what the dead have left running


@contextmanager
def left_by(tree: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that a lane of another service started, and that is nobody's now."""
    with subprocess.Popen(["sleep", "60"], env=os.environ | {processes.LANES_OF: tree}) as program:
        try:
            yield program
        finally:
            program.kill()


async def dead_one(backend: PostgresBackend, claimant: str, host: str) -> Job:
    """A job whose claimant is dead, and was on that host."""
    one = PostgresStore(backend.server.url, busy_timeout=5.0, schema=backend.schema)
    one.claimant = claimant
    async with one:
        job = await claimed_one(one)
    backend.server.ask(
        f"INSERT INTO {backend.schema}.claimants VALUES (%s, -1, %s, 1, 0)", claimant, host
    )
    return job


NOBODY = 2**22 + 1  #: a pid that there is not


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells what belongs to whom")
async def test_what_the_dead_left_running_here_is_killed_before_their_jobs_run_again(
    backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "JUDGE_AFTER", 0.0)
    other = await backend.open()
    tree = f"{NOBODY}-{uuid4().hex}"
    job = await dead_one(backend, f"{tree}.1", socket.gethostname())
    with left_by(tree) as program:
        await other.reap()
        assert (await other.get(job.id)).state is JobState.RETRY
        assert program.wait(PATIENCE) == -signal.SIGKILL


async def test_nobody_looks_here_for_what_the_dead_of_another_host_left(
    backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "JUDGE_AFTER", 0.0)
    looked: list[str] = []
    monkeypatch.setattr(processes, "kill_strays", looked.append)
    other = await backend.open()
    job = await dead_one(backend, "1-there.1", "elsewhere")
    await other.reap()
    assert (await other.get(job.id)).state is JobState.RETRY
    assert looked == []


@pytest.mark.parametrize(
    ("neighbour", "state"),
    [
        ("seen_at = seen_at + 60000, judged_at = judged_at + 60000", JobState.STARTED),
        ("seen_at = seen_at + 60000, judged_at = judged_at - 60000", JobState.RETRY),
        ("seen_at = seen_at + 60000, judged_at = NULL", JobState.RETRY),
        ("seen_at = seen_at - 60000", JobState.RETRY),
    ],
)
async def test_the_dead_of_another_host_are_left_to_who_looks_after_them_there(
    backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch, neighbour: str, state: JobState
) -> None:
    monkeypatch.setattr(commits, "JUDGE_AFTER", 0.0)
    monkeypatch.setattr(store, "BEAT_EVERY", 1000.0)
    one, other = await backend.open(), await backend.open()
    await one.reap()
    backend.server.ask(
        f"UPDATE {backend.schema}.claimants SET host = 'elsewhere', {neighbour} WHERE name = %s",
        one.claimant,
    )
    job = await dead_one(backend, "1-there.1", "elsewhere")
    await other.reap()
    assert (await other.get(job.id)).state is state


# what commits late, or comes from elsewhere


async def test_news_of_a_transaction_that_commits_late_are_told_once(
    backend: PostgresBackend,
) -> None:
    store = await backend.open()
    job, late = await claimed_one(store), new_job()
    with psycopg.connect(f"{backend.server.url}&options=-csearch_path%3D{backend.schema}") as other:
        other.execute(
            "WITH added AS (INSERT INTO jobs (id, task, queue, priority, ready, max_attempts, created_at)"
            " VALUES (%s, 't', 'q', 0, TRUE, 1, 1) RETURNING seq),"
            " carried AS (INSERT INTO payloads (seq, args) SELECT seq, '{}' FROM added)"
            " INSERT INTO events (job, run, attempt, kind, at, data)"
            " SELECT seq, 1, 1, 'progress', 1, '1' FROM added",
            (late.id,),
        )
        mark = (await store.news(None)).mark
        await store.say([Progress(job.id, 1, "1")])
        await store.finish([ended(job)])
        early = await store.news(mark)
        assert {event.job_id for event in early.events} == {job.id}
        assert (await store.news(early.mark)).events == []
    news = await store.news(early.mark)
    assert [(event.job_id, event.kind) for event in news.events] == [
        (late.id, EventKind.SUBMITTED),
        (late.id, EventKind.PROGRESS),
    ]
    assert (await store.news(news.mark)).events == []


async def test_rows_that_a_dump_brought_from_another_server_are_no_news(
    backend: PostgresBackend,
) -> None:
    store = await backend.open()
    job = await claimed_one(store)
    await store.say([Progress(job.id, 1, "1")])
    await store.finish([ended(job)])
    for table in ("payloads", "attempts", "events"):
        backend.server.ask(f"UPDATE {backend.schema}.{table} SET xact = '99999999999'")
    mark = (await store.news(None)).mark
    assert (await store.news(mark)).events != []
    await backend.open()
    assert (await store.news(mark)).events == []


async def test_of_a_batch_that_another_process_adds_at_the_same_time_one_is_added(
    backend: PostgresBackend,
) -> None:
    store, other = await backend.open(), await backend.open()
    batch = [new_job(idempotency_key=f"k {number}") for number in range(3)]
    rerun = [batch[0], *(new_job(idempotency_key=f"k {number}") for number in range(1, 3))]
    with psycopg.connect(backend.server.url) as holding:
        holding.execute(f"LOCK TABLE {backend.schema}.payloads IN EXCLUSIVE MODE")
        adding = [
            asyncio.create_task(add_all(each, jobs))
            for each, jobs in ((store, batch), (other, rerun))
        ]
        await asyncio.sleep(
            0.3
        )  # the first of one is in its table now, and the other waits for that
    kept = [await each for each in adding]
    assert sorted(map(len, kept)) == [0, 3]
    assert len((await store.find(JobQuery())).jobs) == 3


async def add_all(one: PostgresStore, jobs: list[Job]) -> list[JobId]:
    """What of them was kept already."""
    return list(await one.add(jobs))


# the schema


async def test_a_newer_schema_is_refused_untouched(backend: PostgresBackend) -> None:
    await backend.die(await backend.open())
    backend.server.ask(f"INSERT INTO {backend.schema}.migrations VALUES (99, 'later', '', 0)")
    with pytest.raises(DatabaseUnusable, match="schema version 99 and this release knows"):
        await backend.open()


async def test_another_version_of_a_migration_is_refused(backend: PostgresBackend) -> None:
    await backend.die(await backend.open())
    backend.server.ask(f"UPDATE {backend.schema}.migrations SET sha256 = 'x' WHERE number = 2")
    with pytest.raises(DatabaseUnusable, match="another version of migration 0002_attempts"):
        await backend.open()


async def test_processes_that_start_together_migrate_once() -> None:
    schema = f"test_{uuid4().hex}"
    servers = [Server(postgres.shared().url, busy_timeout=5.0, schema=schema) for _ in range(4)]
    done = await asyncio.gather(*(asyncio.to_thread(migrate.migrate, each) for each in servers))
    *nothing, everything = sorted(done)
    assert nothing == [[], [], []]
    assert everything == [*range(1, everything[-1] + 1)]


async def test_a_commit_is_on_disk_whatever_the_servers_default_is(
    backend: PostgresBackend,
) -> None:
    with_options = f"{backend.server.url}&options=-csynchronous_commit%3Doff"
    server = Server(with_options, busy_timeout=1.0)
    with server.connect() as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
