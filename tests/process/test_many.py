"""Many jobs at once, and jobs that run again, from Python: in the app's process and inside a job."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import quart.testing

from jobs import InvalidArguments, JobFailed, JobNotFound, Jobs, JobState, NotRunning
from jobs.model import AttemptEnd, JobQuery
from tests.apps import flask_app, many_tasks
from tests.apps.context_app import app, child
from tests.apps.context_app import jobs as app_jobs
from tests.apps.many_tasks import doubled, fails_until

PATIENCE = 30.0
WITHOUT_REQUEST = "request context|There is no request in this context"  # Quart 0.22, 0.23


@pytest.fixture(params=["lanes", "inline"])
async def jobs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Jobs]:
    many_tasks.jobs._arguments = {
        "database": str(tmp_path / "jobs.db"),
        "engine": request.param,
        "lanes": 1,
        "grace": 1,
        "max_queued": 50,
    }
    async with many_tasks.jobs:
        yield many_tasks.jobs


async def all_jobs(jobs: Jobs) -> list[Any]:
    return list((await jobs.store.find(JobQuery())).jobs)


async def test_many_calls_are_submitted_in_their_order_with_typed_results(jobs: Jobs) -> None:
    handles = await jobs.enqueue_many(
        [(doubled, (1,), {}), (doubled, (), {"number": 2}), (doubled, [3], {})]
    )
    assert [await handle.result(PATIENCE) for handle in handles] == [2, 4, 6]
    assert [job.id for job in await all_jobs(jobs)] == [handle.id for handle in reversed(handles)]
    assert await jobs.enqueue_many([]) == []


async def test_one_call_that_does_not_fit_keeps_all_from_being_submitted(jobs: Jobs) -> None:
    with pytest.raises(InvalidArguments):
        await jobs.enqueue_many([(doubled, (1,), {}), (doubled, ("one",), {})])
    with pytest.raises(InvalidArguments, match="max_args_bytes"):
        await jobs.enqueue_many([(doubled, (1,), {}), (fails_until, ("x" * 300_000,), {})])
    assert await all_jobs(jobs) == []


async def test_a_job_submits_many(jobs: Jobs) -> None:
    ids = await (await many_tasks.submits_many.delay(3)).result(PATIENCE)
    assert [await (await jobs.get(job_id)).result(PATIENCE) for job_id in ids] == [0, 2, 4]


async def test_a_job_that_submits_more_than_may_wait_is_told(jobs: Jobs) -> None:
    with pytest.raises(JobFailed, match="at most 50") as caught:
        await (await many_tasks.submits_many.delay(60)).result(PATIENCE)
    assert caught.value.error.type == "QueueFull"


async def test_a_retried_job_has_its_whole_budget_again(jobs: Jobs, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    handle = await fails_until.delay(str(gate))
    for attempts in (2, 4):
        with pytest.raises(JobFailed, match="not yet"):
            await handle.result(PATIENCE)
        assert [each.number for each in await handle.attempts()] == list(range(1, attempts + 1))
        if attempts == 4:
            gate.touch()
        assert await handle.retry()
        assert not handle.state.ended or attempts == 2
    assert await handle.result(PATIENCE) == 5
    assert [each.outcome for each in await handle.attempts()] == [
        *[AttemptEnd.EXCEPTION] * 4,
        AttemptEnd.SUCCESS,
    ]
    assert not await handle.retry()
    assert handle.state is JobState.SUCCESS


async def test_a_rerun_is_a_job_of_its_own(jobs: Jobs) -> None:
    handle = await doubled.apply_async((4,), priority=2)
    again = await handle.rerun()
    assert again.id != handle.id
    assert [await each.result(PATIENCE) for each in (handle, again)] == [8, 8]
    assert (again.job.priority, json.loads(again.job.origin or "")) == (2, {"rerun_of": handle.id})


async def test_a_job_retries_and_reruns_another(jobs: Jobs, tmp_path: Path) -> None:
    handle = await fails_until.delay(str(tmp_path / "gate"))
    with pytest.raises(JobFailed):
        await handle.result(PATIENCE)
    (tmp_path / "gate").touch()
    told = await (await many_tasks.retries_and_reruns.delay(handle.id)).result(PATIENCE)
    assert told[:2] == [True, "RETRY"]
    await handle.refresh()
    assert await handle.result(PATIENCE) == 3
    assert await (await jobs.get(str(told[2]))).result(PATIENCE) == 1


async def test_a_job_that_is_gone_is_not_run_again(jobs: Jobs) -> None:
    handle = await doubled.delay(1)
    await handle.result(PATIENCE)
    handle.job = handle.job._replace(id="nonsense")  # type: ignore[arg-type]
    for act in (handle.retry, handle.rerun):
        with pytest.raises(JobNotFound):
            await act()


async def test_where_nothing_is_open_nothing_is_submitted() -> None:
    with pytest.raises(NotRunning):
        await Jobs().enqueue_many([(doubled, (1,), {})])


@pytest.fixture(params=["lanes", "inline"])
async def running(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[quart.testing.TestApp]:
    monkeypatch.setenv("JOBS_DATABASE", str(tmp_path / "jobs.db"))
    monkeypatch.setenv("JOBS_ENGINE", request.param)
    monkeypatch.setenv("JOBS_LANES", "1")
    async with app.test_app() as test_app:
        yield test_app


async def test_a_job_that_runs_again_after_its_end_runs_without_its_request_and_says_so(
    running: quart.testing.TestApp,
) -> None:
    answer = await running.test_client().post("/run/child", json=[1])
    handle: Any = await app_jobs.get((await answer.get_json())["id"])
    assert (await handle.result(PATIENCE)).endswith("/run/child 1")
    again = await handle.rerun()
    assert json.loads(again.job.origin)["context"] == "deleted"
    with pytest.raises(JobFailed, match=WITHOUT_REQUEST):
        await again.result(PATIENCE)
    await again.retry()
    with pytest.raises(JobFailed, match=WITHOUT_REQUEST):
        await again.result(PATIENCE)
    assert (await again.refresh()).job.attempt == 2
    assert child.name == again.task


async def test_a_batch_shares_one_snapshot_of_the_request(
    running: quart.testing.TestApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    framework = app_jobs._framework
    take = framework.take
    monkeypatch.setattr(framework, "take", lambda *given: taken.append(given) or take(*given))
    async with app.test_request_context("/from/here", method="POST"):
        handles = await app_jobs.enqueue_many((child, (number,), {}) for number in range(5))
    assert len(taken) == 1
    assert [await handle.result(PATIENCE) for handle in handles] == [
        f"POST http://localhost/from/here {number}" for number in range(5)
    ]


@pytest.fixture
def flask_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("JOBS_DATABASE", str(tmp_path / "jobs.db"))
    monkeypatch.setenv("JOBS_ENGINE", "inline")
    with flask_app.jobs:
        yield


@pytest.mark.usefixtures("flask_open")
def test_a_sync_view_submits_many_with_its_request() -> None:
    jobs = flask_app.jobs
    with flask_app.app.test_request_context("/from/flask", method="POST"):
        handles = jobs.run(jobs.enqueue_many([(flask_app.see_async, (), {})] * 2))
        again = jobs.run(handles[0].rerun())
    assert [jobs.run(handle.result(PATIENCE)) for handle in handles] == ["POST /from/flask"] * 2
    with pytest.raises(JobFailed, match=WITHOUT_REQUEST):
        jobs.run(again.result(PATIENCE))
