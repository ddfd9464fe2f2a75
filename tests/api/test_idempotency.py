"""`Idempotency-Key`: one job for each key."""

import asyncio
import json
import re
from typing import Any
from uuid import UUID

import pytest

from jobs.idempotency import IdempotencyKey
from tests.api.conftest import Api, problem

ECHO = {"task": "api.echo", "args": {"value": 1}}


async def send(api: Api, body: Any = ECHO, key: str = "k-1", path: str = "/jobs") -> Any:
    return await api.client.post(path, json=body, headers={"Idempotency-Key": key})


async def all_jobs(api: Api) -> list[Any]:
    listed: list[Any] = (await (await api.client.get("/jobs")).get_json())["jobs"]
    return listed


async def test_a_request_sent_again_makes_no_second_job(api: Api) -> None:
    body = ECHO | {"countdown": 60}
    first, again = await send(api, body), await send(api, body)
    assert first.status_code == again.status_code == 202
    assert await again.get_json() == await first.get_json()
    assert again.headers["Location"] == first.headers["Location"]
    assert len(await all_jobs(api)) == 1


async def test_of_requests_at_the_same_time_all_get_the_one_job(api: Api) -> None:
    answers = await asyncio.gather(*(send(api) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({(await answer.get_json())["id"] for answer in answers}) == 1
    assert len(await all_jobs(api)) == 1


async def test_after_the_job_has_ended_the_answer_shows_that(api: Api) -> None:
    job = await (await send(api)).get_json()
    await api.ended(job)
    again = await (await send(api)).get_json()
    assert (again["id"], again["state"]) == (job["id"], "SUCCESS")


@pytest.mark.parametrize(
    "other",
    [
        {"task": "api.echo", "args": {"value": 2}},
        {"task": "api.words", "args": {"text": "a"}},
        ECHO | {"priority": 1},
    ],
)
async def test_another_request_with_the_key_is_refused(api: Api, other: dict[str, Any]) -> None:
    await send(api)
    answer = await send(api, other)
    assert await problem(answer, 422, "idempotency-key-reused")
    assert len(await all_jobs(api)) == 1


async def test_the_typed_route_knows_the_same_request(api: Api) -> None:
    job = await (await send(api)).get_json()
    again = await send(api, {"value": 1}, path="/tasks/api.echo/jobs")
    assert (await again.get_json())["id"] == job["id"]


async def test_quotes_are_not_part_of_the_key(api: Api) -> None:
    first = await (await send(api, key='"a b"'.replace(" ", "-"))).get_json()
    again = await (await send(api, key="a-b")).get_json()
    assert again["id"] == first["id"]


@pytest.mark.parametrize("key", ["", '""', '"', 'a"b', '"a', "a b", "é", "x" * 256])
async def test_what_is_no_key_is_refused(api: Api, key: str) -> None:
    answer = await send(api, key=key)
    assert await problem(answer, 400, "idempotency-key")
    assert await all_jobs(api) == []


async def test_the_published_pattern_says_what_a_key_is(api: Api) -> None:
    document = await (await api.client.get("/openapi.json")).get_json()
    (pattern,) = (
        each["schema"]["pattern"]
        for each in document["paths"]["/jobs"]["post"]["parameters"]
        if each["name"] == "Idempotency-Key"
    )
    keys = [
        "k",
        '"k"',
        "a/b~",
        "x" * 255,
        '"' + "x" * 255 + '"',
        "x" * 256,
        "",
        '""',
        '"k',
        'k"',
        'a"b',
        "a b",
    ]
    for key in keys:
        answer = await send(api, key=key)
        assert (answer.status_code == 202) == bool(re.fullmatch(pattern, key)), key


async def test_a_job_that_could_not_be_stored_leaves_the_key_free(api: Api) -> None:
    refused = await send(api, {"task": "api.words", "args": {"text": 5}})
    assert refused.status_code == 422
    assert (await send(api)).status_code == 202


def test_the_id_is_a_uuid_made_of_owner_and_key() -> None:
    one = IdempotencyKey("k", "ann", "f").job_id()
    assert (UUID(one).version, UUID(one).variant) == (8, "specified in RFC 4122")
    assert IdempotencyKey("k", "ann", "other").job_id() == one
    others = {IdempotencyKey("k", None, "f").job_id(), IdempotencyKey("k2", "ann", "f").job_id()}
    assert len(others | {one}) == 3
    assert json.loads(json.dumps(one)) == one
