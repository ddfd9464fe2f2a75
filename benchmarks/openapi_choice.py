"""Own route table, or quart-schema: what each costs a request.

    pip install 'quart-jobs[bench]'
    python benchmarks/openapi_choice.py

One route in four forms, called in this process without a server: nothing but the answer; the body
validated by hand; through this project's route table; through quart-schema's decorators. The forms take
turns, and the best round of each counts.
"""

import asyncio
import time
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from quart import Quart, Response, request
from quart_schema import QuartSchema, validate_request, validate_response

from service.api.body import read_json
from service.api.render import json_response
from service.api.routes import Answer, Routes

ROUNDS, REQUESTS = 15, 1_000


class Text(BaseModel):
    """What comes in."""

    text: str
    minimum: int = 1


class Job(BaseModel):
    """What goes out."""

    id: str
    task: str
    state: str
    attempt: int
    links: dict[str, str]


def job() -> Job:
    """Any job."""
    return Job(id="1", task="text.stats", state="PENDING", attempt=0, links={"self": "/jobs/1"})


def empty() -> Quart:
    """Only the answer, which never changes."""
    app, answer = Quart("empty"), job().model_dump_json().encode()

    @app.post("/jobs")
    async def post() -> Response:
        return Response(answer, 202, content_type="application/json")

    return app


def by_hand() -> Quart:
    """Pydantic called in the view."""
    app = Quart("by_hand")

    @app.post("/jobs")
    async def post() -> Response:
        Text.model_validate_json(await request.get_data(parse_form_data=False))
        return Response(job().model_dump_json(), 202, content_type="application/json")

    return app


def own_table() -> Quart:
    """Declared once in a route table, from which OpenAPI is written too."""
    app, routes = Quart("own_table"), Routes("Bench")

    @routes.add("POST", "/jobs", "Submit", body=Text, answers=(Answer(202, "Accepted.", Job),))
    async def post() -> Response:
        Text.model_validate_json(await read_json(1_000_000))
        return json_response(job().model_dump_json().encode(), 202)

    for route in routes:
        app.add_url_rule(route.path, route.name, route.view, methods=[route.method])
    return app


def quart_schema() -> Quart:
    """Decorated for quart-schema, its own pages off."""
    app = Quart("quart_schema")
    QuartSchema(app, swagger_ui_path=None, redoc_ui_path=None, scalar_ui_path=None)

    @app.post("/jobs")
    @validate_request(Text)
    @validate_response(Job, 202)
    async def post(data: Text) -> tuple[Job, int]:
        return job(), 202

    return app


BODY = b'{"text": "to be or not to be", "minimum": 2}'
SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.1"},
    "http_version": "1.1",
    "method": "POST",
    "scheme": "http",
    "path": "/jobs",
    "raw_path": b"/jobs",
    "query_string": b"",
    "root_path": "",
    "headers": [
        (b"host", b"127.0.0.1:8000"),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(BODY)).encode()),
    ],
    "client": ("127.0.0.1", 50000),
    "server": ("127.0.0.1", 8000),
    "extensions": {},
    "state": {},
}


async def call(app: Any) -> int:
    """One request; the status."""
    messages = [{"type": "http.request", "body": BODY, "more_body": False}]
    status, answered = 0, asyncio.Event()

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)
        if message["type"] == "http.response.body" and not message["more_body"]:
            answered.set()

    await app({**SCOPE}, receive, send)
    return status


async def measure(app: Quart) -> float:
    """Requests per second of one round."""
    begin = time.perf_counter()
    for _ in range(REQUESTS):
        status = await call(app)
    elapsed = time.perf_counter() - begin
    assert status == 202, status
    return REQUESTS / elapsed


async def main() -> None:
    """Measure and print."""
    apps = [empty(), by_hand(), own_table(), quart_schema()]
    best = dict.fromkeys((app.name for app in apps), 0.0)
    for _ in range(ROUNDS):
        for app in apps:
            best[app.name] = max(best[app.name], await measure(app))
    print(
        f"quart {version('quart')}, quart-schema {version('quart-schema')}, pydantic {version('pydantic')}"
    )
    for name, rate in best.items():
        print(
            f"{name:14}{rate:8.0f} requests/s {1e6 / rate:7.1f} µs {rate / best['empty']:6.0%} of empty"
        )


if __name__ == "__main__":
    asyncio.run(main())
