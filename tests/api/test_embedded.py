"""The blueprint in someone else's app, under a prefix and behind a proxy."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from quart import Quart, abort

import tests.api.tasks  # noqa: F401 - registers the tasks
from jobs import Jobs
from service.api import jobs_api
from tests.api.conftest import problem


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Quart]:
    app = Quart("host")
    Jobs(app, engine="inline", lanes=1, database=str(tmp_path / "jobs.db"))
    app.register_blueprint(jobs_api(url_prefix="/api/v1"))

    @app.get("/own")
    async def own() -> str:
        abort(418)

    @app.get("/own/<int:number>")
    async def numbered(number: int) -> str:
        return str(number)

    async with app.test_app():
        yield app


async def test_links_carry_the_prefix(host: Quart) -> None:
    client = host.test_client()
    for path, body in {
        "/api/v1/jobs": {"task": "api.echo", "countdown": 60},
        "/api/v1/tasks/api.echo/jobs": {},
    }.items():
        answer = await client.post(path, json=body)
        job = await answer.get_json()
        assert answer.headers["Location"] == f"/api/v1/jobs/{job['id']}"
        assert job["links"]["result"] == f"/api/v1/jobs/{job['id']}/result"
        assert (await client.get(job["links"]["self"])).status_code == 200
    page = await (await client.get("/api/v1/jobs?limit=1")).get_json()
    assert page["links"]["next"].startswith("/api/v1/jobs?limit=1&cursor=")
    assert (await client.get(page["links"]["next"])).status_code == 200
    listed = await (await client.get("/api/v1/tasks")).get_json()
    assert listed["tasks"][0]["links"]["self"].startswith("/api/v1/tasks/")


async def test_links_carry_the_proxys_prefix(host: Quart) -> None:
    client = host.test_client()
    answer = await client.post(
        "/out%20side/api/v1/jobs", json={"task": "api.echo"}, root_path="/out side"
    )
    job = await answer.get_json()
    assert answer.headers["Location"] == f"/out%20side/api/v1/jobs/{job['id']}"
    answer = await client.get("/out%20side/api/v1/jobs/x", root_path="/out side")
    document = await problem(answer, 404, "unknown-job")
    assert document["type"] == "/out%20side/api/v1/problems/unknown-job"
    assert document["instance"] == "/out%20side/api/v1/jobs/x"


async def test_the_blueprints_errors_are_problems(host: Quart) -> None:
    client = host.test_client()
    document = await problem(await client.get("/api/v1/jobs/x"), 404, "unknown-job")
    assert document["type"] == "/api/v1/problems/unknown-job"
    assert (await client.get(document["type"])).status_code == 200
    answer = await client.put("/api/v1/jobs/x")
    document = await problem(answer, 405, "method-not-allowed")
    assert document["type"] == "/api/v1/problems/method-not-allowed"


async def test_the_hosts_own_errors_stay_the_hosts(host: Quart) -> None:
    client = host.test_client()
    for path, status in {"/own": 418, "/none": 404, "/own/x": 404}.items():
        answer = await client.get(path)
        assert (answer.status_code, answer.mimetype) == (status, "text/html")
    assert (await client.post("/own")).mimetype == "text/html"


async def test_a_refusal_by_the_host_is_a_problem_with_its_headers(host: Quart) -> None:
    @host.before_request
    def closed() -> None:
        abort(401, "sign in first")

    answer = await host.test_client().get("/api/v1/jobs")
    document = await answer.get_json()
    assert (answer.status_code, answer.content_type) == (401, "application/problem+json")
    assert document["type"] == "about:blank"
    assert document["detail"] == "sign in first"


async def test_the_document_and_its_page_know_the_prefix(host: Quart) -> None:
    client = host.test_client()
    document: Any = await (await client.get("/api/v1/openapi.json")).get_json()
    assert document["servers"] == [{"url": "/api/v1"}]
    assert "/tasks/api.echo/jobs" in document["paths"]
    assert (await client.get("/api/v1/docs")).status_code == 200
    assert (await client.get("/api/v1/docs/docs.js")).status_code == 200


async def test_two_prefixes_serve_one_app(host: Quart) -> None:
    app = Quart("twice")
    app.register_blueprint(jobs_api("inside", url_prefix="/inside"))
    app.register_blueprint(jobs_api("outside", url_prefix="/outside"))
    assert (await app.test_client().get("/inside/livez")).status_code == 200
    assert (await app.test_client().get("/outside/livez")).status_code == 200


async def test_an_app_without_jobs_is_told_so() -> None:
    app = Quart("bare")
    app.register_blueprint(jobs_api())
    document = await problem(await app.test_client().get("/jobs"), 503, "unavailable")
    assert "Jobs(app)" in document["detail"]


async def test_an_app_that_is_not_open_is_unavailable(tmp_path: Path) -> None:
    app = Quart("shut")
    Jobs(app, database=str(tmp_path / "jobs.db"))
    app.register_blueprint(jobs_api())
    client = app.test_client()
    for answer in (
        await client.get("/readyz"),
        await client.get("/jobs"),
        await client.post("/jobs", json={"task": "api.echo"}),
        await client.get("/jobs/x"),
        await client.delete("/jobs/x"),
    ):
        await problem(answer, 503, "unavailable")
    assert list(tmp_path.iterdir()) == []
