"""`Prefer` (RFC 7240), conditional requests, and `Retry-After` that follows the task."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quart import Quart

from jobs.model import JobState
from service.api.prefer import MAX_WAIT, Preferences
from service.api.run_times import RunTimes
from tests.api.conftest import Api, problem


@pytest.mark.parametrize("path", ["/jobs", "/tasks/api.words/jobs"])
async def test_a_job_that_ends_within_the_wait_is_answered_with_200(api: Api, path: str) -> None:
    args = {"text": "to be"}
    body = args if path != "/jobs" else {"task": "api.words", "args": args}
    answer = await api.client.post(path, json=body, headers={"Prefer": "wait=20"})
    assert answer.status_code == 200
    assert answer.headers["Preference-Applied"] == "wait=20"
    assert "Retry-After" not in answer.headers
    job = await answer.get_json()
    assert job["state"] == "SUCCESS"
    assert answer.headers["Location"] == job["links"]["self"]


async def test_a_job_that_does_not_end_within_the_wait_is_answered_with_202(api: Api) -> None:
    answer = await api.client.post(
        "/jobs",
        json={"task": "api.echo", "args": {"value": 1}, "countdown": 60},
        headers={"Prefer": "wait=1"},
    )
    assert answer.status_code == 202
    assert answer.headers["Preference-Applied"] == "wait=1"
    assert (await answer.get_json())["state"] == "PENDING"


async def test_respond_async_is_what_happens_anyway(api: Api) -> None:
    answer = await api.client.post(
        "/jobs",
        json={"task": "api.echo", "args": {"value": 1}, "countdown": 60},
        headers={"Prefer": "respond-async"},
    )
    assert answer.status_code == 202
    assert answer.headers["Preference-Applied"] == "respond-async"


async def test_respond_async_with_a_wait_waits_that_long_first(api: Api) -> None:
    body = {"task": "api.echo", "args": {"value": 1}}
    answer = await api.client.post("/jobs", json=body, headers={"Prefer": "respond-async, wait=20"})
    assert answer.status_code == 200
    assert answer.headers["Preference-Applied"] == "wait=20, respond-async"


async def test_who_prefers_little_gets_the_address_alone(api: Api) -> None:
    body = {"task": "api.echo", "args": {"value": 1}}
    answer = await api.client.post("/jobs", json=body, headers={"Prefer": "return=minimal"})
    assert answer.status_code == 202
    assert await answer.get_data() == b""
    assert answer.content_type != "application/json"
    assert answer.headers["Preference-Applied"] == "return=minimal"
    assert (await api.client.get(answer.headers["Location"])).status_code == 200


async def test_a_long_poll_returns_as_soon_as_the_job_has_ended(api: Api) -> None:
    job = await api.submit("api.echo", {"value": 1}, countdown=60)
    waiting = asyncio.create_task(
        api.client.get(job["links"]["self"], headers={"Prefer": "wait=30"})
    )
    await asyncio.sleep(0)
    await api.client.delete(job["links"]["cancel"])
    async with asyncio.timeout(10):
        answer = await waiting
    assert answer.status_code == 200
    assert (await answer.get_json())["state"] == "REVOKED"
    assert answer.headers["Preference-Applied"] == "wait=30"


async def test_a_long_poll_ends_when_the_service_is_to_stop(app: Quart, api: Api) -> None:
    job = await api.submit("api.echo", {"value": 1}, countdown=60)
    waiting = asyncio.create_task(
        api.client.get(job["links"]["self"], headers={"Prefer": "wait=30"})
    )
    await asyncio.sleep(0)
    app.extensions["jobs"].stopping.set()
    async with asyncio.timeout(10):
        answer = await waiting
    assert (await answer.get_json())["state"] == "PENDING"


async def test_a_long_poll_for_an_unknown_job_is_a_404_at_once(api: Api) -> None:
    answer = await api.client.get("/jobs/none", headers={"Prefer": "wait=30"})
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wait=5", Preferences(wait=5)),
        ("Wait=5", Preferences(wait=5)),
        ('wait="5"', Preferences(wait=5)),
        ("wait = 5; x=y", Preferences(wait=5)),
        ("wait=5, wait=9", Preferences(wait=5)),
        (f"wait={MAX_WAIT + 1}", Preferences(wait=MAX_WAIT)),
        ("wait=soon, return=minimal", Preferences(minimal=True)),
        ("wait=-1", Preferences()),
        ("wait=" + "9" * 5000, Preferences()),
        ("wait", Preferences()),
        ("return=representation", Preferences()),
        ("respond-async;foo, handling=lenient", Preferences(respond_async=True)),
        ("", Preferences()),
        (",,=,;", Preferences()),
    ],
)
def test_preferences_are_read_as_the_rfc_has_them(text: str, expected: Preferences) -> None:
    assert Preferences.read(text) == expected


@given(st.text())
def test_no_header_is_an_error(text: str) -> None:
    Preferences.read(text)


async def test_an_unchanged_job_is_a_304(api: Api) -> None:
    job = await api.submit("api.echo", {"value": 1}, countdown=60)
    address = job["links"]["self"]
    first = await api.client.get(address)
    assert first.headers["Cache-Control"] == "no-cache"
    etag = first.headers["ETag"]
    again = await api.client.get(address, headers={"If-None-Match": etag})
    assert again.status_code == 304
    assert await again.get_data() == b""
    assert again.headers["ETag"] == etag
    assert again.headers["Retry-After"] == first.headers["Retry-After"]

    await api.client.delete(address)
    changed = await api.client.get(address, headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != etag


async def test_a_condition_that_fails_is_a_problem(api: Api) -> None:
    job = await api.submit("api.echo", {"value": 1}, countdown=60)
    answer = await api.client.get(job["links"]["self"], headers={"If-Match": '"other"'})
    await problem(answer, 412, "precondition-failed")


async def test_retry_after_follows_how_long_the_task_has_taken(app: Quart, api: Api) -> None:
    job = await api.submit("api.echo", {"value": 1}, countdown=60)
    times = RunTimes()
    kept = await app.extensions["jobs"].get_job(job["id"])
    assert times.retry_after(kept) == 60
    ended = kept._replace(stored_state=JobState.SUCCESS, started_at=1_000, finished_at=31_000)
    times.learn(ended)
    assert times.retry_after(kept) == 90
    running = kept._replace(stored_state=JobState.STARTED, started_at=kept.created_at - 10_000)
    assert 15 <= times.retry_after(running) <= 20
    times.learn(ended._replace(finished_at=2_000))
    assert times.retry_after(kept) < 90
