"""Keys and owners with real processes: the command line, lanes, and what other machines can reach."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs import key_ring
from jobs.keys import parts
from tests.running import Running, Starter, starter, until
from tests.streaming import stream

start = pytest.fixture(starter)

TASKS = """
from jobs import current_job, task

@task
def owner() -> str | None:
    return current_job.owner

@task
def breed() -> str:
    return owner.delay().id

@task
async def breed_async() -> str:
    return (await owner.delay()).id

@task
def fail() -> None:
    raise ValueError("as it should")
"""

APP = """
from quart import Quart
from jobs import Jobs, task
from service.api import Principal, jobs_api

@task
def owner() -> None:
    pass

def plain():
    app = Quart(__name__)
    Jobs(app, child="mine:plain()")
    return app

def hooked():
    app = plain()
    app.register_blueprint(jobs_api(principal=lambda request: None))
    return app
"""


def create(start: Starter, *arguments: str) -> str:
    """The text of a new key, which is all that comes to standard output."""
    made = subprocess.run(
        [sys.executable, "-P", "-m", "service.cli", "keys", "create", *arguments],
        cwd=start.folder,
        env=os.environ | start.env,
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    text = made.stdout.strip()
    assert parts(text)
    assert text not in made.stderr
    return text


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_key_made_while_the_service_runs_is_good_and_soon_is_not_once_revoked(
    start: Starter,
) -> None:
    start.write("mine.py", TASKS)
    service = start.serve("--tasks", "mine", JOBS_HEARTBEAT="0.2")
    assert service.get("/jobs").status == 200
    key = create(start, "--name", "ci")
    until(lambda: service.get("/jobs").status == 401)
    assert service.ask("GET", "/jobs", headers=bearer(key)).status == 200

    with stream(service, "/events", key=key) as events:
        start.quart_jobs("keys", "revoke", key.split("_")[1]).says("revoked")
        since = time.monotonic()
        until(lambda: service.ask("GET", "/jobs", headers=bearer(key)).status == 401)
        assert list(events) == []  # the stream ends, as all that was let in by the key
        assert time.monotonic() - since < key_ring.MAX_AGE + 3  # this machine's leisure


@pytest.mark.parametrize("task", ["breed", "breed_async"])
def test_a_lanes_jobs_inherit_their_owner(start: Starter, task: str) -> None:
    start.write("mine.py", TASKS)
    ann, bob = (create(start, "--name", name) for name in ("ann", "bob"))
    service = start.serve("--tasks", "mine")
    parent = _result(service, f"/tasks/mine.{task}/jobs", ann)
    assert _wait(service, f"/jobs/{parent}", ann) == "ann"
    assert service.ask("GET", f"/jobs/{parent}", headers=bearer(bob)).status == 404


def _result(service: Running, path: str, key: str) -> object:
    answer = service.ask("POST", path, {}, bearer(key))
    assert answer.status == 202, answer
    return _wait(service, answer.headers["Location"], key)


def _wait(service: Running, path: str, key: str) -> object:
    job = service.ask("GET", path, headers=bearer(key) | {"Prefer": "wait=20"}).json()
    assert job["state"] == "SUCCESS", job
    return service.ask("GET", f"{path}/result", headers=bearer(key)).json()


@pytest.mark.parametrize("more", [(), ("--workers", "2"), ("--auth", "required")])
def test_what_other_machines_can_reach_does_not_start_without_a_key(
    start: Starter, more: tuple[str, ...]
) -> None:
    start.write("mine.py", TASKS)
    refused = start.quart_jobs("serve", "--tasks", "mine", "--bind", "0.0.0.0:0", *more)
    assert refused.process.wait(20) == 2
    said = refused.says(r"quart-jobs: other machines can reach 0\.0\.0\.0:\d+, and .*--auth off.*")
    assert "no API key" in said[0]
    assert "Traceback" not in refused.output
    refused.is_gone()

    create(start, "--name", "ci")
    served = start.serve("--tasks", "mine", "--bind", "0.0.0.0:0", *more)
    assert served.get("/jobs").status == 401
    assert served.get("/readyz").status == 200


def test_other_machines_may_reach_it_without_a_key_where_that_was_asked_for(
    start: Starter,
) -> None:
    start.write("mine.py", TASKS)
    service = start.serve("--tasks", "mine", "--bind", "0.0.0.0:0", "--auth", "off")
    assert service.get("/jobs").status == 200


@pytest.mark.parametrize(("app", "status"), [("plain", 404), ("hooked", 401)])
def test_an_app_that_takes_no_keys_needs_none(start: Starter, app: str, status: int) -> None:
    start.write("mine.py", APP)
    service = start.serve("--app", f"mine:{app}()", "--bind", "0.0.0.0:0")
    assert service.get("/jobs").status == status


def test_a_key_is_found_nowhere_after_its_use(start: Starter) -> None:
    start.write("mine.py", TASKS)
    key = create(start, "--name", "ci")
    secret = key[len("qj_123456789abc_") :]
    service = start.serve("--tasks", "mine", "--verbose")
    said = b""
    for path in ("/tasks/mine.owner/jobs", "/tasks/mine.fail/jobs"):
        job = service.ask("POST", path, {}, bearer(key))
        waiting = bearer(key) | {"Prefer": "wait=20"}
        said += service.ask("GET", job.headers["Location"], headers=waiting).body
        said += service.ask("GET", f"{job.headers['Location']}/result", headers=bearer(key)).body
    for headers in (bearer(key + "x"), bearer(key), {"Authorization": key}):
        answer = service.ask("DELETE", "/jobs/none", headers=headers)
        said += answer.body + str(answer.headers).encode()
    listing = start.quart_jobs("keys", "list")
    listing.says(" good")
    said += listing.output.encode()
    assert key not in " ".join(service.family().values())
    for where in (said, service.output.encode(), *_files(start.folder)):
        assert secret.encode() not in where
    assert service.stop() == 0
    for where in (service.output.encode(), *_files(start.folder)):
        assert secret.encode() not in where


def _files(folder: Path) -> list[bytes]:
    found = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert any(b"api_keys" in content for content in found)
    return found
