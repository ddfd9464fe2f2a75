"""The attempts of a job, and what they wrote, over REST."""

import json
from typing import Any

import pytest

from jobs.model import ErrorKind, Job, JobError, JobState, Outcome, Usage, new_job_id, now_ms
from jobs.settings import Settings
from jobs.stores import open_store
from service.api.schemas import AttemptList
from tests.api.conftest import Api, problem
from tests.api.test_jobs import TIME


@pytest.fixture
async def ran(settings: Settings) -> Job:
    """A job whose first attempt was killed, whose second failed and whose third succeeded, before the app
    was opened; `claimed_by` says where."""
    job = Job(id=new_job_id(), task="other", created_at=1)
    endings: list[dict[str, Any]] = [
        {"error": JobError(ErrorKind.CRASH, "Crash", "killed"), "signal": 9, "log": "one\n"},
        {"error": JobError(ErrorKind.EXCEPTION, "OSError", "no", "Traceback …"), "signal": 64},
        {
            "state": JobState.SUCCESS,
            "usage": Usage(5_000_000, 0.25),
            "pid": 77,
            "log": "<b>ü</b>\n",
            "started_at": 1_764_000_000_125,
            "finished_at": 1_764_000_000_500,
        },
    ]
    async with open_store(settings) as store:
        await store.add([job])
        for ending in endings:
            (claimed,) = (await store.claim(1)).jobs
            outcome = {"state": JobState.PENDING, "run_at": now_ms()} | ending
            await store.finish([Outcome(job.id, claimed.attempt, **outcome)])
        return job._replace(claimed_by=store.claimant)


async def test_attempts_are_listed_oldest_first_in_the_published_shape(ran: Job, api: Api) -> None:
    answer = await api.client.get(f"/jobs/{ran.id}/attempts")
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    body = await answer.get_data()
    AttemptList.model_validate_json(body)
    first, second, third = json.loads(body)["attempts"]
    assert (first["outcome"], first["signal"], first["log_bytes"]) == ("crash", "SIGKILL", 4)
    assert first["error"] == {
        "kind": "crash",
        "type": "Crash",
        "message": "killed",
        "traceback": None,
    }
    assert TIME.fullmatch(first["finished_at"])
    assert (second["number"], second["outcome"]) == (2, "exception")
    assert second["signal"] in ("SIGRTMAX", "signal 64")
    assert third == {
        "number": 3,
        "outcome": "success",
        "error": None,
        "worker": ran.claimed_by,
        "pid": 77,
        "started_at": "2025-11-24T16:00:00.125Z",
        "finished_at": "2025-11-24T16:00:00.500Z",
        "max_rss": 5_000_000,
        "cpu": 0.25,
        "signal": None,
        "log_bytes": 10,
    }


async def test_a_job_links_to_its_attempts_and_its_log(api: Api) -> None:
    job = await api.ended(await api.submit("api.fail", {"message": "out of paper"}))
    (attempt,) = (await (await api.client.get(job["links"]["attempts"])).get_json())["attempts"]
    assert (attempt["number"], attempt["outcome"]) == (1, "exception")
    assert attempt["error"] == job["error"]
    assert (attempt["started_at"], attempt["finished_at"]) == (
        job["started_at"],
        job["finished_at"],
    )
    assert (await api.client.get(job["links"]["logs"])).status_code == 200


async def test_a_job_that_has_not_run_has_no_attempts_and_an_empty_log(api: Api) -> None:
    job = await api.submit("api.echo", countdown=60)
    answer = await api.client.get(job["links"]["attempts"])
    assert await answer.get_json() == {"attempts": []}
    assert await (await api.client.get(job["links"]["logs"])).get_data() == b""


async def test_the_log_is_plain_text_of_all_attempts_or_of_one(ran: Job, api: Api) -> None:
    answer = await api.client.get(f"/jobs/{ran.id}/logs")
    assert answer.status_code == 200
    assert answer.content_type == "text/plain; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert await answer.get_data() == "one\n<b>ü</b>\n".encode()
    for number, text in {"1": "one\n", "2": "", "3": "<b>ü</b>\n", "4": ""}.items():
        answer = await api.client.get(f"/jobs/{ran.id}/logs?attempt={number}")
        assert (answer.status_code, await answer.get_data()) == (200, text.encode())


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("attempt=0", "attempt"),
        ("attempt=-1", "attempt"),
        ("attempt=", "attempt"),
        ("attempt=one", "attempt"),
        ("attempt=%C2%B2", "attempt"),
        ("attempt=99999999999999999999", "attempt"),
        ("attempt=1&attempt=2", "attempt"),
        ("number=1", "number"),
        ("a/b=1", "a~1b"),
    ],
)
async def test_a_wrong_query_is_refused_by_name(ran: Job, api: Api, query: str, name: str) -> None:
    answer = await api.client.get(f"/jobs/{ran.id}/logs?{query}")
    document = await problem(answer, 422, "invalid-arguments")
    assert [error["pointer"] for error in document["errors"]] == [f"/query/{name}"]


@pytest.mark.parametrize(
    "job_id", ["x", "0199f2f0-7c3a-7000-8a61-3f1d2c9b5e77", "%00", "%ED%A0%80"]
)
@pytest.mark.parametrize("what", ["attempts", "logs"])
async def test_an_unknown_id_is_not_found(api: Api, job_id: str, what: str) -> None:
    await problem(await api.client.get(f"/jobs/{job_id}/{what}"), 404, "unknown-job")
