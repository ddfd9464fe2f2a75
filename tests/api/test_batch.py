"""`POST /jobs/batch`: many jobs in one request."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any
from unittest.mock import patch

import pytest
from quart import Quart

from jobs.errors import StoreBusy
from jobs.settings import Settings
from service.api import batch
from service.api.schemas import JobBatch, JobObject
from tests.api.conftest import Api, problem

ECHO = {"task": "api.echo", "args": {"value": 1}}
LINES = "application/jsonl"


async def send(api: Api, *jobs: Any, **headers: str) -> Any:
    return await api.client.post("/jobs/batch", json={"jobs": list(jobs)}, headers=headers)


async def send_lines(api: Api, *lines: Any, query: str = "", media: str = LINES) -> Any:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return await api.client.post(f"/jobs/batch{query}", data=text, headers={"Content-Type": media})


async def outcomes(answer: Any) -> list[Any]:
    assert answer.status_code == 200, await answer.get_data()
    assert answer.content_type == LINES
    body = await answer.get_data(as_text=True)
    assert body == "" or body.endswith("\n")
    return [json.loads(line) for line in body.splitlines()]


async def stored(api: Api) -> list[Any]:
    listed: list[Any] = (await (await api.client.get("/jobs?limit=1000")).get_json())["jobs"]
    return listed


def echoes(count: int) -> list[Any]:
    return [{"task": "api.echo", "args": {"value": number}} for number in range(count)]


# all or nothing


async def test_all_jobs_are_stored_and_answered_in_their_order(api: Api) -> None:
    words = {"task": "api.words", "args": ["to be or not"], "priority": 3, "countdown": 60}
    answer = await send(api, ECHO, words, *echoes(3))
    assert (answer.status_code, answer.content_type) == (202, "application/json")
    body = await answer.get_data()
    JobBatch.model_validate_json(body)
    jobs = json.loads(body)["jobs"]
    assert [job["task"] for job in jobs] == ["api.echo", "api.words", *["api.echo"] * 3]
    assert (jobs[1]["priority"], jobs[1]["state"]) == (3, "PENDING")
    assert jobs[1]["run_at"] > jobs[1]["created_at"]
    assert [job["id"] for job in await stored(api)] == [job["id"] for job in reversed(jobs)]
    for value, job in enumerate(jobs[2:]):
        await api.ended(job)
        assert await (await api.client.get(job["links"]["result"])).get_json() == value


async def test_each_job_carries_the_request_sealed_for_it_alone(app: Quart, api: Api) -> None:
    answer = await send(api, *[ECHO | {"countdown": 60}] * 2, Cookie="a=b")
    store, sealer = app.extensions["jobs"].store, app.extensions["jobs"].sealer
    contexts = set()
    for job in (await answer.get_json())["jobs"]:
        assert json.loads((await store.get(job["id"])).origin)["route"] == "/jobs/batch"
        kept = await kept_context(app, job["id"])
        contexts.add(kept)
        assert b"a=b" in sealer.open(job["id"], kept)
    assert len(contexts) == 2


@pytest.mark.parametrize("way", [LINES, "application/json"])
async def test_each_job_is_answered_as_it_is_shown_later(api: Api, way: str) -> None:
    kinds = [
        {"countdown": 600},
        {"countdown": 600, "priority": 1},
        {"countdown": 600, "queue": "slow", "max_attempts": 3},
    ]
    jobs: list[Any] = [{"task": "api.echo", "args": [n], **kinds[n % 7 % 3]} for n in range(20)]
    if way == LINES:
        told = [each["job"] for each in await outcomes(await send_lines(api, *jobs))]
    else:
        told = (await (await send(api, *jobs)).get_json())["jobs"]
    assert len({job["id"] for job in told}) == 20
    assert [job["priority"] for job in told] == [job.get("priority", 0) for job in jobs]
    for job in told:
        assert job == await (await api.client.get(f"/jobs/{job['id']}")).get_json()


async def kept_context(app: Quart, job_id: str) -> bytes:
    with closing(sqlite3.connect(app.extensions["jobs"].store.location)) as database:
        (context,) = database.execute(
            "SELECT context FROM payloads JOIN jobs USING (seq) WHERE id = ?", (job_id,)
        ).fetchone()
    found: bytes = context
    return found


async def test_one_job_that_does_not_fit_keeps_all_from_being_stored(api: Api) -> None:
    wrong = [
        ECHO,
        {"task": "api.words", "args": {"text": 5, "more": 1}},
        {"task": "api.wrods"},
        {"task": "api.echo", "priority": 5000, "countdown": -1},
        {"task": "api.words"},
    ]
    document = await problem(await send(api, *wrong), 422, "invalid-arguments")
    assert [each["pointer"] for each in document["errors"]] == [
        "/jobs/1/args/text",
        "/jobs/1/args/more",
        "/jobs/2/task",
        "/jobs/3/priority",
        "/jobs/3/countdown",
        "/jobs/4/args/text",
    ]
    assert "no task is named 'api.wrods'; did you mean api.words" in document["errors"][2]["detail"]
    assert await stored(api) == []


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/jobs"),
        ([], ""),
        ({"jobs": []}, "/jobs"),
        ({"jobs": {}}, "/jobs"),
        ({"jobs": [5]}, "/jobs/0"),
        ({"jobs": [{}]}, "/jobs/0/task"),
        ({"jobs": [ECHO], "more": 1}, "/more"),
        ({"jobs": [ECHO | {"more": 1}]}, "/jobs/0/more"),
        ({"jobs": [ECHO, ECHO | {"eta": "soon"}]}, "/jobs/1/eta"),
        ({"jobs": [ECHO] * 1001}, "/jobs"),
        ({"jobs": [ECHO, ECHO | {"args": {"value": "\0"}}]}, "/jobs/1/args/value"),
    ],
)
async def test_a_body_that_is_no_batch_is_refused_with_a_pointer(
    api: Api, body: Any, pointer: str
) -> None:
    answer = await api.client.post("/jobs/batch", json=body)
    document = await problem(answer, 422, "invalid-arguments")
    assert [each["pointer"] for each in document["errors"]] == [pointer]
    assert await stored(api) == []


async def test_no_more_wrong_values_are_listed_than_a_client_can_read(api: Api) -> None:
    for wrong in ({"task": 5}, {"task": "api.words", "args": {}}):
        document = await problem(await send(api, *[wrong] * 1000), 422, "invalid-arguments")
        assert len(document["errors"]) == 100


async def test_what_is_no_json_is_malformed(api: Api) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await api.client.post("/jobs/batch", data="{", headers=headers)
    await problem(answer, 400, "malformed-json")
    answer = await api.client.post("/jobs/batch", data="{}", headers={"Content-Type": "text/csv"})
    await problem(answer, 415, "unsupported-media-type")


async def test_arguments_of_one_job_that_are_too_large_are_refused(api: Api) -> None:
    large = {"task": "api.echo", "args": {"value": "x" * 300_000}}
    document = await problem(await send(api, ECHO, large), 422, "invalid-arguments")
    assert document["errors"][0]["pointer"] == "/jobs/1/args"
    assert "max_args_bytes" in document["errors"][0]["detail"]


async def test_a_batch_may_be_larger_than_a_body_and_not_larger_than_its_limit(api: Api) -> None:
    large = {"task": "api.echo", "args": {"value": "x" * 200_000}, "countdown": 60}
    assert (await send(api, *[large] * 10)).status_code == 202
    document = await problem(await send(api, *[large] * 90), 413, "too-large")
    assert "max_batch_bytes" in document["detail"]


async def test_lines_can_be_all_or_nothing(api: Api) -> None:
    answer = await send_lines(api, *echoes(3), "", query="?atomic=true")
    assert answer.status_code == 202
    assert len((await answer.get_json())["jobs"]) == 3
    wrong = [ECHO, {"task": "api.words"}, {"task": 5}]
    answer = await send_lines(api, *wrong[:2], query="?atomic=true")
    document = await problem(answer, 422, "invalid-arguments")
    assert document["errors"] == [{"pointer": "/jobs/1/args/text", "detail": "is missing"}]
    answer = await send_lines(api, *wrong, query="?atomic=true")
    document = await problem(answer, 422, "invalid-arguments")
    assert document["errors"][0]["pointer"] == "/jobs/2/task"
    answer = await send_lines(api, ECHO, "{", query="?atomic=true")
    assert "/jobs/1" in (await problem(answer, 400, "malformed-json"))["detail"]
    await problem(await send_lines(api, "", query="?atomic=true"), 422, "invalid-arguments")
    assert len(await stored(api)) == 3


async def test_more_lines_than_one_transaction_takes_are_refused(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MAX_ATOMIC_LINES", 5)
    answer = await send_lines(api, *echoes(6), query="?atomic=true")
    assert "at most 5" in (await problem(answer, 413, "too-large"))["detail"]
    assert await stored(api) == []


@pytest.mark.parametrize("query", ["?atomic=yes", "?atomic=true&atomic=true", "?more=1"])
async def test_a_query_that_is_not_understood_is_refused(api: Api, query: str) -> None:
    document = await problem(await send_lines(api, ECHO, query=query), 422, "invalid-arguments")
    assert document["errors"][0]["pointer"] == f"/query/{query[1:].partition('=')[0]}"


async def test_jobs_of_one_json_body_are_never_each_for_themselves(api: Api) -> None:
    answer = await api.client.post("/jobs/batch?atomic=false", json={"jobs": [ECHO]})
    document = await problem(answer, 422, "invalid-arguments")
    assert "application/jsonl" in document["errors"][0]["detail"]


# each for itself


@pytest.mark.parametrize("media", [LINES, "application/x-ndjson; charset=utf-8"])
async def test_each_line_has_an_outcome_in_the_order_they_came(api: Api, media: str) -> None:
    lines = [
        ECHO,
        "",
        '{"task": ',
        {"task": "api.words", "args": {"text": 5}},
        {"task": "none"},
        {"task": "api.echo", "priority": "high"},
        '{"task": "api.echo", "args": {"value": NaN}}',
        ECHO,
    ]
    told = await outcomes(await send_lines(api, *lines, media=media))
    assert [list(each) for each in told] == [["job"], *[["problem"]] * 5, ["job"]]
    JobObject.model_validate_json(json.dumps(told[0]["job"]))
    assert [job["id"] for job in await stored(api)] == [told[6]["job"]["id"], told[0]["job"]["id"]]
    problems = [each["problem"] for each in told[1:6]]
    assert [each["status"] for each in problems] == [400, 422, 404, 422, 422]
    assert problems[1]["type"].endswith("/problems/invalid-arguments")
    assert problems[1]["errors"][0]["pointer"] == "/args/text"
    assert problems[4]["errors"][0]["pointer"] == "/args/value"
    for each in told[0], told[6]:
        assert (await api.ended(each["job"]))["state"] == "SUCCESS"


async def test_no_line_has_no_outcome(api: Api) -> None:
    assert await outcomes(await send_lines(api)) == []
    assert await outcomes(await send_lines(api, "", " ")) == []


async def test_lines_are_stored_some_at_a_time_and_the_answer_is_not_kept_in_memory(
    app: Quart, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MAX_JOBS", 10)
    monkeypatch.setattr(batch, "SPOOLED", 100)
    store = app.extensions["jobs"].store
    sizes = []
    add = store.add

    def counted(jobs: Sequence[Any]) -> Any:
        sizes.append(len(jobs))
        return add(jobs)

    with patch.object(store, "add", counted):
        told = await outcomes(await send_lines(api, *echoes(35), ""))
    assert sizes == [10, 10, 10, 5]
    assert len({each["job"]["id"] for each in told}) == 35


async def test_a_line_split_anywhere_is_read_as_it_was_sent(api: Api) -> None:
    text = "\r\n".join(json.dumps({"task": "api.echo", "args": {"value": "ü€"}}) for _ in range(3))
    async with api.client.request(
        "/jobs/batch", method="POST", headers={"Content-Type": LINES}
    ) as connection:
        for begin, end, whole in ((0, 100, 1), (100, -5, 2), (-5, None, 2)):
            await connection.send(text.encode()[begin:end])
            while len(await stored(api)) < whole:
                pass
        await connection.send_complete()
    answer = await connection.as_response()
    told = await outcomes(answer)
    assert [list(each) for each in told] == [["job"]] * 3


async def test_a_body_that_grows_too_large_ends_with_a_problem_and_tells_what_was_stored(
    app: Quart, api: Api
) -> None:
    settings: Settings = app.extensions["jobs"].settings
    app.extensions["jobs"].settings = settings.model_copy(update={"max_batch_bytes": 500})
    line = json.dumps(ECHO).encode() + b"\n"
    async with api.client.request(
        "/jobs/batch", method="POST", headers={"Content-Type": LINES}
    ) as connection:
        fit = 500 // len(line)
        for sent in range(1, fit + 1):
            await connection.send(line)
            while len(await stored(api)) < sent:
                pass
        await connection.send(line)
        await connection.send_complete()
    told = await outcomes(await connection.as_response())
    assert [list(each) for each in told] == [["job"]] * fit + [["problem"]]
    assert told[-1]["problem"]["status"] == 413
    assert len(await stored(api)) == fit


@pytest.mark.parametrize("sent", [0, 2])
async def test_lines_that_do_not_come_are_not_waited_for(app: Quart, api: Api, sent: int) -> None:
    settings: Settings = app.extensions["jobs"].settings
    app.extensions["jobs"].settings = settings.model_copy(update={"body_timeout": 0.3})
    async with api.client.request(
        "/jobs/batch", method="POST", headers={"Content-Type": LINES}
    ) as connection:
        for _ in range(sent):
            await connection.send(json.dumps(ECHO).encode() + b"\n")
        await connection.send(b'{"task":')
    answer = await connection.as_response()
    if not sent:
        await problem(answer, 408, "body-timeout")
        return
    told = await outcomes(answer)
    assert [list(each) for each in told] == [["job"]] * sent + [["problem"]]
    assert told[-1]["problem"]["status"] == 408
    assert len(await stored(api)) == sent


async def test_a_line_that_is_too_long_is_refused(api: Api) -> None:
    long = {"task": "api.echo", "args": {"value": "x" * 1_100_000}}
    document = await problem(await send_lines(api, long), 413, "too-large")
    assert "max_body_bytes" in document["detail"]


async def test_when_the_store_takes_none_each_line_says_so(app: Quart, api: Api) -> None:
    def busy(jobs: Any) -> Any:
        raise StoreBusy("too much is waiting")

    with patch.object(app.extensions["jobs"].store, "add", busy):
        told = await outcomes(await send_lines(api, ECHO, {"task": "none"}, ECHO))
    assert [each["problem"]["status"] for each in told] == [503, 404, 503]


# Idempotency-Key


async def test_a_batch_sent_again_with_its_key_makes_no_second_jobs(api: Api) -> None:
    jobs = [{**each, "countdown": 60} for each in echoes(3)]
    first = await send(api, *jobs, **{"Idempotency-Key": "b-1"})
    again = await send(api, *jobs, **{"Idempotency-Key": "b-1"})
    assert first.status_code == again.status_code == 202
    assert await again.get_json() == await first.get_json()
    assert len(await stored(api)) == 3


async def test_a_batch_of_one_is_found_again_too(api: Api) -> None:
    first, again = [await send(api, ECHO, **{"Idempotency-Key": "b-1"}) for _ in range(2)]
    ids = [(await each.get_json())["jobs"][0]["id"] for each in (first, again)]
    assert ids[0] == ids[1]


@pytest.mark.parametrize("change", ["longer", "shorter", "other"])
async def test_another_batch_with_the_key_is_refused_whole(api: Api, change: str) -> None:
    jobs = echoes(3)
    await send(api, *jobs, **{"Idempotency-Key": "b-1"})
    other = {
        "longer": [*jobs, ECHO],
        "shorter": jobs[:2],
        "other": [*jobs[:2], jobs[2] | {"priority": 1}],
    }[change]
    answer = await send(api, *other, **{"Idempotency-Key": "b-1"})
    await problem(answer, 422, "idempotency-key-reused")
    assert len(await stored(api)) == 3


async def test_a_key_of_one_job_is_another_than_that_of_a_batch(api: Api) -> None:
    one = await api.client.post("/jobs", json=ECHO, headers={"Idempotency-Key": "k"})
    assert one.status_code == 202
    assert (await send(api, ECHO, **{"Idempotency-Key": "k"})).status_code == 202
    assert len(await stored(api)) == 2


async def test_a_key_for_lines_that_are_each_for_themselves_is_refused(api: Api) -> None:
    answer = await api.client.post(
        "/jobs/batch",
        data=json.dumps(ECHO),
        headers={"Content-Type": LINES, "Idempotency-Key": "k"},
    )
    assert "?atomic=true" in (await problem(answer, 400, "idempotency-key"))["detail"]
    assert await stored(api) == []
