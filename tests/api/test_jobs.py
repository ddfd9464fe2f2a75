"""Submitting, looking, listing, results, cancelling."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from quart import Quart

from jobs.model import JobState
from service.api.schemas import JobObject
from tests.api.conftest import Api, problem

FIELDS = [
    "id", "task", "queue", "priority", "state", "attempt", "max_attempts", "owner", "created_at", "run_at",
    "started_at", "finished_at", "progress", "error", "links",
]  # fmt: skip
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.mark.parametrize("path", ["/jobs", "/tasks/api.words/jobs"])
async def test_a_submission_is_accepted_with_everything_needed_to_follow_it(
    api: Api, path: str
) -> None:
    args = {"text": "to be or not to be"}
    body = args if path != "/jobs" else {"task": "api.words", "args": args}
    answer = await api.client.post(path, json=body)
    assert answer.status_code == 202
    assert answer.content_type == "application/json"
    job = await answer.get_json()
    assert list(job) == FIELDS
    assert answer.headers["Location"] == job["links"]["self"] == f"/jobs/{job['id']}"
    assert answer.headers["Retry-After"] == "1"
    assert job["links"]["cancel"] == f"/jobs/{job['id']}"
    assert job["task"] == "api.words"
    assert TIME.fullmatch(job["created_at"])
    assert abs(datetime.fromisoformat(job["created_at"]) - datetime.now(UTC)).total_seconds() < 30

    job = await api.ended(job)
    assert job["state"] == "SUCCESS"
    assert "cancel" not in job["links"]
    result = await api.client.get(job["links"]["result"])
    assert await result.get_json() == {"words": 6, "longest": "not"}


async def test_a_job_object_has_the_published_shape_in_every_state(api: Api) -> None:
    done = await api.ended(await api.submit("api.echo", {"value": 1}))
    failed = await api.ended(await api.submit("api.fail", {"message": "no"}))
    waiting = await api.submit("api.echo", countdown=60)
    for job in (done, failed, waiting):
        JobObject.model_validate_json(json.dumps(job), strict=False)
        assert list(job) == FIELDS
        times = [job[name] for name in FIELDS if name.endswith("_at")]
        assert all(TIME.fullmatch(time) for time in times if time is not None)
    assert done["finished_at"] >= done["started_at"]
    assert waiting["run_at"] > waiting["created_at"]
    assert waiting["started_at"] is waiting["finished_at"] is None


async def test_arguments_may_be_given_in_order(api: Api) -> None:
    job = await api.ended(await api.submit("api.words", ["ab abc", 3]))
    assert await (await api.client.get(job["links"]["result"])).get_json() == {
        "words": 1,
        "longest": "abc",
    }


async def test_every_option_is_kept(api: Api) -> None:
    job = await api.submit(
        "api.echo", queue="slow", priority=-3.0, eta="2100-01-01T00:00:00+02:00", expires=10**8,
        timeout=2.5, max_attempts=4,
    )  # fmt: skip
    assert (job["queue"], job["priority"], job["max_attempts"]) == ("slow", -3, 4)
    assert job["run_at"] == "2099-12-31T22:00:00.000Z"
    assert job == await (await api.client.get(job["links"]["self"])).get_json()


async def test_retry_after_is_the_time_until_a_job_is_due(api: Api) -> None:
    answer = await api.client.post("/jobs", json={"task": "api.echo", "countdown": 30.5})
    assert answer.headers["Retry-After"] in {"30", "31"}
    look = await api.client.get(answer.headers["Location"])
    assert look.headers["Retry-After"] in {"30", "31"}
    answer = await api.client.post("/jobs", json={"task": "api.echo", "countdown": 10**6})
    assert answer.headers["Retry-After"] == "3600"


async def test_retry_after_is_absent_once_a_job_has_ended(api: Api) -> None:
    job = await api.ended(await api.submit("api.echo"))
    assert "Retry-After" not in (await api.client.get(job["links"]["self"])).headers


async def test_a_result_is_relayed_as_it_was_stored(api: Api, app: Quart) -> None:
    job = await api.ended(await api.submit("api.echo", {"value": {"ü": [1.0, None, 10**30]}}))
    result = await api.client.get(job["links"]["result"])
    stored = await app.extensions["jobs"].get_job(job["id"])
    assert await result.get_data() == stored.result.encode()
    assert result.content_type == "application/json"
    assert json.loads(stored.result) == {"ü": [1.0, None, 10**30]}


async def test_a_result_of_nothing_is_null(api: Api) -> None:
    job = await api.ended(await api.submit("api.echo"))
    assert await (await api.client.get(job["links"]["result"])).get_data() == b"null"


async def test_the_result_of_an_unfinished_job_is_a_problem_of_its_own(api: Api) -> None:
    job = await api.submit("api.echo", countdown=60)
    answer = await api.client.get(job["links"]["result"])
    document = await problem(answer, 404, "result-not-ready")
    assert document["state"] == "PENDING"
    assert int(answer.headers["Retry-After"]) > 1


async def test_a_failed_job_has_its_error_instead_of_a_result(api: Api) -> None:
    job = await api.ended(await api.submit("api.fail", {"message": "out of paper"}))
    assert job["state"] == "FAILURE"
    error = job["error"]
    assert (error["kind"], error["message"]) == ("exception", "out of paper")
    assert error["type"].endswith("ValueError")
    assert "raise ValueError(message)" in error["traceback"]
    assert "service/" not in error["traceback"]
    document = await problem(await api.client.get(job["links"]["result"]), 409, "no-result")
    assert (document["state"], document["error"]) == ("FAILURE", error)


async def test_cancelling_a_pending_job_revokes_it_at_once(api: Api) -> None:
    job = await api.submit("api.echo", countdown=60)
    answer = await api.client.delete(job["links"]["cancel"])
    assert answer.status_code == 200
    cancelled = await answer.get_json()
    assert (cancelled["state"], cancelled["error"]["kind"]) == ("REVOKED", "cancelled")
    document = await problem(await api.client.get(job["links"]["result"]), 409, "no-result")
    assert document["state"] == "REVOKED"
    document = await problem(await api.client.delete(job["links"]["self"]), 409, "already-ended")
    assert document["state"] == "REVOKED"


async def test_cancelling_a_running_job_is_accepted_and_then_done(api: Api) -> None:
    job = await api.submit("api.wait")
    while job["state"] == "PENDING":
        job = await (await api.client.get(job["links"]["self"])).get_json()
    assert job["state"] == "STARTED"
    answer = await api.client.delete(job["links"]["cancel"])
    assert answer.status_code == 202
    assert answer.headers["Retry-After"] == "1"
    assert (await answer.get_json())["id"] == job["id"]
    assert (await api.ended(job))["state"] == "REVOKED"


async def test_cancelling_an_ended_job_is_a_conflict(api: Api) -> None:
    job = await api.ended(await api.submit("api.echo"))
    document = await problem(await api.client.delete(job["links"]["self"]), 409, "already-ended")
    assert document["state"] == "SUCCESS"


@pytest.mark.parametrize("method", ["get", "delete"])
@pytest.mark.parametrize(
    "job_id",
    ["x", "0199f2f0-7c3a-7000-8a61-3f1d2c9b5e77", "%00", "%ED%A0%80", "'; drop table jobs"],
)
async def test_an_unknown_id_is_not_found(api: Api, method: str, job_id: str) -> None:
    await problem(await getattr(api.client, method)(f"/jobs/{job_id}"), 404, "unknown-job")
    if method == "get":
        await problem(await api.client.get(f"/jobs/{job_id}/result"), 404, "unknown-job")


async def _pages(api: Api, path: str | None) -> list[list[dict[str, Any]]]:
    pages = []
    while path is not None:
        answer = await api.client.get(path)
        assert answer.status_code == 200, await answer.get_data()
        page = await answer.get_json()
        assert list(page) == ["jobs", "links"]
        pages.append(page["jobs"])
        path = page["links"]["next"]
    return pages


async def test_jobs_are_listed_newest_first_page_by_page(api: Api) -> None:
    made = [(await api.submit("api.echo", {"value": n}, countdown=60))["id"] for n in range(5)]
    pages = await _pages(api, "/jobs?limit=2")
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [job["id"] for page in pages for job in page] == made[::-1]
    assert all(list(job) == FIELDS for page in pages for job in page)


async def test_a_page_stays_where_it_was_while_jobs_are_added(api: Api) -> None:
    made = [(await api.submit("api.echo", countdown=60))["id"] for _ in range(4)]
    first = await (await api.client.get("/jobs?limit=2")).get_json()
    await api.submit("api.echo", countdown=60)
    (second,) = await _pages(api, first["links"]["next"])
    assert [job["id"] for job in second] == made[1::-1]


async def test_a_list_is_narrowed(api: Api) -> None:
    late = await api.submit("api.echo", countdown=60, queue="slow")
    done = await api.ended(await api.submit("api.words", {"text": ""}))
    for query, expected in {
        "state=SUCCESS": [done],
        "state=PENDING": [late],
        "state=RETRY": [],
        "task=api.echo": [late],
        "queue=slow": [late],
        "task=api.echo&queue=default": [],
        "task=no+such": [],
        "created_before=2020-01-01T00:00:00Z": [],
        "created_after=2020-01-01T00:00:00Z": [done, late],
        f"created_after={late['created_at']}&task=api.echo": [late],
        f"created_before={late['created_at']}": [],
        "created_after=2020-01-01T00:00:00%2B02:00&limit=1000": [done, late],
    }.items():
        (page,) = await _pages(api, f"/jobs?{query}")
        assert [job["id"] for job in page] == [job["id"] for job in expected], query


async def test_the_next_page_keeps_what_narrowed_the_first(api: Api) -> None:
    for _ in range(3):
        await api.submit("api.echo", countdown=60, queue="slow")
        await api.submit("api.echo", countdown=60)
    pages = await _pages(api, "/jobs?queue=slow&limit=2&created_after=2020-01-01T00:00:00%2B02:00")
    assert [len(page) for page in pages] == [2, 1]
    assert {job["queue"] for page in pages for job in page} == {"slow"}


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("colour=red", "colour"),
        ("state=DONE", "state"),
        ("state=", "state"),
        ("state=success", "state"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=1e2", "limit"),
        ("limit=+5", "limit"),
        ("limit=9999999999999999999999", "limit"),
        ("limit=%C2%B2", "limit"),
        ("cursor=junk", "cursor"),
        ("cursor=", "cursor"),
        ("created_after=yesterday", "created_after"),
        ("created_before=2026-11-24T00:00:00", "created_before"),
        ("task=a%00b", "task"),
        ("limit=1&limit=2", "limit"),
        ("a/b=1", "a~1b"),
    ],
)
async def test_a_wrong_query_is_refused_by_name(api: Api, query: str, name: str) -> None:
    document = await problem(await api.client.get(f"/jobs?{query}"), 422, "invalid-arguments")
    assert [error["pointer"] for error in document["errors"]] == [f"/query/{name}"]


async def test_every_state_that_can_be_asked_for_is_one(api: Api) -> None:
    for state in JobState:
        assert (await api.client.get(f"/jobs?state={state}")).status_code == 200


async def test_tasks_are_listed_and_described(api: Api) -> None:
    listed = (await (await api.client.get("/tasks")).get_json())["tasks"]
    names = [task["name"] for task in listed]
    assert names == sorted(names)
    assert {"api.words", "api.echo", "api.typed"} <= set(names)
    (stats,) = [task for task in listed if task["name"] == "api.words"]
    assert stats["links"] == {"self": "/tasks/api.words", "submit": "/tasks/api.words/jobs"}
    assert stats["description"].startswith("Count the words")
    one = await (await api.client.get("/tasks/api.words")).get_json()
    assert {name: one[name] for name in stats} == stats
    assert one["arguments"]["required"] == ["text"]
    assert one["arguments"]["additionalProperties"] is False
    assert set(one["result"]["properties"]) == {"words", "longest"}


async def test_the_service_says_that_it_lives_and_is_ready(api: Api) -> None:
    for path in ("/livez", "/readyz"):
        answer = await api.client.get(path)
        assert (answer.status_code, await answer.get_json()) == (200, {"status": "ok"})


async def test_a_head_request_is_a_get_without_a_body(api: Api) -> None:
    job = await api.submit("api.echo", countdown=60)
    answer = await api.client.head(job["links"]["self"])
    assert answer.status_code == 200
    assert answer.headers["Retry-After"]
