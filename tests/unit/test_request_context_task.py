"""Celery tasks with their Flask request, in one process: `apply`, Celery's eager mode, plain calls."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("celery", reason="needs the extra celery")

from celery import Celery
from flask import Flask, has_request_context, request

from jobs.errors import BadContext, ConfigurationError, NotCarriable
from jobs.flask import RequestContextTask
from jobs.request_context_task import HEADER
from tests.apps import flask_celery_app
from tests.apps.flask_celery_app import USERS, app, celery, comes_back, see


@pytest.fixture
def _eager() -> Iterator[None]:
    celery.conf.task_always_eager = True
    yield
    celery.conf.task_always_eager = False


def header_of(task_id: str, path: str = "/", **how: Any) -> str:
    """The sealed request that a message for this task would have."""
    with app.test_request_context(path, **how):
        kept: str = see._with_request(None, task_id)[HEADER]
        return kept


def test_apply_runs_with_a_request_restored() -> None:
    client = app.test_client()
    client.post("/login", base_url="https://shop.example/behind")
    how: dict[str, Any] = {
        "base_url": "https://shop.example/behind",
        "query_string": "q=1&q=2",
        "headers": [("X-Tag", "1"), ("X-Tag", "2"), ("X-Tenant", "t1")],
    }
    seen = client.post("/apply", **how).json
    expected: Any = client.post("/seen", **how).json
    assert seen == expected | {
        "path": "/apply",
        "url": expected["url"].replace("/seen", "/apply"),
        "endpoint": "apply",
        "number": 5,
        "id_is_known": True,
    }


@pytest.mark.usefixtures("_eager")
def test_eager_mode_restores_too_and_retries_keep_the_request() -> None:
    with app.test_request_context("/here", base_url="http://shop.example"):
        flask_celery_app.g.tenant = "t1"
        log = comes_back.delay([]).get()
        assert (request.path, flask_celery_app.g.tenant) == ("/here", "t1")
    assert log == [f"{n} http://shop.example/here t1" for n in range(3)]


def test_a_plain_call_is_one_in_the_callers_context() -> None:
    with app.test_request_context("/here"):
        assert flask_celery_app.add(1, 2) == [3, "/here"]
        assert see(5)["path"] == "/here"
    with pytest.raises(RuntimeError, match="outside of request context"):
        flask_celery_app.add(1, 2)


def test_outside_a_request_a_task_has_an_app_context_only() -> None:
    assert flask_celery_app.without_request.apply().get() is True
    assert not has_request_context()


def test_a_carrier_takes_what_is_not_json() -> None:
    with app.test_request_context("/"):
        flask_celery_app.g.user = USERS[7]
        assert flask_celery_app.name_of_the_user.apply().get() == "Ann Å"


def test_what_cannot_travel_is_refused_when_it_is_sent() -> None:
    with app.test_request_context("/"):
        flask_celery_app.g.tenant = object()
        with pytest.raises(NotCarriable, match=r"g\.tenant"):
            see.delay(5)


def test_the_body_does_not_travel() -> None:
    with app.test_request_context("/", data=b"x"):
        failed = flask_celery_app.reads_body.apply()
    assert "carries no body" in str(failed.result)


def test_after_request_functions_run_when_the_task_asks() -> None:
    flask_celery_app.after_request_ran.clear()
    with app.test_request_context("/"):
        assert flask_celery_app.with_after_request.apply().get() == "made"
        see.apply((5,)).get()
    assert flask_celery_app.after_request_ran == ["made"]


def test_the_request_is_sealed_in_the_message() -> None:
    header = header_of("one", headers={"Authorization": "canary"})
    assert "canary" not in header
    assert "Authorization" not in header


def test_another_tasks_header_is_not_handed_on() -> None:
    with app.test_request_context("/now"):
        seen = see.apply((5,), task_id="two", headers={HEADER: header_of("one", "/then")}).get()
    assert seen["path"] == "/now"
    seen = see.apply((5,), task_id="one", headers={HEADER: header_of("one", "/then")}).get()
    assert seen["path"] == "/then"


@pytest.mark.parametrize("header", ["junk", 5, "AAAA"])
def test_a_message_that_is_not_ours_fails_the_task(header: Any) -> None:
    see.push_request(id="one", called_directly=False, headers={HEADER: header})
    try:
        with pytest.raises(BadContext):
            see(5)
    finally:
        see.pop_request()


def sending(**options: Any) -> Any:
    """A task of another Celery app."""
    other = Celery("other", broker="memory://", set_as_current=False)

    def path() -> str:
        return request.path

    return other.task(base=RequestContextTask, shared=False, **options)(path)


def test_a_task_without_its_flask_app_says_how_to_name_it() -> None:
    with pytest.raises(ConfigurationError, match=r"celery\.flask_app = app"):
        sending().apply(throw=True)


def test_the_flask_app_is_an_option_or_the_one_whose_context_is_there() -> None:
    with app.test_request_context("/here"):
        assert sending(flask_app=app).apply().get() == "/here"
        assert sending().apply().get() == "/here"


def test_an_app_without_a_secret_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = Flask("bare")
    with bare.test_request_context("/"):
        with pytest.raises(ConfigurationError, match="JOBS_SECRET_KEY, or the app's SECRET_KEY"):
            sending().apply()
        monkeypatch.setenv("JOBS_SECRET_KEY", "k")
        assert sending().apply().get() == "/"


def test_without_celery_only_the_task_class_is_missing() -> None:
    code = (
        "import sys; sys.modules['celery'] = None\n"
        "import jobs.flask\n"
        "try:\n    jobs.flask.RequestContextTask\n"
        "except ModuleNotFoundError as error:\n    print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "quart-jobs[celery]" in ran.stdout
