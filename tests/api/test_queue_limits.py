"""What a client is told when too many jobs wait."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from quart import Quart

from jobs import Jobs
from jobs.errors import QueueFull
from jobs.settings import Settings
from tests import postgres
from tests.api.conftest import Api, problem
from tests.api.tasks import echo
from tests.api.test_auth import Keys

ECHO = {"task": "api.echo", "countdown": 3600}


@pytest.fixture
def limits() -> dict[str, int]:
    return {"max_queued": 5}


@pytest.fixture
def store() -> str:
    return "sqlite"


@pytest.fixture
def settings(settings: Settings, limits: dict[str, int], store: str) -> Iterator[Settings]:
    if store == "sqlite":
        yield settings.model_copy(update=limits)
        return
    server = postgres.shared()
    server.clear()
    theirs = {"database": server.url, "secret_key": SecretStr("k" * 40)}
    yield settings.model_copy(update=limits | theirs)
    server.clear()


async def submit(api: Api, **headers: str) -> Any:
    return await api.client.post("/jobs", json=ECHO, headers=headers)


async def taken(api: Api, body: Any = ECHO, **headers: str) -> dict[str, Any]:
    """The job that fits in, though a count that is just being made may say for a moment that it does not."""
    while (answer := await api.client.post("/jobs", json=body, headers=headers)).status_code != 202:
        assert answer.status_code in (429, 503)
        await asyncio.sleep(0.01)
    job: dict[str, Any] = await answer.get_json()
    return job


async def test_above_the_limit_jobs_are_refused_until_there_is_room(api: Api) -> None:
    jobs = [await taken(api) for _ in range(5)]
    answer = await submit(api)
    document = await problem(answer, 503, "queue-full")
    assert " jobs wait to run, of at most 5 (setting: max_queued)" in document["detail"]
    assert int(answer.headers["Retry-After"]) >= 1
    await problem(await api.client.post("/jobs/batch", json={"jobs": [ECHO]}), 503, "queue-full")
    await problem(await api.client.post(f"/jobs/{jobs[0]['id']}/rerun"), 503, "queue-full")
    for job in jobs:
        assert (await api.client.get(job["links"]["self"])).status_code == 200
    await api.client.delete(jobs[0]["links"]["self"])
    await taken(api)
    await problem(await submit(api), 503, "queue-full")


async def test_a_batch_is_taken_whole_or_not_at_all(api: Api) -> None:
    answer = await api.client.post("/jobs/batch", json={"jobs": [ECHO] * 6})
    await problem(answer, 503, "queue-full")
    assert (await (await api.client.get("/jobs")).get_json())["jobs"] == []
    answer = await api.client.post("/jobs/batch", json={"jobs": [ECHO] * 5})
    assert answer.status_code == 202


async def test_jobs_that_run_or_have_ended_do_not_wait(api: Api) -> None:
    for _ in range(12):
        await api.ended(await taken(api, {"task": "api.echo"}))


async def test_a_retry_is_no_new_job(api: Api) -> None:
    failed = await api.ended(await api.submit("api.fail", {"message": "no"}))
    while (await submit(api)).status_code == 202:
        pass
    assert (await api.client.post(f"/jobs/{failed['id']}/retry")).status_code == 202


@pytest.mark.parametrize("limits", [{"max_queued_per_owner": 2}])
async def test_an_owner_above_the_own_limit_is_refused_and_no_other(app: Quart, api: Api) -> None:
    keys = Keys(app)
    ann, bob = await keys("ann"), await keys("bob")
    for _ in range(2):
        await taken(api, **ann)
    answer = await submit(api, **ann)
    document = await problem(answer, 429, "owner-queue-full")
    assert " jobs of 'ann' wait to run, of at most 2" in document["detail"]
    assert int(answer.headers["Retry-After"]) >= 1
    assert (await submit(api, **bob)).status_code == 202


@pytest.mark.parametrize("limits", [{"max_queued_bytes": 5000}])
async def test_the_bytes_that_wait_have_a_limit(api: Api) -> None:
    body = ECHO | {"args": {"value": "x" * 2000}}
    for _ in range(2):
        await taken(api, body)
    document = await problem(await api.client.post("/jobs", json=body), 503, "queue-full")
    assert "max_queued_bytes" in document["detail"]


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
@pytest.mark.parametrize("limits", [{"max_queued_bytes_per_owner": 5000}])
async def test_the_bytes_of_an_owner_that_wait_have_a_limit(app: Quart, api: Api) -> None:
    keys = Keys(app)
    ann = await keys("ann")
    body = ECHO | {"args": {"value": "x" * 2000}}
    first, _ = [await taken(api, body, **ann) for _ in range(2)]
    for other, path, sent in (
        ("bob", "/jobs", body),
        ("cid", "/jobs/batch", {"jobs": [ECHO, body]}),
    ):
        answer = await api.client.post(path, json=sent, headers=ann)
        document = await problem(answer, 429, "owner-queue-full")
        assert "of 'ann' that wait to run have" in document["detail"]
        assert "(setting: max_queued_bytes_per_owner)" in document["detail"]
        assert int(answer.headers["Retry-After"]) >= 1
        # Of one who has nothing there, nothing can be counted twice for a moment.
        answer = await api.client.post(path, json=sent, headers=await keys(other))
        assert answer.status_code == 202
    assert (await api.client.get(first["links"]["self"], headers=ann)).status_code == 200
    await api.client.delete(first["links"]["self"], headers=ann)
    await taken(api, body, **ann)


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
@pytest.mark.parametrize("limits", [{"max_queued_bytes_per_owner": 5000}])
async def test_what_a_job_submits_is_of_its_owners_bytes(app: Quart, api: Api) -> None:
    ann = await Keys(app)("ann")
    bob = await Keys(app)("bob")
    breed = {"task": "api.breed", "args": [3000], "max_attempts": 1}
    await taken(api, ECHO | {"args": {"value": "x" * 3000}}, **ann)
    job = await api.ended(await taken(api, breed, **ann), **ann)
    assert (job["state"], job["error"]["type"]) == ("FAILURE", "OwnerQueueFull")
    job = await api.ended(await taken(api, breed, **bob), **bob)
    assert job["state"] == "SUCCESS"


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
@pytest.mark.parametrize(
    ("limits", "slug"),
    [
        ({"max_queued_bytes_per_owner": 5000}, "owner-queue-full"),
        ({"max_queued_per_owner": 3}, "owner-queue-full"),
        ({"max_queued": 3}, "queue-full"),
    ],
)
async def test_of_lines_that_are_each_for_themselves_those_are_taken_that_fit(
    app: Quart, api: Api, slug: str
) -> None:
    ann = await Keys(app)("ann")
    lines = [json.dumps(ECHO | {"args": {"value": "x" * 1000}})] * 9
    headers = ann | {"Content-Type": "application/jsonl"}
    answer = await api.client.post("/jobs/batch", data="\n".join(lines), headers=headers)
    told = [json.loads(line) for line in (await answer.get_data(as_text=True)).splitlines()]
    assert [set(each) for each in told] == [{"job"}] * 3 + [{"problem"}] * 6
    assert {each["problem"]["type"] for each in told[3:]} == {f"/problems/{slug}"}
    listed = await (await api.client.get("/jobs", headers=ann)).get_json()
    assert [each["id"] for each in reversed(listed["jobs"])] == [
        each["job"]["id"] for each in told[:3]
    ]


@pytest.mark.parametrize("limits", [{"max_queued": 5, "lanes": 0}])
async def test_a_full_queue_is_known_from_the_start(
    app: Quart, api: Api, settings: Settings
) -> None:
    for _ in range(5):
        await taken(api)
    async with Jobs(registry=app.extensions["jobs"].registry, **settings.model_dump()) as other:
        with pytest.raises(QueueFull):
            await other.enqueue_many([(echo, (1,), {})])
