"""Celery tasks registered as ours, run by the inline engine."""

from pathlib import Path
from typing import Any

import pytest
from flask import g

pytest.importorskip("celery", reason="needs the extra celery")

from jobs import ConfigurationError, InvalidArguments, JobFailed, Jobs, Registry, celery_task

APP = "tests.apps.celery_shop:app"


def adopted(name: str, **options: Any) -> Any:
    return celery_task(name, app=APP, registry=Registry(), **options)


@pytest.fixture(autouse=True)
def nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a message was sent")

    monkeypatch.setattr("celery.app.task.Task.apply_async", refuse)


async def run(task: Any, path: Path, *args: Any) -> tuple[str, int, Any]:
    """The id, how many attempts it took, and the result, which may be an error."""
    registry = Registry()
    registry.add(task)
    async with Jobs(
        engine="inline", lanes=1, registry=registry, database=str(path / "jobs.db")
    ) as jobs:
        handle = await task.delay(*args)
        try:
            result = await handle.result(timeout=20)
        except JobFailed as error:
            result = error
        return handle.id, len(await jobs.attempts(handle.id)), result


async def test_a_celery_task_is_a_task_of_the_same_name_and_signature(tmp_path: Path) -> None:
    task = adopted("shop.total")
    assert task.name == "shop.total"
    assert (await run(task, tmp_path, [10, 20]))[2] == pytest.approx(36)
    with pytest.raises(InvalidArguments, match="/prices"):
        task.bind(["nothing"], {})
    assert task([10, 20], tax=0) == 30


async def test_retry_counts_as_in_celery_and_waits_in_our_store(tmp_path: Path) -> None:
    job_id, attempts, result = await run(adopted("shop.again"), tmp_path, 2)
    assert (attempts, result) == (3, [job_id, 2])


async def test_retries_end_with_the_tasks_own_error(tmp_path: Path) -> None:
    _, attempts, error = await run(adopted("shop.again"), tmp_path, 99)
    assert (attempts, "ValueError: not yet" in str(error)) == (3, True)


async def test_autoretry_is_kept(tmp_path: Path) -> None:
    _, attempts, error = await run(adopted("shop.auto"), tmp_path, str(tmp_path / "missing"))
    assert (attempts, "FileNotFoundError" in str(error)) == (2, True)


async def test_reject_ends_the_job(tmp_path: Path) -> None:
    _, attempts, error = await run(adopted("shop.refuse", max_attempts=3), tmp_path)
    assert (attempts, "Reject: " in str(error)) == (1, True)


@pytest.mark.parametrize(
    ("name", "app", "words"),
    [
        ("shop.none", APP, r"has no task 'shop\.none'; it has shop\.again, shop\.auto"),
        ("shop.total", "tests.apps.celery_shop", "module:attribute"),
    ],
)
def test_what_is_not_there_is_named(name: str, app: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        celery_task(name, app=app, registry=Registry())


async def test_a_request_context_task_sees_the_request_that_the_job_came_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.apps import flask_celery_app as shop

    monkeypatch.setattr(shop.app, "extensions", {})
    monkeypatch.setattr(shop.app, "teardown_appcontext_funcs", [])
    monkeypatch.setattr(shop.app, "_got_first_request", False)
    monkeypatch.setattr("jobs.frameworks.flask.open_with", lambda *_: None)  # opened below, once
    registry = Registry()
    see = celery_task(
        "tests.apps.flask_celery_app.see",
        app="tests.apps.flask_celery_app:celery",
        registry=registry,
    )
    jobs = Jobs(
        shop.app, engine="inline", lanes=1, registry=registry, database=str(tmp_path / "jobs.db")
    )
    async with jobs:
        with shop.app.test_request_context("/here?q=1", headers={"X-One": "1"}):
            g.tenant = "acme"
            handle = await see.delay(7)
        seen = await handle.result(timeout=20)
    assert (seen["path"], seen["query"], seen["tenant"]) == ("/here", ["1"], "acme")
    assert (seen["number"], seen["id_is_known"]) == (7, True)
