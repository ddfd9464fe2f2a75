"""Retry and rerun over REST."""

import json
from typing import Any

import pytest
from quart import Quart

from service.api.schemas import JobAgain
from tests.api.conftest import Api, problem
from tests.api.tasks import echo


async def failed(api: Api) -> dict[str, Any]:
    return await api.ended(await api.submit("api.fail", {"message": "no"}))


async def test_a_retried_job_runs_once_more_under_its_id(api: Api) -> None:
    job = await failed(api)
    answer = await api.client.post(f"/jobs/{job['id']}/retry")
    assert (answer.status_code, answer.headers["Retry-After"]) == (202, "1")
    body = await answer.get_data()
    JobAgain.model_validate_json(body)
    told = json.loads(body)
    assert (told["id"], told["attempt"] >= 1, told["context"]) == (job["id"], True, "deleted")
    assert told["state"] in ("RETRY", "STARTED", "FAILURE")
    assert (await api.ended(job))["attempt"] == 2
    listed = await (await api.client.get(job["links"]["attempts"])).get_json()
    assert [(each["number"], each["outcome"]) for each in listed["attempts"]] == [
        (1, "exception"),
        (2, "exception"),
    ]


async def test_a_revoked_job_is_retried_at_once(api: Api) -> None:
    job = await api.submit("api.echo", {"value": 7}, countdown=3600)
    await api.client.delete(job["links"]["self"])
    answer = await api.client.post(f"/jobs/{job['id']}/retry")
    told = await answer.get_json()
    assert (told["run_at"], told["error"]) == (None, None)
    assert (await api.ended(job))["state"] == "SUCCESS"
    assert await (await api.client.get(job["links"]["result"])).get_json() == 7


async def test_a_job_that_has_not_failed_is_not_retried(api: Api) -> None:
    done = await api.ended(await api.submit("api.echo"))
    waiting = await api.submit("api.echo", countdown=60)
    for job in (done, waiting):
        answer = await api.client.post(f"/jobs/{job['id']}/retry")
        document = await problem(answer, 409, "not-retriable")
        assert document["state"] == job["state"]
    await problem(await api.client.post("/jobs/none/retry"), 404, "unknown-job")


async def test_of_a_job_without_a_request_nothing_is_missed(app: Quart, api: Api) -> None:
    handle = await echo.apply_async(countdown=60)
    await handle.cancel()
    told = await (await api.client.post(f"/jobs/{handle.id}/retry")).get_json()
    assert told["context"] is None


async def test_a_rerun_is_a_new_job_with_the_same_input_and_options(api: Api) -> None:
    job = await api.ended(
        await api.submit("api.echo", {"value": [1]}, queue="slow", priority=4, max_attempts=3)
    )
    answer = await api.client.post(f"/jobs/{job['id']}/rerun")
    assert answer.status_code == 202
    body = await answer.get_data()
    JobAgain.model_validate_json(body)
    told = json.loads(body)
    assert told["id"] != job["id"]
    assert answer.headers["Location"] == told["links"]["self"]
    assert answer.headers["Retry-After"] == "1"
    assert told["context"] == "deleted"
    for name in ("task", "queue", "priority", "max_attempts", "owner"):
        assert told[name] == job[name]
    assert (await api.ended(told))["state"] == "SUCCESS"
    assert await (await api.client.get(told["links"]["result"])).get_json() == [1]


async def test_what_was_to_wait_is_rerun_at_once(api: Api) -> None:
    job = await api.submit("api.echo", countdown=3600, expires=7200)
    told = await (await api.client.post(f"/jobs/{job['id']}/rerun")).get_json()
    assert told["run_at"] is None
    assert (await api.ended(told))["state"] == "SUCCESS"


async def test_a_rerun_says_of_which_job(app: Quart, api: Api) -> None:
    job = await api.ended(await api.submit("api.echo"))
    told = await (await api.client.post(f"/jobs/{job['id']}/rerun")).get_json()
    kept = await app.extensions["jobs"].get_job(told["id"])
    origin = json.loads(kept.origin)
    assert (origin["rerun_of"], origin["route"]) == (job["id"], "/jobs")


async def test_a_rerun_with_a_key_makes_one_job(api: Api) -> None:
    job, other = await api.ended(await api.submit("api.echo")), await api.submit("api.echo")
    headers = {"Idempotency-Key": "k"}
    first, again = [
        await api.client.post(f"/jobs/{job['id']}/rerun", headers=headers) for _ in range(2)
    ]
    assert (await first.get_json())["id"] == (await again.get_json())["id"]
    answer = await api.client.post(f"/jobs/{other['id']}/rerun", headers=headers)
    await problem(answer, 422, "idempotency-key-reused")


async def test_a_task_that_is_no_more_is_not_rerun(
    app: Quart, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await api.ended(await api.submit("api.echo"))
    monkeypatch.delitem(app.extensions["jobs"].registry._tasks, "api.echo")
    answer = await api.client.post(f"/jobs/{job['id']}/rerun")
    await problem(answer, 404, "unknown-task")
