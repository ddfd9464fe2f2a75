"""What `serve` answers itself, whatever app it serves."""

import asyncio
from typing import Any

import pytest
from quart import Quart

from jobs import Jobs
from service.front import Front


async def ask(front: Front, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
    sent: list[dict[str, Any]] = []
    arriving = [{"type": "http.request", "body": b"", "more_body": False}]
    answered = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if arriving:
            return arriving.pop()
        await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            answered.set()

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }
    await front(scope, receive, send)
    headers = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(part.get("body", b"") for part in sent[1:])


@pytest.fixture
def front() -> Front:
    """Around an app whose `Jobs` is not open."""
    app = Quart(__name__)
    return Front(app, Jobs(app), max_requests=10)


async def test_a_process_is_alive_before_it_is_ready(front: Front) -> None:
    assert (await ask(front, "GET", "/livez"))[::2] == (200, b'{"status": "ok"}')
    status, headers, body = await ask(front, "GET", "/readyz")
    assert (status, headers["content-type"]) == (503, "application/problem+json")
    assert b"Jobs is not open" in body
    assert headers["retry-after"] == "1"


async def test_a_process_that_stops_is_not_ready(front: Front) -> None:
    front.end_streams()
    status, _, body = await ask(front, "GET", "/readyz")
    assert status == 503
    assert b"shutting down" in body


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/readyz"), ("GET", "/readyz/"), ("GET", "/")]
)
async def test_everything_else_is_the_apps(front: Front, method: str, path: str) -> None:
    assert (await ask(front, method, path))[0] == 404
