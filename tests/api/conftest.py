"""The ready-made app over the tests' tasks, with jobs run in this process."""

from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from quart import Quart
from quart.typing import TestClientProtocol

from jobs import Registry
from jobs.registry import default_registry
from jobs.settings import Settings
from service.app import create_app


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        database=str(tmp_path / "jobs.db"),
        tasks=("tests.api.tasks",),
        engine="inline",
        lanes=2,
        grace=1,
    )


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[Quart]:
    for module in settings.tasks:
        import_module(module)
    registry = (
        Registry()
    )  # other tests' modules, imported by now, have tasks that are not for this app
    for task in default_registry.values():
        if task.module in settings.tasks:
            registry.add(task)
    app = create_app(settings, registry=registry)
    async with app.test_app():
        yield app


@pytest.fixture
def client(app: Quart) -> TestClientProtocol:
    return app.test_client()


class Api:
    """A client with the few steps that most tests take."""

    def __init__(self, app: Quart) -> None:
        self._jobs = app.extensions["jobs"]
        self.client = app.test_client()

    async def submit(self, task: str, args: Any = None, **options: Any) -> dict[str, Any]:
        """The job object of a new job."""
        answer = await self.client.post("/jobs", json={"task": task, "args": args or {}, **options})
        assert answer.status_code == 202, await answer.get_data(as_text=True)
        job: dict[str, Any] = await answer.get_json()
        return job

    async def ended(self, job: dict[str, Any], **headers: str) -> dict[str, Any]:
        """The job object, once it has ended."""
        await self._jobs.ended(job["id"], timeout=20)
        answer = await self.client.get(job["links"]["self"], headers=headers)
        seen: dict[str, Any] = await answer.get_json()
        return seen


@pytest.fixture
def api(app: Quart) -> Api:
    return Api(app)


async def problem(answer: Any, status: int, slug: str) -> dict[str, Any]:
    """The problem document of an answer, which must be of this status and kind."""
    body = await answer.get_data()
    assert answer.status_code == status, body
    assert answer.content_type == "application/problem+json"
    document: dict[str, Any] = await answer.get_json()
    assert document["status"] == status
    assert document["type"].endswith(f"/problems/{slug}"), document
    assert document["title"]
    assert document["detail"]
    return document
