"""The guard around an app of one's own, under any server."""

import json
from typing import Any

import pytest
from hypercorn.middleware import ProxyFixMiddleware
from quart import Quart

from jobs import ConfigurationError
from jobs.settings import Settings
from service.guard import Guard, client_address


@pytest.fixture
def app() -> Quart:
    app = Quart(__name__)

    @app.get("/")
    async def index() -> str:
        return "fine"

    @app.websocket("/socket")
    async def socket() -> None:
        raise AssertionError("it was not to get here")

    return app


def guarded(app: Quart, **settings: Any) -> Quart:
    app.asgi_app = Guard(app.asgi_app, Settings(**settings))  # type: ignore[method-assign]
    return app


async def test_an_app_is_guarded_by_one_line(app: Quart) -> None:
    started = []

    @app.before_serving
    async def start() -> None:
        started.append(1)

    async with guarded(app, max_headers=5).test_app() as running:
        client = running.test_client()
        assert started == [1]
        assert await (await client.get("/")).get_data() == b"fine"
        answer = await client.get("/", headers={f"X-{number}": "1" for number in range(5)})
        assert (answer.status_code, answer.content_type) == (431, "application/problem+json")
        assert (await answer.get_json())["type"] == "/problems/headers-too-large"


async def test_settings_are_those_of_the_environment(
    app: Quart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBS_MAX_URL_BYTES", "10")
    app.asgi_app = Guard(app.asgi_app)  # type: ignore[method-assign]
    assert (await app.test_client().get("/")).status_code == 200
    assert (await app.test_client().get("/", query_string={"q": "x" * 10})).status_code == 414


async def test_a_rate_can_be_counted_for_whom_one_likes(app: Quart) -> None:
    def user(scope: Any) -> str:
        return str(dict(scope["headers"])[b"x-user"])

    app.asgi_app = Guard(app.asgi_app, Settings(rate_limit="1/h"), client=user)  # type: ignore[method-assign]
    for name, status in (("ann", 200), ("bob", 200), ("ann", 429)):
        answer = await app.test_client().get("/", headers={"X-User": name})
        assert answer.status_code == status
    assert answer.headers["Retry-After"] == "3600"
    assert (await app.test_client().get("/livez")).status_code == 404


async def test_behind_a_proxy_that_is_trusted_a_client_is_who_the_proxy_says(app: Quart) -> None:
    guard = Guard(app.asgi_app, Settings(rate_limit="1/h"))
    app.asgi_app = ProxyFixMiddleware(guard, mode="legacy", trusted_hops=1)  # type: ignore[method-assign]
    for address, status in (("192.0.2.1", 200), ("192.0.2.2", 200), ("192.0.2.1", 429)):
        answer = await app.test_client().get(
            "/", headers={"X-Forwarded-For": f"6.6.6.6, {address}"}
        )
        assert answer.status_code == status


async def test_a_websocket_is_refused_as_far_as_the_server_can(app: Quart) -> None:
    guard = Guard(app, Settings(max_headers=1))
    for extensions, kinds in (
        ({}, ["websocket.close"]),
        (
            {"websocket.http.response": {}},
            ["websocket.http.response.start", *["websocket.http.response.body"] * 2],
        ),
    ):
        sent: list[dict[str, Any]] = []
        scope = {
            "type": "websocket",
            "path": "/socket",
            "query_string": b"",
            "headers": [(b"host", b"a"), (b"x-one", b"1")],
            "http_version": "1.1",
            "extensions": extensions,
        }

        async def send(message: dict[str, Any], sent: list[dict[str, Any]] = sent) -> None:
            sent.append(message)

        await guard(scope, None, send)  # type: ignore[arg-type]
        assert [message["type"] for message in sent] == kinds
    assert sent[0]["status"] == json.loads(sent[1]["body"])["status"] == 431


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("192.0.2.1", 80), "192.0.2.1"),
        (("2001:db8:1:2:3:4:5:6", 80), "2001:db8:1:2::"),
        (("2001:db8:1:2:ffff::", 80), "2001:db8:1:2::"),
        (("::ffff:192.0.2.1", 80), "192.0.2.1"),
        (("fe80::1%eth0", 80), "fe80::"),
        (("192.0.2.1:4711", 80), "192.0.2.1:4711"),
        (None, ""),
    ],
)
def test_a_client_is_its_address(client: Any, address: str) -> None:
    assert client_address({"client": client, "headers": [(b"x-forwarded-for", b"a")]}) == address


@pytest.mark.parametrize("rate", ["100", "0/s", "100/d", "100/s\n", "fast"])
def test_a_rate_that_is_none_is_named(rate: str) -> None:
    with pytest.raises(ConfigurationError, match="JOBS_RATE_LIMIT"):
        Settings.load(arguments={"rate_limit": rate})
