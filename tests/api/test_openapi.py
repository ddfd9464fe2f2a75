"""The published document: valid, complete, and true."""

import math
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator
from quart import Quart

from jobs import Task
from service.api.blueprint import TABLE
from tests.api.conftest import Api
from tests.following import following

Json = dict[str, Any]


def late(number: int) -> int:
    """A task that comes after the app stood."""
    return number


@pytest.fixture
async def document(api: Api) -> Json:
    answer = await api.client.get("/openapi.json")
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    found: Json = await answer.get_json()
    return found


def _verdict(document: Json, schema: Json) -> Draft202012Validator:
    """The judgement of a schema of the document; its patterns mean what they do in JavaScript."""

    def translated(part: Any) -> Any:
        if isinstance(part, list):
            return [translated(item) for item in part]
        if isinstance(part, dict):
            return {
                key: re.sub(r"\$$", r"\\Z", value) if key == "pattern" else translated(value)
                for key, value in part.items()
            }
        return part

    whole = translated({**schema, "components": document["components"]})
    return Draft202012Validator(whole, format_checker=FormatChecker())


def _operations(document: Json) -> list[tuple[str, str, Json]]:
    return [
        (path, method, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]


async def test_the_document_is_valid_openapi_3_1(document: Json) -> None:
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()


async def test_every_route_is_documented(document: Json, app: Quart) -> None:
    served = {
        (rule.rule.replace("<", "{").replace(">", "}"), method.lower())
        for rule in app.url_map.iter_rules()
        if not rule.endpoint.rpartition(".")[2].startswith("other_methods")
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    documented = {(path, method) for path, method, _ in _operations(document)}
    for name in app.extensions["jobs"].registry:
        documented.remove((f"/tasks/{name}/jobs", "post"))
    assert documented | {("/tasks/{name}/jobs", "post")} == served


async def test_operation_ids_are_unique(document: Json) -> None:
    ids = [operation["operationId"] for _, _, operation in _operations(document)]
    assert len(ids) == len(set(ids))
    assert len(ids) >= len(TABLE)


async def test_every_operation_may_answer_with_a_problem(document: Json) -> None:
    for path, method, operation in _operations(document):
        for status, answer in operation["responses"].items():
            if status == "default" or int(status) >= 400:
                ref = answer.get("$ref", "").rpartition("/")[2]
                answer = document["components"]["responses"][ref] if ref else answer
                assert list(answer["content"]) == ["application/problem+json"], (
                    path,
                    method,
                    status,
                )
        assert "default" in operation["responses"]


async def test_every_tasks_path_is_written_out_with_its_body_and_result(document: Json) -> None:
    operation = document["paths"]["/tasks/api.words/jobs"]["post"]
    body = operation["requestBody"]["content"]["application/json"]
    name = body["schema"]["$ref"].rpartition("/")[2]
    assert document["components"]["schemas"][name]["required"] == ["text"]
    assert operation["x-result"] == {"$ref": "#/components/schemas/Statistics"}
    assert "Count the words" in operation["description"]
    assert "Statistics" in operation["description"]


async def test_every_example_is_admitted_by_its_schema(document: Json) -> None:
    seen = 0
    for _, _, operation in _operations(document):
        parts = [operation.get("requestBody", {}), *operation["responses"].values()]
        for part in parts:
            for content in part.get("content", {}).values():
                for example in content.get("examples", {}).values():
                    _verdict(document, content["schema"]).validate(example["value"])
                    seen += 1
    assert seen > 20


async def test_every_task_has_an_example_that_the_server_accepts(document: Json, api: Api) -> None:
    for path, method, operation in _operations(document):
        if path.startswith("/tasks/") and method == "post":
            content = operation["requestBody"]["content"]["application/json"]
            (example,) = content["examples"].values()
            answer = await api.client.post(path, json=example["value"])
            assert answer.status_code == 202, (path, example)


async def test_answers_have_the_documented_shape(document: Json, api: Api) -> None:
    job = await api.ended(await api.submit("api.words", {"text": "a b"}))
    for path, template in {
        job["links"]["self"]: "/jobs/{job_id}",
        job["links"]["attempts"]: "/jobs/{job_id}/attempts",
        "/jobs": "/jobs",
        "/tasks": "/tasks",
        "/tasks/api.typed": "/tasks/{name}",
        "/readyz": "/readyz",
    }.items():
        content = document["paths"][template]["get"]["responses"]["200"]["content"]
        answer = await api.client.get(path)
        _verdict(document, content["application/json"]["schema"]).validate(await answer.get_json())
    result = await (await api.client.get(job["links"]["result"])).get_json()
    _verdict(document, {"$ref": "#/components/schemas/Statistics"}).validate(result)


async def test_event_streams_have_the_documented_headers_and_data(
    document: Json, app: Quart, api: Api
) -> None:
    """They have no end that a program could wait for, so `tests/process/test_contract.py` leaves them out."""
    job = await api.submit("api.report", {"steps": 2})
    for path, template, accept in (
        (job["links"]["events"], "/jobs/{job_id}/events", "*/*"),
        (job["links"]["logs"], "/jobs/{job_id}/logs", "text/event-stream"),
    ):
        answer = document["paths"][template]["get"]["responses"]["200"]
        async with following(app, path, Accept=accept) as stream:
            told = await stream.all()
            names = {name.lower() for name, _ in stream.headers.items()}
        assert told
        assert names - {"content-type"} <= {name.lower() for name in answer["headers"]}
        content = answer["content"]["text/event-stream"]
        assert content["schema"]["type"] == "string"
        for each in told:
            _verdict(document, content["x-itemSchema"]).validate(each.data)


async def test_every_reference_and_header_is_there_and_every_security_scheme(
    document: Json,
) -> None:
    for path, method, operation in _operations(document):
        for scheme in operation.get("security", []):
            assert set(scheme) <= set(document["components"]["securitySchemes"]), (path, method)
        for answer in operation["responses"].values():
            ref = answer.get("$ref", "").rpartition("/")[2]
            answer = document["components"]["responses"][ref] if ref else answer
            for header in answer["headers"].values():
                assert header["$ref"].rpartition("/")[2] in document["components"]["headers"]


async def test_the_document_follows_the_registry(app: Quart, api: Api) -> None:
    registry = app.extensions["jobs"].registry
    before = await (await api.client.get("/openapi.json")).get_data()
    assert await (await api.client.get("/openapi.json")).get_data() == before

    registry.add(Task(late, name="late"))
    try:
        document = await (await api.client.get("/openapi.json")).get_json()
        assert "/tasks/late/jobs" in document["paths"]
    finally:
        del registry._tasks["late"]


TEXTS = ["", "a", "abc", "A", "a\n", "1", "a\0b", "x" * 41]
NUMBERS = [0, 1, 9, 10, -1, 1.0, 0.5, 1.5, 1e300, 10**20, True, 2**63]
TIMES = [
    "2026-11-24T09:30:00Z", "2026-11-24T09:30:00.5+01:00", "2026-11-24T09:30:00", "2026-11-24",
    "09:30:00", "1764000000", "2026-13-01T00:00:00Z", "2026-02-30", "P1D", "PT1.5S", "1 day", "-P1D",
    "2026-11-24T09:30:00+0100", "2026-11-24 09:30:00Z", "20261124T093000Z", "2026-11-24T09:30Z",
    "2026-11-24T24:00:00Z", "2026-11-24t09:30:00z",
]  # fmt: skip
IDENTS = [
    "0199f2f0-7c3a-7000-8a61-3f1d2c9b5e77", "0199F2F0-7C3A-7000-8A61-3F1D2C9B5E77",
    "0199f2f07c3a70008a613f1d2c9b5e77", "{0199f2f0-7c3a-7000-8a61-3f1d2c9b5e77}",
    "urn:uuid:0199f2f0-7c3a-7000-8a61-3f1d2c9b5e77", "0199f2f0",
]  # fmt: skip
AMOUNTS = ["1", "1.50", "-0", "1e3", " 1", "NaN", "Infinity", "1,5", "", ".5", "1_000", "٣"]
VALUES: list[Any] = [
    None, [], {}, [1], [1, "a"], [1, "a", 2], ["a", 1], {"a": 1}, {"a": "b"}, {"a": 1.0}, {"a\0": 1},
    "red", "b", "c", {"colour": "red"}, {"colour": "green"}, {"colour": "blue", "width": 0},
    {"colour": "red", "width": 10, "ink": 1}, {"customer": "a", "pens": []}, {"customer": "", "pens": []},
    {"customer": "a", "pens": [{"colour": "red"}] * 4}, {"customer": "a"},
    {"customer": "a", "pens": [{"colour": "red", "width": "1"}]},
    {"customer": "a", "pens": [{"colour": "red", "ink": 1}], "ink": 1},
    *TEXTS, *NUMBERS, *TIMES, *IDENTS, *AMOUNTS,
]  # fmt: skip
PARAMETERS = [
    "whole", "number", "flag", "text", "maybe", "moment", "day", "span", "ident", "amount", "one_of",
    "pen", "order", "table", "pair", "unknown",
]  # fmt: skip


@pytest.mark.parametrize("parameter", PARAMETERS)
async def test_what_a_tasks_schema_admits_is_accepted_and_nothing_else(
    document: Json, api: Api, parameter: str
) -> None:
    operation = document["paths"]["/tasks/api.typed/jobs"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    await _agree(_verdict(document, schema), api, "/tasks/api.typed/jobs", parameter, {})


OPTIONS = [
    "task", "args", "queue", "priority", "countdown", "eta", "expires", "timeout", "max_attempts", "colour",
]  # fmt: skip
WISHES: list[Any] = [
    *VALUES, 1000, 1001, -1000, -1001, 100, 101, 0.001, 316_224_000, 316_224_001, -0.0, "a" * 64, "a" * 65,
    "a b", "default", "api.echo", "ü", False,
]  # fmt: skip


@pytest.mark.parametrize("member", OPTIONS)
async def test_what_the_submissions_schema_admits_is_accepted_and_nothing_else(
    document: Json, api: Api, member: str
) -> None:
    operation = document["paths"]["/jobs"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    await _agree(_verdict(document, schema), api, "/jobs", member, {"task": "api.echo"})


@pytest.mark.parametrize("task", ["api.words", "api.fail", "api.wait", "api.keyword", "api.echo"])
async def test_what_a_submission_may_have_as_arguments_depends_on_its_task(
    document: Json, api: Api, task: str
) -> None:
    operation = document["paths"]["/jobs"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    values = [
        {}, [], {"text": "a"}, {"text": 1}, {"text": "a", "minimum": 2}, ["a"], ["a", 2], ["a", "b"],
        ["a", 2, 3], [1], {"message": "a"}, {"number": 1}, {"value": [1]}, None,
    ]  # fmt: skip
    await _agree(_verdict(document, schema), api, "/jobs", "args", {"task": task}, values)
    await _agree(_verdict(document, schema), api, "/jobs", "task", {}, [task])


async def test_both_ways_to_say_when_exclude_each_other(document: Json, api: Api) -> None:
    schema = document["paths"]["/jobs"]["post"]["requestBody"]["content"]["application/json"]
    base = {"task": "api.echo", "eta": "2026-11-24T09:30:00Z"}
    await _agree(_verdict(document, schema["schema"]), api, "/jobs", "countdown", base, [1])


async def _agree(
    verdict: Draft202012Validator,
    api: Api,
    path: str,
    member: str,
    others: Json,
    values: list[Any] | None = None,
) -> None:
    """Hold the schema's verdict on each body against the server's."""
    wrong = []
    for value in VALUES if values is None and path != "/jobs" else values or WISHES:
        body = {**others, member: value}
        admitted = verdict.is_valid(body)
        answer = await api.client.post(path, json=body)
        assert answer.status_code in (202, 404, 422), (body, await answer.get_data())
        if admitted != (answer.status_code == 202):
            wrong.append((value, "admitted" if admitted else "not admitted", answer.status_code))
    assert not wrong


def test_the_table_of_bodies_tries_every_kind_of_json() -> None:
    kinds = {type(value) for value in VALUES}
    assert {type(None), bool, int, float, str, list, dict} <= kinds
    assert all(not isinstance(v, float) or math.isfinite(v) for v in VALUES)
