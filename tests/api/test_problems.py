"""What a client is told that asked for something wrong; nothing is ever stored by it."""

import json
import logging
from typing import Any

import pytest
from quart import Quart

from jobs.errors import StoreBusy, StoreError, StoreFull
from service.api.problems import TYPES
from service.api.schemas import ProblemObject
from tests.api.conftest import Api, problem

DEEP = b'{"value":' + b"[" * 2000 + b"]" * 2000 + b"}"
BOTH = pytest.mark.parametrize("path", ["/jobs", "/tasks/api.echo/jobs"])


async def _post(api: Api, path: str, body: bytes, media: str | None = "application/json") -> Any:
    """Post the arguments `body`, wrapped for `/jobs`."""
    if path == "/jobs":
        body = b'{"task": "api.echo", "args": ' + body + b"}"
    headers = {} if media is None else {"Content-Type": media}
    return await api.client.post(path, data=body, headers=headers)


@pytest.fixture(autouse=True)
async def _nothing_is_stored(api: Api) -> Any:
    yield
    assert (await (await api.client.get("/jobs")).get_json())["jobs"] == []


@BOTH
@pytest.mark.parametrize(
    "body",
    [b"{", b"nope", b"", b'{"value": "\xff"}', b"{'value': 1}",
     b'{"value": 1,}', b'{"value": "a\nb"}', b'{"value": 01}'],
)  # fmt: skip
async def test_a_body_that_is_not_json_is_malformed(api: Api, path: str, body: bytes) -> None:
    await problem(await _post(api, path, body), 400, "malformed-json")


@BOTH
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"value": {"a/b": ["x\\u0000"]}}', "/value/a~1b/0"),
        (b'{"value": ["\\ud800"]}', "/value/0"),
        (b'{"value": 1e999}', "/value"),
        (b'{"value": NaN}', "/value"),
        (b'{"value": [-Infinity]}', "/value/0"),
        (DEEP, ""),
    ],
)
async def test_json_that_cannot_be_kept_is_pointed_at(
    api: Api, path: str, body: bytes, pointer: str
) -> None:
    document = await problem(await _post(api, path, body), 422, "invalid-arguments")
    prefix = "/args" if path == "/jobs" and pointer else ""
    assert [error["pointer"] for error in document["errors"]] == [prefix + pointer]


@BOTH
@pytest.mark.parametrize(
    "media",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "+json"],
)
async def test_a_body_that_is_not_declared_json_is_refused(
    api: Api, path: str, media: str | None
) -> None:
    document = await problem(await _post(api, path, b"{}", media), 415, "unsupported-media-type")
    assert "Content-Type: application/json" in document["detail"]


@BOTH
@pytest.mark.parametrize(
    "media", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"]
)
async def test_a_body_declared_json_in_any_spelling_is_read(
    api: Api, path: str, media: str
) -> None:
    answer = await _post(api, path, b'{"no": 1}', media)
    await problem(answer, 422, "invalid-arguments")


@pytest.mark.parametrize(
    ("args", "pointers"),
    [
        ({}, ["/text"]),
        ({"text": 1}, ["/text"]),
        ({"text": "a", "minimum": "1"}, ["/minimum"]),
        ({"text": None, "minimum": 1.5}, ["/text", "/minimum"]),
        ({"text": "a", "maximum": 1}, ["/maximum"]),
        ({"text": "a", "a~b/c": 1}, ["/a~0b~1c"]),
    ],
)
async def test_wrong_arguments_are_pointed_at(
    api: Api, args: dict[str, Any], pointers: list[str]
) -> None:
    answer = await api.client.post("/tasks/api.words/jobs", json=args)
    document = await problem(answer, 422, "invalid-arguments")
    assert [error["pointer"] for error in document["errors"]] == pointers
    answer = await api.client.post("/jobs", json={"task": "api.words", "args": args})
    document = await problem(answer, 422, "invalid-arguments")
    assert [error["pointer"] for error in document["errors"]] == [f"/args{p}" for p in pointers]


async def test_wrong_arguments_in_order_are_pointed_at_by_number(api: Api) -> None:
    answer = await api.client.post("/jobs", json={"task": "api.words", "args": ["a", "b", 3]})
    document = await problem(answer, 422, "invalid-arguments")
    assert all(error["pointer"].startswith("/args/") for error in document["errors"])


@pytest.mark.parametrize(
    ("members", "pointer"),
    [
        ({"colour": "red"}, "/colour"),
        ({"args": 1}, "/args"),
        ({"args": None}, "/args"),
        ({"queue": "a b"}, "/queue"),
        ({"queue": "a\n"}, "/queue"),
        ({"queue": ""}, "/queue"),
        ({"queue": 1}, "/queue"),
        ({"priority": 1.5}, "/priority"),
        ({"priority": True}, "/priority"),
        ({"priority": 10**9}, "/priority"),
        ({"countdown": -1}, "/countdown"),
        ({"countdown": "1"}, "/countdown"),
        ({"countdown": None}, "/countdown"),
        ({"eta": "2026-11-24T09:30:00"}, "/eta"),
        ({"eta": 1764000000}, "/eta"),
        ({"countdown": 1, "eta": "2026-11-24T09:30:00Z"}, "/eta"),
        ({"expires": "soon"}, "/expires"),
        ({"expires": [1]}, "/expires"),
        ({"timeout": 0}, "/timeout"),
        ({"timeout": -1}, "/timeout"),
        ({"timeout": 10**400}, "/timeout"),
        ({"max_attempts": 0}, "/max_attempts"),
        ({"max_attempts": 1000}, "/max_attempts"),
        ({"task": 1}, "/task"),
    ],
)
async def test_a_wrong_member_of_a_submission_is_pointed_at(
    api: Api, members: dict[str, Any], pointer: str
) -> None:
    answer = await api.client.post("/jobs", json={"task": "api.echo", **members})
    document = await problem(answer, 422, "invalid-arguments")
    assert [error["pointer"] for error in document["errors"]] == [pointer]
    assert pointer in document["detail"]


@pytest.mark.parametrize("body", [b"[]", b"1", b'"api.echo"', b"null"])
@BOTH
async def test_a_body_that_is_no_object_is_refused(api: Api, path: str, body: bytes) -> None:
    answer = await api.client.post(path, data=body, headers={"Content-Type": "application/json"})
    document = await problem(answer, 422, "invalid-arguments")
    assert [error["pointer"] for error in document["errors"]] == [""]
    assert "object" in document["detail"]


async def test_a_submission_without_a_task_is_refused(api: Api) -> None:
    document = await problem(await api.client.post("/jobs", json={}), 422, "invalid-arguments")
    assert document["errors"] == [{"pointer": "/task", "detail": "is missing"}]


@pytest.mark.parametrize("name", ["api.word", "api.wordz"])
async def test_an_unknown_task_is_not_found_and_the_nearest_are_named(api: Api, name: str) -> None:
    for answer in (
        await api.client.post("/jobs", json={"task": name}),
        await api.client.post(f"/tasks/{name}/jobs", json={}),
        await api.client.get(f"/tasks/{name}"),
    ):
        document = await problem(answer, 404, "unknown-task")
        assert "api.words" in document["detail"]


@BOTH
async def test_too_much_is_refused(api: Api, path: str) -> None:
    body = b'{"value": "' + b"x" * 3_000_000 + b'"}'
    document = await problem(await _post(api, path, body), 413, "too-large")
    assert "1048576" in document["detail"]
    # Within the body's limit, over that of arguments.
    for text in (b"x" * 500_000, "é".encode() * 140_000):
        body = b'{"value": "' + text + b'"}'
        document = await problem(await _post(api, path, body), 413, "too-large")
        assert "max_args_bytes" in document["detail"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/jobs", "GET, HEAD, OPTIONS, POST"),
        ("QUERY", "/jobs", "GET, HEAD, OPTIONS, POST"),
        ("DELETE", "/jobs", "GET, HEAD, OPTIONS, POST"),
        ("POST", "/jobs/x", "DELETE, GET, HEAD, OPTIONS"),
        ("PATCH", "/jobs/x/result", "GET, HEAD, OPTIONS"),
        ("GET", "/tasks/api.echo/jobs", "OPTIONS, POST"),
        ("POST", "/livez", "GET, HEAD, OPTIONS"),
        ("TRACE", "/docs", "GET, HEAD, OPTIONS"),
    ],
)
async def test_a_wrong_method_is_refused_and_the_right_ones_are_named(
    api: Api, method: str, path: str, allow: str
) -> None:
    answer = await api.client.open(path, method=method)
    document = await problem(answer, 405, "method-not-allowed")
    assert answer.headers["Allow"] == allow
    assert allow in document["detail"]
    answer = await api.client.options(path)
    assert (answer.status_code, answer.headers["Allow"]) == (200, allow)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nothing",
        "/jobs/",
        "/tasks//jobs",
        "/jobs/a/b",
        "/docs/secret",
        "/problems/no",
        "/%00",
    ],
)
async def test_an_address_where_nothing_is_answers_with_a_problem(api: Api, path: str) -> None:
    for method in ("GET", "POST"):
        answer = await api.client.open(path, method=method)
        if answer.status_code != 405:
            document = await problem(answer, 404, "not-found")
            assert document["instance"].startswith("/")


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (StoreBusy("10,000 writes are waiting"), 503, "busy"),
        (StoreFull("the disk is full"), 507, "storage-full"),
        (StoreError("the database cannot be read"), 503, "unavailable"),
    ],
)
async def test_a_store_in_trouble_is_told_as_what_it_is(
    api: Api, app: Quart, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, slug: str
) -> None:
    async def fails(*_: Any) -> None:
        raise error

    store = app.extensions["jobs"].store
    with monkeypatch.context() as patch:
        patch.setattr(store, "add", fails)
        patch.setattr(store, "check", fails)
        answer = await api.client.post("/jobs", json={"task": "api.echo"})
        document = await problem(answer, status, slug)
        assert document["detail"] == str(error)
        assert ("Retry-After" in answer.headers) == (status == 503)
        await problem(await api.client.get("/readyz"), 503, "unavailable")
        assert (await api.client.get("/livez")).status_code == 200


async def test_an_unexpected_error_is_logged_and_not_shown(
    api: Api, app: Quart, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: Any) -> None:
        raise LookupError("canary")

    app.config["PROPAGATE_EXCEPTIONS"] = False
    with monkeypatch.context() as patch:
        patch.setattr(app.extensions["jobs"].store, "add", fails)
        with caplog.at_level(logging.ERROR):
            answer = await api.client.post("/jobs", json={"task": "api.echo"})
    document = await problem(answer, 500, "internal-error")
    assert "canary" not in json.dumps(document)
    assert "canary" in caplog.text


async def test_each_kind_of_problem_is_explained_at_its_address(api: Api) -> None:
    for slug, kind in TYPES.items():
        answer = await api.client.get(f"/problems/{slug}")
        assert answer.status_code == 200
        page = await answer.get_data(as_text=True)
        assert kind.title in page
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


async def test_problems_have_the_published_shape(api: Api) -> None:
    for answer in (
        await api.client.post("/jobs", json={}),
        await api.client.get("/jobs/x"),
        await api.client.get("/nothing"),
    ):
        ProblemObject.model_validate(await answer.get_json())
