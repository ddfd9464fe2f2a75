"""Which attempts a job gets, when, and what is kept of each."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs import JobFailed, JobNotFound, JobRevoked, Jobs, JobState, Reject, Retry
from jobs.model import AttemptEnd
from tests.apps import fault_tasks as tasks
from tests.apps.context_app import app, comes_back
from tests.apps.context_app import jobs as app_jobs
from tests.process.test_dispatcher import seen


@pytest.fixture
async def jobs(tmp_path: Path) -> AsyncIterator[Jobs]:
    async with Jobs(database=str(tmp_path / "jobs.db"), lanes=1, grace=5) as jobs:
        yield jobs


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes"
    path.touch()
    return path


async def test_a_job_gets_one_more_attempt_though_its_policy_has_none(
    jobs: Jobs, notes: Path
) -> None:
    handle = await tasks.asks_again_before.delay(str(notes), 3)
    assert await handle.result(timeout=30) == 3
    assert [(each.number, each.outcome) for each in await handle.attempts()] == [
        (1, AttemptEnd.EXCEPTION),
        (2, AttemptEnd.EXCEPTION),
        (3, AttemptEnd.SUCCESS),
    ]


async def test_a_job_that_waits_for_its_next_attempt_is_shown_with_its_last_error(
    jobs: Jobs, notes: Path
) -> None:
    handle = await tasks.asks_again_before.delay(str(notes), 2, 3600)
    await seen(notes, "began")
    while (await handle.refresh()).state is not JobState.RETRY:
        pass
    due = handle.job.run_at or 0
    soon = datetime.now(UTC) + timedelta(hours=1)
    assert abs(due / 1000 - soon.timestamp()) < 60
    assert handle.job.error is not None
    assert (handle.job.error.type, handle.job.error.message) == ("Retry", "not attempt 2")
    (attempt,) = await handle.attempts()
    assert attempt.error == handle.job.error
    assert attempt.worker == jobs.store.claimant
    assert attempt.started_at is not None
    assert attempt.started_at <= attempt.finished_at
    await handle.cancel()
    with pytest.raises(JobRevoked):
        await handle.result(timeout=10)


async def test_no_job_is_attempted_more_than_a_hundred_times(tmp_path: Path, notes: Path) -> None:
    async with Jobs(database=str(tmp_path / "jobs.db"), lanes=1, engine="inline"):
        handle = await tasks.asks_again_before.delay(str(notes), 1000)
        with pytest.raises(JobFailed, match=r"attempt 100 of 100; not run again"):
            await handle.result(timeout=40)
        assert len(await seen(notes, "began")) == len(await handle.attempts()) == 100


async def test_a_job_that_gives_up_fails_at_once(jobs: Jobs, notes: Path) -> None:
    handle = await tasks.gives_up.delay(str(notes))
    with pytest.raises(JobFailed, match="wrong harbour") as caught:
        await handle.result(timeout=30)
    assert caught.value.error.type == "Reject"
    assert len(await handle.attempts()) == 1


@pytest.mark.parametrize(
    ("kind", "attempts"), [("OSError", 3), ("PermissionError", 1), ("ValueError", 1)]
)
async def test_only_the_exceptions_of_the_policy_are_tried_again(
    jobs: Jobs, notes: Path, kind: str, attempts: int
) -> None:
    handle = await tasks.is_refused.delay(str(notes), kind)
    with pytest.raises(JobFailed):
        await handle.result(timeout=30)
    assert [each.error and each.error.type for each in await handle.attempts()] == [kind] * attempts


@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize(("task", "attempts"), [(tasks.is_slow, 2), (tasks.is_slow_once, 1)])
async def test_a_timeout_is_tried_again_unless_the_policy_excludes_it(
    tmp_path: Path, task: object, attempts: int, stubborn: bool
) -> None:
    stop_grace = 0.1 if stubborn else 20
    async with Jobs(database=str(tmp_path / "jobs.db"), lanes=1, stop_grace=stop_grace, nice=0):
        handle = await task.delay(stubborn)  # type: ignore[attr-defined]
        with pytest.raises(JobFailed):
            await handle.result(timeout=30)
        records = await handle.attempts()
    assert [each.outcome for each in records] == [AttemptEnd.TIMEOUT] * attempts
    assert all(each.error and ("killed" in each.error.message) is stubborn for each in records)


async def test_each_crash_is_an_attempt(jobs: Jobs, notes: Path) -> None:
    handle = await tasks.kills_its_process.delay(str(notes))
    with pytest.raises(JobFailed):
        await handle.result(timeout=30)
    records = await handle.attempts()
    assert [each.outcome for each in records] == [AttemptEnd.CRASH] * 3
    assert [each.number for each in records] == [1, 2, 3]


async def test_a_cancelled_attempt_and_one_with_a_bad_result_are_kept_as_such(
    jobs: Jobs, notes: Path
) -> None:
    handle = await tasks.sleeps.delay(str(notes), 50)
    await seen(notes, "began")
    await handle.cancel()
    with pytest.raises(JobRevoked):
        await handle.result(timeout=30)
    assert [each.outcome for each in await handle.attempts()] == [AttemptEnd.CANCELLED]
    bad = await tasks.returns_what_is_no_json.delay()
    with pytest.raises(JobFailed):
        await bad.result(timeout=30)
    assert [each.outcome for each in await bad.attempts()] == [AttemptEnd.BAD_RESULT]


async def test_an_attempt_that_a_shutdown_stopped_is_kept_and_not_spent(
    tmp_path: Path, notes: Path
) -> None:
    options = {"database": str(tmp_path / "jobs.db"), "stop_grace": 0.2, "grace": 0.1}
    async with Jobs(lanes=1, **options) as first:
        running = await tasks.sleeps.delay(str(notes), 50)
        waiting = await tasks.instant.delay(1)
        await seen(notes, "began")
    async with Jobs(lanes=0, **options) as jobs:
        handle = await jobs.get(running.id)
        assert (handle.state, handle.job.attempt) == (JobState.PENDING, 0)
        (attempt,) = await handle.attempts()
        assert (attempt.number, attempt.outcome) == (1, AttemptEnd.SHUTDOWN)
        assert (attempt.worker, attempt.error) == (first.store.claimant, None)
        assert await (await jobs.get(waiting.id)).attempts() == []


async def test_a_job_looks_at_the_attempts_of_another(jobs: Jobs, notes: Path) -> None:
    other = await tasks.fails_before.delay(str(notes), 2)
    with pytest.raises(JobFailed):
        await other.result(timeout=30)
    asking = await tasks.counts_attempts_of.delay(other.id)
    (told,) = await asking.result(timeout=30)
    assert told.startswith("1 exception JobError(")
    unknown = await tasks.counts_attempts_of.delay("nonsense")
    with pytest.raises(JobFailed, match="JobNotFound"):
        await unknown.result(timeout=30)


async def test_the_attempts_of_an_unknown_job_are_not_found(jobs: Jobs) -> None:
    handle = await tasks.instant.delay(1)
    handle.job = handle.job._replace(id="nonsense")  # type: ignore[arg-type]
    with pytest.raises(JobNotFound):
        await handle.attempts()


async def test_apply_makes_one_attempt_whatever_the_job_asks_for(jobs: Jobs, notes: Path) -> None:
    again = await tasks.asks_again_before.apply((str(notes), 3))
    assert again.state is JobState.FAILURE
    with pytest.raises(JobFailed, match="not attempt 3"):
        await again.result()
    with pytest.raises(JobFailed, match="wrong harbour"):
        await (await tasks.gives_up.apply((str(notes),))).result()
    assert len(await seen(notes, "began")) == 2


def test_in_a_plain_call_they_are_exceptions_like_any_other() -> None:
    with pytest.raises(Reject, match="no"):
        tasks.rejects_plainly("no")
    with pytest.raises(Retry, match="run once more"):
        tasks.rejects_plainly("")


async def test_a_second_attempt_sees_the_same_request_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "jobs.db"
    monkeypatch.setenv("JOBS_DATABASE", str(database))
    monkeypatch.setenv("JOBS_LANES", "1")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with app.test_app() as running:
        answer = await running.test_client().post(
            "/run/comes_back?q=1", json=[], headers={"X-Tenant": "t1", "traceparent": trace}
        )
        handle = await app_jobs.get((await answer.get_json())["id"])
        while (await handle.refresh()).state is not JobState.RETRY:
            pass
        (first,) = await handle.attempts()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE jobs SET run_at = 1")  # the hour has passed
        connection.commit()
    async with app.test_app():
        handle = await app_jobs.get(handle.id)
        told = await handle.result(timeout=30)
        assert handle.job.origin is not None
        assert trace[3:35] in handle.job.origin
        second = (await handle.attempts())[1]
    assert (first.outcome, second.outcome) == (AttemptEnd.EXCEPTION, AttemptEnd.SUCCESS)
    assert first.worker != second.worker
    assert first.error is not None
    assert told == [2, *first.error.message.split("|")]
    assert told == [2, "POST", "http://localhost/run/comes_back?q=1", "t1", "Ann Å", trace]
    assert comes_back.name == handle.task
