"""What a client sends as a secret is found nowhere: not at rest, not in what the service says."""

import hashlib
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from jobs import JobFailed, Jobs
from jobs.idempotency import fingerprint
from jobs.submission import NO_OPTIONS
from tests.apps import secret_tasks
from tests.running import Running, Starter, starter, until

start = pytest.fixture(starter)

TASKS = ("--tasks", secret_tasks.__name__)


@pytest.fixture
def canary() -> str:
    return f"canary{uuid4().hex}"


@pytest.fixture
def service(start: Starter) -> Running:
    root = str(Path(__file__).parents[2])
    return start.serve(*TASKS, PYTHONPATH=root, JOBS_NICE="0")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def places(folder: Path, service: Running, job: dict[str, Any]) -> dict[str, bytes]:
    """All that others may read, by where it is."""
    found = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for pid in service.family():
        for name in ("cmdline", "environ"):
            found[f"{name} of {pid}"] = Path(f"/proc/{pid}/{name}").read_bytes()
    links = [link for name, link in job["links"].items() if name != "events" or job["finished_at"]]
    for path in ("/jobs", "/tasks", "/openapi.json", *links):
        answer = service.get(path)
        found[path] = answer.body + str(answer.headers).encode()
    return found | {"output": service.output.encode()}


def test_a_secret_is_found_nowhere_while_its_job_runs_and_after(
    service: Running, tmp_path: Path, canary: str
) -> None:
    """Fault row 44: in a header, a cookie, an argument, a model within a list."""
    started, go_on = tmp_path / "started", tmp_path / "go on"
    body = {
        "started": str(started),
        "go_on": str(go_on),
        "token": canary,
        "logins": [{"user": "ann", "password": canary[::-1]}],
    }
    headers = {
        "X-Secret": canary,
        "Cookie": f"secret={canary}",
        "Authorization": f"Token {canary}",
        "User-Agent": canary,
        f"X-{canary}": "1",
    }
    accepted = service.ask("POST", "/tasks/uses_secrets/jobs", body, headers)
    job = accepted.json()
    until(started.exists)
    during = places(tmp_path, service, job)
    go_on.touch()
    assert service.result(accepted) == [
        digest(each) for each in (canary, canary[::-1], canary, canary)
    ]
    after = places(tmp_path, service, service.get(accepted.headers["Location"]).json())
    assert b"go on" in during[str(tmp_path / "jobs.db-wal")]  # what is no secret can be read there
    for found in (during, after):
        for secret in (canary, canary[::-1]):
            assert [where for where, what in found.items() if secret.encode() in what] == []


def test_a_secret_is_not_in_what_a_refusal_or_a_failure_says(service: Running, canary: str) -> None:
    refused = service.post("/tasks/uses_secrets/jobs", {"token": canary, "logins": canary})
    assert refused.status == 422
    assert canary.encode() not in refused.body
    accepted = service.post("/tasks/fails_with_secrets/jobs", {"token": canary})
    until(lambda: service.get(accepted.headers["Location"]).json()["state"] == "FAILURE")
    failed = service.get(accepted.headers["Location"]).body
    assert b"ValueError" in failed
    assert canary.encode() not in failed


def test_a_key_tells_secrets_apart_and_does_not_keep_them(
    service: Running, tmp_path: Path, canary: str
) -> None:
    """An Idempotency-Key: the same secret is the same request, another one is not."""
    first, again, other = (
        service.post("/tasks/uses_again/jobs", {"token": token}, Idempotency_Key="k")
        for token in (canary, canary, "another")
    )
    assert first.json()["id"] == again.json()["id"]
    assert other.status == 422
    plain = b"uses_again", f'{{"token":"{canary}"}}'.encode(), b"{}"
    for path in tmp_path.glob("jobs.db*"):
        if path.is_file():
            for known in (fingerprint(*plain), fingerprint(*plain, b"")):  # it could be guessed by
                assert known.encode() not in path.read_bytes()


def test_a_batch_keeps_secrets_as_a_submission_does_and_such_a_job_does_not_run_again(
    service: Running, tmp_path: Path, canary: str
) -> None:
    jobs = [{"task": "fails_with_secrets", "args": {"token": canary}}] * 2
    answer = service.post("/jobs/batch", {"jobs": jobs}, Idempotency_Key="k")
    assert answer.status == 202
    for job in answer.json()["jobs"]:
        location = job["links"]["self"]
        until(lambda at=location: service.get(at).json()["state"] == "FAILURE")
        for again in ("retry", "rerun"):
            refused = service.post(f"{location}/{again}")
            assert refused.status == 409
            assert "secret arguments" in refused.json()["detail"]
    for where, what in places(tmp_path, service, service.get(location).json()).items():
        assert canary.encode() not in what, where


def test_of_a_job_that_has_not_ended_it_is_not_said_that_its_secrets_are_gone(
    service: Running, canary: str
) -> None:
    later = {"task": "uses_again", "args": {"token": canary}, "countdown": 60}
    waiting = service.post("/jobs", later)
    assert waiting.status == 202
    refused = service.post(f"{waiting.headers['Location']}/retry")
    assert refused.status == 409
    assert refused.json()["state"] == "PENDING"


async def test_a_secret_goes_from_python_to_a_job_and_on_to_the_next(
    tmp_path: Path, canary: str
) -> None:
    async with Jobs(database=str(tmp_path / "jobs.db"), lanes=1, nice=0) as jobs:
        first = await secret_tasks.hands_on.delay(canary)  # type: ignore[arg-type]
        following = await jobs.get(await first.result(timeout=30))
        assert await following.result(timeout=30) == digest(canary)
        assert await (await secret_tasks.uses_again.apply((canary,))).result() == digest(canary)
        for path in tmp_path.iterdir():
            if path.is_file():
                assert canary.encode() not in path.read_bytes()


async def test_a_job_whose_secrets_are_gone_says_so(tmp_path: Path, canary: str) -> None:
    async with Jobs(database=str(tmp_path / "jobs.db"), lanes=1, nice=0) as jobs:
        job = jobs._new_job(secret_tasks.uses_again, '{"token":"x"}', NO_OPTIONS)
        await jobs.store.add([job._replace(context=None)])
        handle = await jobs.get(job.id)
        with pytest.raises(JobFailed, match="secret arguments are gone") as caught:
            await handle.result(timeout=30)
        assert caught.value.error.kind == "bad_context"
