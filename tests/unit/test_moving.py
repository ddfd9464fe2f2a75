"""A move from a file to a server: what it copies, where it may be interrupted, and what it refuses."""

import asyncio
import re
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner

from jobs.errors import (
    ConfigurationError,
    DatabaseMoved,
    DatabaseUnusable,
    StoreBusy,
)
from jobs.events import START
from jobs.keys import Scope, new_key
from jobs.model import JobQuery, JobState, now_ms
from jobs.protocols import Progress, Store, Wrote
from jobs.settings import Settings
from jobs.stores.checkup import examine
from jobs.stores.migrate import migrate
from jobs.stores.moved import Stage
from jobs.stores.moving import course, source
from jobs.stores.moving.proof import Differs
from jobs.stores.moving.source import Source
from jobs.stores.moving.tables import EVERY, LEFT_BEHIND, Portion
from jobs.stores.postgres import PostgresStore, destination
from jobs.stores.postgres.checkup import _moves
from jobs.stores.postgres.destination import Destination
from jobs.stores.sqlite import SQLiteStore
from service import cli
from tests import postgres
from tests.store_play import claimed_one, ended, failure, ids, invocations, new_job, new_jobs

SOON = 3_600_000  #: ms


class Way:
    """A file, and a schema of the server that its jobs are to go to."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "jobs.db"
        self.schema = f"test_{uuid4().hex}"
        self.url = postgres.shared().url
        self.said: list[str] = []

    def file(self) -> SQLiteStore:
        return SQLiteStore(self.path, busy_timeout=5.0)

    def server(self) -> PostgresStore:
        return PostgresStore(self.url, busy_timeout=5.0, schema=self.schema)

    @contextmanager
    def both(self) -> Iterator[tuple[Source, Destination]]:
        with (
            source.opened(self.path, busy_timeout=5.0) as ours,
            destination.opened(
                self.url, ours.columns, busy_timeout=5.0, schema=self.schema
            ) as theirs,
        ):
            yield ours, theirs

    def move(self, wait: float = 5.0) -> course.Moved | None:
        with self.both() as (ours, theirs):
            return course.move(ours, theirs, wait=wait, tell=self.said.append)

    def abort(self) -> None:
        with self.both() as (ours, theirs):
            course.abort(ours, theirs)

    def stage(self) -> Stage | None:
        with source.opened(self.path, busy_timeout=5.0) as ours:
            found = ours.mark()
            return found and found.stage

    def ask(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return postgres.shared().ask(statement.format(schema=self.schema), *values)


@pytest.fixture
def way(tmp_path: Path) -> Way:
    return Way(tmp_path)


async def filled(store: Store) -> None:
    """Jobs in every state, with all that may belong to them; and keys."""
    now = now_ms()
    scheduled = new_job(run_at=now + SOON, priority=3, queue="later", timeout=1.1)
    expiring = new_job(expires_at=now + SOON, owner="ann", idempotency_key="k", fingerprint="f")
    await store.add([*new_jobs(3), scheduled, expiring, new_job(args='{"n": "ü"}', context=b"\0s")])
    first, second, third, fourth = (await store.claim(4)).jobs
    await store.say([Progress(first.id, 1, '{"done":1}'), Wrote(first.id, 1, "begun\n")])
    again = ended(second, JobState.PENDING, run_at=now + SOON, error=failure())
    failed = ended(third, JobState.FAILURE, log="\udc80 no\n", pid=7, signal=9)
    await store.finish([ended(first, log="begun\nover\n"), again, failed])
    await store.release([ended(fourth, JobState.PENDING, error=None, result=None, log="stopped")])
    (revoked, retried) = jobs = new_jobs(2, context=b"sealed", origin='{"method":"GET"}')
    await store.add(jobs)
    for job in jobs:
        await store.cancel(job.id)
    await store.retry([retried.id])
    assert (await store.get(revoked.id)).state is JobState.REVOKED
    for name in ("b", "a"):
        key, _ = new_key(name, owner="ann", scopes=frozenset(Scope), lasts=None)
        await store.add_key(key)
    await store.revoke_key(key.id)


async def told(store: Store) -> list[Any]:
    """All that a store says of what it keeps."""
    page = await store.find(JobQuery(limit=1000))
    found: list[Any] = [await store.keys(), page]
    for job in page.jobs:
        found += [await store.get(job.id), await store.attempts(job.id)]
        found += [await store.log(job.id), await store.events(job.id, START)]
    return found


async def waiting(store: Store) -> list[Any]:
    """The jobs that are ready, as they are taken, with their contexts; and given back."""
    jobs = (await store.claim(1000)).jobs
    found = [(job.id, job.seq, job.args, job.context, job.attempt) for job in jobs]
    await store.release(invocations(*jobs))
    return found


async def test_the_server_tells_of_all_what_the_file_told_and_gives_it_out_in_the_same_order(
    way: Way,
) -> None:
    async with way.file() as store:
        await filled(store)
        queue = await waiting(store)
        before = await told(store)
    moved = way.move()
    assert moved is not None
    states = {kind: count.rows for kind, count in moved.counts["jobs"].items()}
    assert states == {"PENDING": 5, "SUCCESS": 1, "FAILURE": 1, "REVOKED": 1}
    async with way.server() as store:
        assert await told(store) == before
        assert await waiting(store) == queue


async def test_no_number_that_the_file_gave_is_given_again(way: Way) -> None:
    async with way.file() as store:
        job = await claimed_one(store, new_job())
        await store.finish([ended(job)])
        await store.add([new_job()])
        assert await store.prune(now_ms() + 1000) == 1
        last = new_job()
        await store.add([last])
        await store.cancel(last.id)
        seq = (await store.get(last.id)).seq
        assert await store.prune(now_ms() + 1000) == 1
    way.move()
    async with way.server() as store:
        new = new_job()
        await store.add([new])
        assert (await store.get(new.id)).seq == seq + 1


@asynccontextmanager
async def amid(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, act: Callable[[], Any]
) -> AsyncIterator[None]:
    """Do something when a step of a move, which is to run in another thread, has been taken the first time."""
    loop, inner, met = asyncio.get_running_loop(), getattr(owner, name), False

    def outer(*args: Any, **kwargs: Any) -> Any:
        nonlocal met
        result = inner(*args, **kwargs)
        if not met:
            met = True
            asyncio.run_coroutine_threadsafe(act(), loop).result(10)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, outer)
        yield
    assert met


async def test_what_changes_while_the_bulk_is_copied_is_copied_as_it_is_then(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.stores.moving.tables.MOST_ROWS", 3)
    async with way.file() as store:
        await filled(store)
        gone, later = new_job(), new_job(run_at=1)
        await store.add([gone])
        await store.cancel(gone.id)

        async def change() -> None:
            for job in (await store.claim(2)).jobs:
                await store.finish([ended(job, log="late")])
            for job in (await store.find(JobQuery(state=JobState.FAILURE))).jobs:
                await store.retry([job.id])
            assert await store.prune(now_ms() + 1000, 1)
            await store.add([later])

        async with amid(monkeypatch, Destination, "append", change):
            await asyncio.to_thread(way.move)
        before = await told(store)
    async with way.server() as store:
        assert await told(store) == before
        assert later.id in ids((await store.find(JobQuery())).jobs)


async def test_a_key_made_at_the_last_moment_moves_along(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, _ = new_key("late", owner="ann", scopes=frozenset(Scope), lasts=None)
    async with way.file() as store, amid(monkeypatch, Source, "hold", lambda: store.add_key(key)):
        await asyncio.to_thread(way.move)
    async with way.server() as store:
        assert await store.keys() == [key]


# --- what a stage forbids


async def test_while_jobs_are_held_they_are_taken_and_end_but_none_begins(way: Way) -> None:
    async with way.file() as store:
        running = await claimed_one(store)
        with way.both() as (ours, theirs):
            ours.begin(theirs.location)
            ours.hold(theirs.location)
            assert not ours.close(theirs.location)
            await store.add([new_job()])
            with pytest.raises(DatabaseMoved, match=r"no job of .*jobs\.db begins now"):
                await store.claim(1)
            await store.check()
            assert await store.finish([ended(running)]) == {running.id}
            ours.let_go()
        assert len((await store.claim(1)).jobs) == 1


async def test_a_moved_file_takes_nothing_and_tells_where_the_jobs_are(way: Way) -> None:
    async with way.file() as store:
        job = new_job(expires_at=now_ms() + SOON)
        await store.add([job])
        way.move()
        key, _ = new_key("late", owner="ann", scopes=frozenset(Scope), lasts=None)
        refused: list[Callable[[], Any]] = [
            lambda: store.add([new_job()]),
            lambda: store.claim(1),
            lambda: store.claim_these([(job.id, 1)]),
            lambda: store.publish(1, now_ms() + SOON),
            lambda: store.cancel(job.id),
            lambda: store.cancel_many([job.id]),
            lambda: store.add_key(key),
            store.check,
        ]
        for call in refused:
            with pytest.raises(
                DatabaseMoved, match=r"have moved to the PostgreSQL .*JOBS_DATABASE"
            ):
                await call()
        assert (await store.get(job.id)).state is JobState.PENDING
    with pytest.raises(DatabaseMoved, match="have moved to") as refusal:
        await way.file().__aenter__()
    assert "hush" not in str(refusal.value)
    with pytest.raises(DatabaseMoved):
        migrate(way.path)


async def test_the_jobs_of_a_dead_service_are_put_back_first(way: Way) -> None:
    async with way.file() as store:
        job = await claimed_one(store)
    way.move()
    async with way.server() as store:
        assert (await store.get(job.id)).state is JobState.RETRY
        assert [each.outcome for each in await store.attempts(job.id)] == ["lost"]


async def test_a_job_that_does_not_end_in_time_is_named_and_all_goes_on_as_before(way: Way) -> None:
    async with way.file() as store:
        job = await claimed_one(store)
        with pytest.raises(
            StoreBusy, match=rf"still run: {job.id} \(text\.stats\)\. Nothing has moved"
        ):
            await asyncio.to_thread(way.move, 0.0)
        await store.add([new_job()])
        assert len((await store.claim(1)).jobs) == 1
        await store.finish([ended(job)])
    assert way.move() is not None


async def test_a_running_job_is_waited_for(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    async with way.file() as store:
        job = await claimed_one(store)

        async def end() -> None:
            child = new_job()  # of the running job
            await store.add([child])
            await store.finish([ended(job)])

        async with amid(monkeypatch, Source, "running", end):
            await asyncio.to_thread(way.move)
    async with way.server() as store:
        states = [each.state for each in (await store.find(JobQuery())).jobs]
        assert states == [JobState.PENDING, JobState.SUCCESS]


# --- interrupted


class Killed(BaseException):
    """What stands for the death of the process: nothing is put right afterwards."""


STEPS = [
    f"{when}:{step}"
    for step in (
        "Source.begin", "Destination.begin", "Destination.set_positions", "Destination.append", "Destination.replace",
        "Source.forget_notes", "Source.hold", "Source.close", "Destination.replace_api_keys", "Destination.set_given",
        "Destination.finish", "Source.leave",
    )
    for when in ("before", "after")
]  # fmt: skip
"""Every step that writes."""


def dies_at(point: str, patch: pytest.MonkeyPatch) -> None:
    """From this point on no step is taken."""
    when, _, dying = point.partition(":")
    dead = False
    owners: dict[str, Any] = {"Source": Source, "Destination": Destination}
    also = {"Source.let_go", "Source.undo", "Destination.clear"}
    for step in also.union(each.partition(":")[2] for each in STEPS):
        side, _, name = step.partition(".")
        inner = getattr(owners[side], name)

        def outer(*args: Any, _inner: Any = inner, _step: str = step, **kwargs: Any) -> Any:
            nonlocal dead
            dead = dead or (_step == dying and when == "before")
            if dead:
                raise Killed
            result = _inner(*args, **kwargs)
            dead = _step == dying
            if dead:
                raise Killed
            return result

        patch.setattr(owners[side], name, outer)


def killed(way: Way, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    """Move, and die there."""
    with monkeypatch.context() as patch:
        dies_at(point, patch)
        with pytest.raises(Killed):
            way.move()


async def used(way: Way) -> tuple[int, list[Any] | None]:
    """Use the file as services would, if it lets: add a job, and claim what can be (it is given back). How many
    that was, and what the file tells then; None if it refuses."""
    try:
        async with way.file() as store:
            await store.add([new_job()])
            try:
                claimable = len(await waiting(store))
            except DatabaseMoved:
                claimable = 0
            return claimable, await told(store)
    except DatabaseMoved:
        return 0, None


async def claimable_there(way: Way) -> int:
    """The same of the server, which may refuse for one reason only."""
    try:
        async with way.server() as store:
            return len(await waiting(store))
    except DatabaseMoved as error:
        assert "not all are there" in str(error)  # noqa: PT017
        return 0


async def test_killed_at_any_point_and_started_again_it_ends_right_and_no_job_is_in_two_places(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.stores.moving.tables.MOST_ROWS", 4)
    async with way.file() as store:
        await filled(store)
    accepted: list[Any] = []
    places: list[tuple[bool, bool]] = []
    for point in STEPS:
        killed(way, monkeypatch, point)
        here, tells = await used(way)
        accepted = tells or accepted
        there = await claimable_there(way) if places else 0
        assert not (here and there), point
        places.append((here > 0, there > 0))
    assert places[0] == (True, False)
    assert places[-1] == (False, True)
    assert way.move() is None
    async with way.server() as store:
        assert await told(store) == accepted
    assert way.stage() is Stage.MOVED


@pytest.mark.parametrize(
    "point", ["after:Destination.append", "after:Source.hold", "after:Source.close"]
)
async def test_a_move_that_is_not_over_is_undone(
    way: Way, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    async with way.file() as store:
        await filled(store)
        queue, before = await waiting(store), await told(store)
    killed(way, monkeypatch, point)
    way.abort()
    async with way.file() as store:
        assert await told(store) == before
        assert await waiting(store) == queue
    with closing(sqlite3.connect(way.path)) as connection:
        left = connection.execute("SELECT name FROM sqlite_schema WHERE name LIKE 'move%'")
        assert left.fetchall() == []
    async with way.server() as store:
        assert (await store.find(JobQuery())).jobs == []
    with pytest.raises(ConfigurationError, match=r"no move from .* was begun"):
        way.abort()


async def test_a_move_that_is_over_is_not_undone_and_not_done_again(way: Way) -> None:
    async with way.file() as store:
        await store.add([new_job()])
    way.move()
    async with way.server() as store:
        await store.finish([ended(job) for job in (await store.claim(1)).jobs])
    with pytest.raises(ConfigurationError, match="may have run there: that cannot be undone"):
        way.abort()
    assert way.move() is None
    async with way.server() as store:
        assert (await store.find(JobQuery())).jobs[0].state is JobState.SUCCESS
    way.schema = f"test_{uuid4().hex}"
    with pytest.raises(ConfigurationError, match=r"have moved to .* already"):
        way.move()


# --- compared


ALTERED = {
    "a value": "UPDATE {schema}.payloads SET args = args || ' ' WHERE seq = 2",
    "a row less": "DELETE FROM {schema}.attempts WHERE id = 2",
    "a state": "UPDATE {schema}.jobs SET state = 'SUCCESS' WHERE state = 'FAILURE'",
    "a key": "UPDATE {schema}.api_keys SET owner = 'eve' WHERE name = 'a'",
}


@pytest.mark.parametrize("altered", ALTERED)
async def test_a_copy_that_is_not_the_same_is_told_deleted_and_services_go_on(
    way: Way, monkeypatch: pytest.MonkeyPatch, altered: str
) -> None:
    async with way.file() as store:
        await filled(store)

        async def alter() -> None:
            way.ask(ALTERED[altered])

        async with amid(monkeypatch, Destination, "set_given", alter):
            with pytest.raises(
                Differs, match=r"not the same on both sides: .*sha256 .* has the key \w+"
            ):
                await asyncio.to_thread(way.move)
        assert len((await store.claim(1)).jobs) == 1
    assert way.ask("SELECT count(*) FROM {schema}.jobs") == [(0,)]
    assert way.move() is not None


# --- refused


async def test_a_destination_that_has_jobs_is_left_alone(way: Way) -> None:
    migrate(way.path)
    async with way.server() as store:
        await store.add([new_job()])
        with pytest.raises(ConfigurationError, match="has jobs or API keys already"):
            way.move()
        await store.add([new_job()])
    assert way.stage() is None


async def test_a_destination_that_a_service_uses_is_refused(way: Way) -> None:
    migrate(way.path)
    async with way.server() as store:
        with pytest.raises(ConfigurationError, match="a service uses the PostgreSQL database"):
            way.move()
        await store.add([new_job()])


async def test_only_one_move_goes_to_a_place(way: Way, tmp_path: Path) -> None:
    other = Way(tmp_path / "other")
    other.path.parent.mkdir()
    other.schema = way.schema
    for each in (way, other):
        migrate(each.path)
    with way.both() as (ours, theirs):
        with pytest.raises(StoreBusy, match=r"another `quart-jobs move` to .* is under way"):
            other.move()
        theirs.begin(ours.begin(theirs.location).token, str(ours.path))
    with pytest.raises(ConfigurationError, match=rf"a move from {way.path} to .* was begun"):
        other.move()
    assert other.stage() is None
    assert way.move() is not None


async def test_a_service_is_refused_by_a_place_where_not_all_has_arrived(way: Way) -> None:
    migrate(way.path)
    with way.both() as (ours, theirs):
        theirs.begin(ours.begin(theirs.location).token, str(ours.path))
    with pytest.raises(
        DatabaseMoved, match=rf"jobs of {way.path} are being moved .* not all are there"
    ):
        await way.server().__aenter__()
    with destination.opened(way.url, lambda _: (), busy_timeout=5.0, schema=way.schema) as theirs:
        (finding,) = _moves(theirs._connection)
    assert str(way.path) in finding.said


def test_a_begun_move_goes_nowhere_else(way: Way) -> None:
    migrate(way.path)
    with way.both() as (ours, theirs):
        theirs.begin(ours.begin(theirs.location).token, str(ours.path))
        theirs.location = "another database"
        standing = theirs.find
        theirs.find = lambda _: None  # type: ignore[method-assign, assignment]
        with pytest.raises(ConfigurationError, match="was begun: give its address"):
            course.move(ours, theirs, wait=1.0, tell=print)
        with pytest.raises(ConfigurationError, match="was begun: give its address"):
            course.abort(ours, theirs)
        assert standing(ours.mark().token)  # type: ignore[union-attr]


def test_what_is_no_database_or_an_earlier_one_is_not_moved(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="there is no database at"):
        way.move()
    assert not way.path.exists()
    migrate(way.path)
    with closing(sqlite3.connect(way.path)) as connection:
        connection.execute("PRAGMA user_version = 3")
    with pytest.raises(DatabaseUnusable, match=r"has schema version 3 .* migrate it first"):
        way.move()
    with closing(sqlite3.connect(way.path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(DatabaseUnusable, match=r"schema version 99 .* upgrade"):
        way.move()


async def test_a_server_of_an_earlier_release_is_left_as_it_is(way: Way) -> None:
    migrate(way.path)
    async with way.server():
        pass
    way.ask("DELETE FROM {schema}.migrations WHERE number > 3")
    with pytest.raises(DatabaseUnusable, match="has the schema of an earlier release"):
        way.move()
    assert way.ask("SELECT max(number) FROM {schema}.migrations") == [(3,)]


def test_a_user_without_rights_is_told_what_is_missing(way: Way) -> None:
    migrate(way.path)
    name = f"u{uuid4().hex}"
    way.ask(f"CREATE ROLE {name} LOGIN")
    way.url = way.url.replace("jobs:hush@", f"{name}@")
    with pytest.raises(DatabaseUnusable, match="may not make the schema"):
        way.move()
    way.ask(f"CREATE SCHEMA {way.schema} AUTHORIZATION {name}")
    assert way.move() is not None


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("jobs.db postgresql://jobs:hush@127.0.0.1:1/x", 1, "cannot be reached"),
        ("jobs.db {url} --abort", 2, "no move from .*jobs.db was begun: nothing to undo"),
        ("none.db {url}", 2, "there is no database at .*none.db"),
        ("jobs.db other.db", 2, "no PostgreSQL address .* quart-jobs backup"),
        ("{url} jobs.db", 2, "jobs move from a SQLite file to PostgreSQL, and not back"),
        ("jobs.db {nowhere}", 2, 'database "nowhere" does not exist'),
    ],
)
def test_what_cannot_be_moved_is_said_in_one_line(
    way: Way, monkeypatch: pytest.MonkeyPatch, words: str, code: int, said: str
) -> None:
    monkeypatch.chdir(way.path.parent)
    monkeypatch.setattr(sys, "path", list(sys.path))
    migrate(way.path)
    nowhere = way.url.replace("/postgres?", "/nowhere?")
    arguments = [word.format(url=way.url, nowhere=nowhere) for word in words.split()]
    result = CliRunner().invoke(cli.main, ["move", *arguments])
    assert (result.exit_code, result.output.count("\n")) == (code, 1), result.output
    assert re.match(f"quart-jobs: .*{said}", result.output)
    assert "hush" not in result.output


def test_a_copy_that_is_not_the_same_ends_the_command_with_code_one(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    postgres.shared().clear()
    asyncio.run(add_one(way))
    words = ["move", str(way.path), way.url]

    def analyze(_: Destination) -> None:
        postgres.shared().ask("UPDATE quart_jobs.jobs SET priority = 9")

    with monkeypatch.context() as patch:
        patch.setattr(Destination, "analyze", analyze)
        red = CliRunner().invoke(cli.main, words)
    assert red.exit_code == 1
    assert "jobs PENDING is not the same on both sides: 1 rows, sha256 " in red.output
    green = CliRunner().invoke(cli.main, words)
    assert (green.exit_code, "all rows are the same on both sides" in green.output) == (0, True)
    postgres.shared().ask("DROP SCHEMA quart_jobs CASCADE")


async def add_one(way: Way) -> None:
    async with way.file() as store:
        await store.add([new_job()])


async def test_doctor_tells_of_a_move(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    await add_one(way)
    told = []
    for point in ("after:Destination.begin", "after:Source.hold", "after:Source.close"):
        killed(way, monkeypatch, point)
        told.append(found(way))
    way.move()
    told.append(found(way))
    levels = ["warning", "problem", "problem", "problem"]
    assert [level for level, _ in told] == levels
    words = ["was begun", "no job of", "are being moved to", "have moved to"]
    assert [word in said for word, (_, said) in zip(words, told, strict=True)] == [True] * 4


def found(way: Way) -> tuple[str, str]:
    settings = Settings(database=str(way.path))
    ((level, said),) = [(str(f.level), f.said) for f in examine(settings) if f.subject == "move"]
    return level, said


# --- the tables


def test_every_table_moves_or_is_left_behind_for_a_reason(way: Way) -> None:
    """Who adds a table says here what becomes of it; a column moves by itself, if both have it."""
    migrate(way.path)
    with way.both() as (ours, theirs):
        mark = ours.begin(theirs.location)
        theirs.begin(mark.token, "x")
    with closing(sqlite3.connect(way.path)) as connection:
        here = connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        ).fetchall()
    there = way.ask("SELECT tablename::text FROM pg_tables WHERE schemaname = '{schema}'")
    known = {table.name for table in EVERY} | LEFT_BEHIND.keys()
    assert {name for (name,) in here + there} == known


def test_a_portion_ends_with_enough_rows_or_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.stores.moving.tables.MOST_BYTES", 10)
    rows = iter([(1, "a"), (2, "b" * 9), (3, "c")])
    first, second = Portion(rows), Portion(rows)
    assert [row[0] for row in first] == [1, 2]
    assert (first.last, first.is_all) == (2, False)
    assert [row[0] for row in second] == [3]
    assert second.is_all


def test_every_statement_is_used() -> None:
    for module in (source, destination):
        text = Path(module.__file__).read_text()
        used = set(re.findall(r'SQL\["(\w+)"\]|_(?:said|compose|composed)\(\s*"(\w+)"', text))
        assert {name for pair in used for name in pair if name} == set(module.SQL)
