"""The whole way of a job in a Flask app: request, row, child process, result."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from jobs import NotRunning
from tests.apps import flask_app
from tests.apps.flask_app import app, child, jobs
from tests.running import ROOT


@pytest.fixture(params=["lanes", "inline"])
def client(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FlaskClient]:
    monkeypatch.setenv("JOBS_DATABASE", str(tmp_path / "jobs.db"))
    monkeypatch.setenv("JOBS_ENGINE", request.param)
    monkeypatch.setenv("JOBS_LANES", "2")
    with jobs:
        yield app.test_client()


def result(client: FlaskClient, name: str, **how: Any) -> Any:
    answer = client.post(f"/run/{name}", **how)
    assert answer.status_code == 202, answer.get_data()
    return client.get(f"/result/{answer.json['id']}").json["result"]  # type: ignore[index]


def test_a_job_sees_the_request_that_submitted_it(client: FlaskClient) -> None:
    client.post("/login")
    answer = client.patch(
        "/see/%C3%BCber?q=1&q=2",
        base_url="https://example.org/behind",
        headers=[("X-Repeated", "a"), ("X-Repeated", "b"), ("X-Tenant", "t1")],
        environ_base={"REMOTE_ADDR": "192.0.2.7"},
    )
    assert answer.status_code == 202, answer.get_data()
    assert answer.json["state"] == "PENDING"  # type: ignore[index]
    seen = client.get(f"/result/{answer.json['id']}").json["result"]  # type: ignore[index]
    assert seen == {
        "method": "PATCH",
        "path": "/see/über",
        "url": "https://example.org/behind/see/über?q=1&q=2",
        "remote_addr": "192.0.2.7",
        "cookies": [],
        "view_args": {"item": "über"},
        "repeated": "a, b",
        "query": ["1", "2"],
        "session_user": None,
        "tenant": "t1",
        "user_name": "Ann Å",
        "hidden": False,
        "link": "https://example.org/behind/page/%C3%BC",
        "app": "tests.apps.flask_app",
        "attempt": 1,
        "runs_its_own_loop": True,
    }


def test_a_job_reads_the_session(client: FlaskClient) -> None:
    client.post("/login")
    answer = client.patch("/see/x", headers={"X-Repeated": ""})
    seen = client.get(f"/result/{answer.json['id']}").json["result"]  # type: ignore[index]
    assert (seen["cookies"], seen["session_user"]) == (["session"], "ann")


def test_an_async_task_sees_the_request_too(client: FlaskClient) -> None:
    assert result(client, "see_async") == "POST /run/see_async"


def test_an_async_view_awaits_the_handle(client: FlaskClient) -> None:
    assert client.post("/async/child").json == {"result": "POST http://localhost/async/child"}


@pytest.mark.parametrize("parent", ["parent", "parent_async"])
def test_a_job_submitted_by_a_job_keeps_the_original_request(
    client: FlaskClient, parent: str
) -> None:
    inner = client.get(f"/result/{result(client, parent)}")
    assert inner.json == {"result": f"POST http://localhost/run/{parent}"}


def test_teardown_functions_run_where_the_job_ran(client: FlaskClient) -> None:
    flask_app.torn_down.clear()
    ran_before = result(client, "teardowns")
    assert result(client, "teardowns") >= ran_before
    with app.test_request_context("/here"):
        child.apply()
    assert "/here" in flask_app.torn_down


def test_after_request_functions_run_when_the_task_asks(client: FlaskClient) -> None:
    flask_app.after_request_ran.clear()
    with app.test_request_context("/"):
        handle = flask_app.with_after_request.apply()
    assert jobs.run(handle.result()) == "made"
    assert flask_app.after_request_ran == ["made"]


def test_a_job_may_use_the_apps_test_client(client: FlaskClient) -> None:
    assert result(client, "serves_a_request_itself") == "x"


def test_outside_a_request_a_job_has_an_app_context_only(client: FlaskClient) -> None:
    assert jobs.run(flask_app.without_request.delay().result(timeout=20)) is True


def test_jobs_that_were_opened_in_a_request_do_not_run_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBS_DATABASE", str(tmp_path / "jobs.db"))
    monkeypatch.setenv("JOBS_ENGINE", "inline")
    with app.test_request_context("/"):
        jobs.__enter__()
    try:
        assert jobs.run(flask_app.without_request.delay().result(timeout=20)) is True
    finally:
        jobs.__exit__(None, None, None)


def test_reading_the_body_in_a_job_says_that_it_does_not_travel(client: FlaskClient) -> None:
    answer = client.post("/run/reads_body")
    failed = client.get(f"/result/{answer.json['id']}")  # type: ignore[index]
    assert "carries no body" in failed.get_data(as_text=True)


def test_what_cannot_travel_fails_the_submit_and_names_itself(client: FlaskClient) -> None:
    answer = client.post("/cannot")
    assert "g.tenant (object) cannot travel" in answer.get_data(as_text=True)


def test_outside_a_request_nothing_opens_by_itself() -> None:
    with app.app_context(), pytest.raises(NotRunning, match="first request"):
        child.delay()
    assert not jobs.is_open


FIRST_REQUEST = """
import sys, threading
from tests.apps.flask_app import app, child, jobs

if __name__ == "__main__":
    assert not jobs.is_open
    clients = [app.test_client() for _ in range(8)]
    answers = []
    def ask(client):
        answers.append(client.post("/run/child").status_code)
    threads = [threading.Thread(target=ask, args=[client]) for client in clients]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(sorted(set(answers)), jobs.is_open)
    answer = app.test_client().post("/run/child").json
    print(app.test_client().get(f"/result/{answer['id']}").json["result"])
    {end}
"""

AT_FORK = """
import os
pid = os.fork()
if pid == 0:
    print(app.test_client().post("/run/child").get_data(as_text=True), flush=True)
    os._exit(0)
print(os.waitpid(pid, 0)[1], app.test_client().post("/run/child").status_code)
"""


@pytest.mark.parametrize(
    ("end", "code", "printed"),
    [
        ("", 0, []),
        ("sys.exit(3)", 3, []),
        (
            "\n    ".join(AT_FORK.strip().splitlines()),
            0,
            ["Jobs was opened before this process was forked", "0 202"],
        ),
    ],
    ids=["end", "exit", "fork"],
)
def test_the_first_request_opens_once_and_the_end_of_the_process_closes(
    tmp_path: Path, end: str, code: int, printed: list[str]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(FIRST_REQUEST.replace("{end}", end))
    ended = subprocess.run(
        [sys.executable, "-u", "-W", "error", "-W", "ignore::DeprecationWarning", "script.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "JOBS_LANES": "1", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ended.stderr == ""
    first, second, *more = ended.stdout.splitlines()
    assert (first, second) == ("[202] True", "POST http://localhost/run/child")
    assert len(more) == len(printed), more
    assert all(line.startswith(start) for line, start in zip(more, printed, strict=True)), more
    assert ended.returncode == code
