"""Cancelling and retrying all jobs that match a filter."""

import asyncio
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from service.api import bulk
from service.api.schemas import BulkResult
from tests.api.conftest import Api, problem


async def act(api: Api, how: str, wanted: dict[str, Any], **headers: str) -> dict[str, Any]:
    answer = await api.client.post(f"/jobs/{how}", json=wanted, headers=headers)
    assert answer.status_code == 200, await answer.get_data()
    BulkResult.model_validate_json(await answer.get_data())
    told: dict[str, Any] = await answer.get_json()
    return told


def result(matched: int, changed: int, more: bool = False, dry_run: bool = False) -> dict[str, Any]:
    return {"matched": matched, "changed": changed, "more": more, "dry_run": dry_run}


async def waiting(api: Api, count: int, **options: Any) -> list[dict[str, Any]]:
    return [await api.submit("api.echo", countdown=600, **options) for _ in range(count)]


async def states(api: Api, jobs: list[dict[str, Any]]) -> list[str]:
    seen = [await (await api.client.get(job["links"]["self"])).get_json() for job in jobs]
    return [job["state"] for job in seen]


async def test_all_that_match_are_cancelled_and_no_others(api: Api) -> None:
    mail, other = await waiting(api, 3, queue="mail"), await waiting(api, 2)
    running = await api.submit("api.wait", queue="mail")
    done = await api.ended(await api.submit("api.echo", queue="mail"))
    assert await act(api, "cancel", {"queue": "mail"}) == result(4, 4)
    assert (await api.ended(running))["state"] == "REVOKED"
    assert await states(api, mail) == ["REVOKED"] * 3
    assert await states(api, [*other, done]) == ["PENDING", "PENDING", "SUCCESS"]
    assert await act(api, "cancel", {"queue": "mail"}) == result(0, 0)


async def test_who_waits_for_a_job_hears_of_it(api: Api) -> None:
    (job,) = await waiting(api, 1)
    headers = {"Prefer": "wait=20"}
    looking = asyncio.ensure_future(api.client.get(job["links"]["self"], headers=headers))
    while not api._jobs._operation.waiters._waiting:
        await asyncio.sleep(0)
    await act(api, "cancel", {"ids": [job["id"]]})
    assert (await (await looking).get_json())["state"] == "REVOKED"


async def test_a_dry_run_says_how_many_and_changes_nothing(api: Api) -> None:
    jobs = await waiting(api, 3)
    for _ in range(2):
        told = await act(api, "cancel", {"state": "PENDING", "dry_run": True})
        assert told == result(3, 0, dry_run=True)
    assert await states(api, jobs) == ["PENDING"] * 3


async def test_all_that_failed_are_retried(api: Api) -> None:
    failed = [await api.submit("api.fail", {"message": "no"}) for _ in range(3)]
    for job in failed:
        await api.ended(job)
    (revoked,) = await waiting(api, 1)
    await act(api, "cancel", {"ids": [revoked["id"]]})
    assert await act(api, "retry", {"state": "FAILURE"}) == result(3, 3)
    for job in failed:
        assert (await api.ended(job))["attempt"] == 2
    assert await states(api, [revoked]) == ["REVOKED"]
    assert (await act(api, "retry", {"task": "api.echo"}))["changed"] == 1
    assert (await api.ended(revoked))["state"] == "SUCCESS"


async def test_what_the_published_schema_says_of_a_filter_is_what_is_taken(api: Api) -> None:
    document = await (await api.client.get("/openapi.json")).get_json()
    filters = document["components"]["schemas"]["CancelFilter"]
    wanted: list[tuple[Any, bool]] = [
        ({}, False),
        ({"limit": 5}, False),
        ({"dry_run": True, "limit": 5}, False),
        ({"task": "a", "limit": 5.0}, True),
        ({"task": "a", "limit": 5.5}, False),
        ({"state": "RETRY"}, True),
        ({"ids": ["a"], "dry_run": False}, True),
        ({"more": 1}, False),
        ({"task": "a", "limit": 0}, False),
        ({"task": "a", "limit": 100_000}, True),
        ({"task": "a", "limit": 100_001}, False),
    ]
    for body, good in wanted:
        assert Draft202012Validator(filters).is_valid(body) is good, body
        answer = await api.client.post("/jobs/cancel", json=body)
        assert answer.status_code == (200 if good else 422), body


async def test_a_limit_leaves_the_oldest_and_says_that_there_are_more(api: Api) -> None:
    jobs = await waiting(api, 5)
    assert await act(api, "cancel", {"task": "api.echo", "limit": 2}) == result(2, 2, more=True)
    assert await states(api, jobs) == ["PENDING"] * 3 + ["REVOKED"] * 2
    assert await act(api, "cancel", {"task": "api.echo", "limit": 3}) == result(3, 3)


async def test_many_are_changed_page_by_page(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "AT_ONCE", 2)
    monkeypatch.setattr(bulk, "PAGE", 3)
    jobs = await waiting(api, 5)
    assert await act(api, "cancel", {"state": "PENDING", "dry_run": True}) == result(
        5, 0, dry_run=True
    )
    assert await act(api, "cancel", {"state": "PENDING", "limit": 3}) == result(3, 3, more=True)
    assert await act(api, "cancel", {"state": "PENDING", "limit": 2}) == result(2, 2)
    assert await states(api, jobs) == ["REVOKED"] * 5
    assert await act(api, "retry", {"task": "api.echo"}) == result(5, 5)


async def test_every_member_narrows(api: Api) -> None:
    first, second, third = await waiting(api, 3)
    at = second["created_at"]
    filters = [
        ({"ids": [first["id"], third["id"], "none"]}, 2),
        ({"ids": [first["id"]], "task": "api.words"}, 0),
        ({"ids": [first["id"]], "state": "RETRY"}, 0),
        ({"created_before": "2000-01-01T00:00:00Z"}, 0),
        ({"created_after": "2000-01-01T00:00:00Z"}, 3),
        ({"created_after": at, "ids": [second["id"]]}, 1),
        ({"created_before": at, "ids": [second["id"]]}, 0),
        ({"queue": "default"}, 3),
        ({"state": "STARTED"}, 0),
        ({"owner": "somebody"}, 0),
    ]
    for wanted, matched in filters:
        told = await act(api, "cancel", wanted | {"dry_run": True})
        assert told["matched"] == matched, wanted


@pytest.mark.parametrize(
    ("wanted", "pointer"),
    [
        ({}, ""),
        ({"dry_run": True, "limit": 5}, ""),
        ([], ""),
        ({"state": "SUCCESS"}, "/state"),
        ({"state": None}, "/state"),
        ({"status": "PENDING"}, "/status"),
        ({"task": 5}, "/task"),
        ({"task": "a\0"}, "/task"),
        ({"ids": []}, "/ids"),
        ({"ids": ["a"] * 1001}, "/ids"),
        ({"ids": [1]}, "/ids/0"),
        ({"created_after": "yesterday"}, "/created_after"),
        ({"created_before": 5}, "/created_before"),
        ({"task": "a", "limit": 0}, "/limit"),
        ({"task": "a", "limit": 100_001}, "/limit"),
        ({"task": "a", "dry_run": "yes"}, "/dry_run"),
    ],
)
async def test_a_filter_that_is_not_understood_changes_nothing(
    api: Api, wanted: Any, pointer: str
) -> None:
    (job,) = await waiting(api, 1)
    answer = await api.client.post("/jobs/cancel", json=wanted)
    document = await problem(answer, 422, "invalid-arguments")
    assert [each["pointer"] for each in document["errors"]] == [pointer]
    assert await states(api, [job]) == ["PENDING"]


async def test_each_route_has_states_of_its_own(api: Api) -> None:
    for how, state in (("retry", "PENDING"), ("cancel", "FAILURE")):
        answer = await api.client.post(f"/jobs/{how}", json={"state": state})
        await problem(answer, 422, "invalid-arguments")


async def test_a_body_that_is_no_json_is_malformed(api: Api) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await api.client.post("/jobs/cancel", data="{", headers=headers)
    await problem(answer, 400, "malformed-json")
