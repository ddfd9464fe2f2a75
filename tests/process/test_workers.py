"""Services and workers of other releases, or with other tasks, on one database: what does not fit is said, and left."""

import os
import signal
from typing import Any

import pytest

from tests.postgres import Server, own
from tests.running import ROOT, Running, Starter, starter, until

start = pytest.fixture(starter)
server = pytest.fixture(scope="module")(own)

TASK = "from jobs import task\n@task\ndef new() -> int: return 1\n"

# Children have it too.
LATER = """
import jobs.extension, jobs.sealing
jobs.extension.__version__ = "99.0"
jobs.sealing.VERSION, jobs.sealing._PREFIX = 2, b"\\2"
"""


@pytest.fixture(autouse=True)
def database(server: Server, start: Starter) -> Server:
    """The server, with nothing in it, and named by the environment of what is started."""
    server.clear()
    start.env |= {
        "JOBS_DATABASE": server.url,
        "JOBS_SECRET_KEY": "k" * 40,
        "JOBS_LANES": "0",
        "PYTHONPATH": str(ROOT),
    }
    for name in ("mine", "more"):
        start.write(f"{name}.py", TASK)
    (start.folder / "later").mkdir()
    start.write("later/sitecustomize.py", LATER)
    return server


def worker(start: Starter, tasks: str = "mine", **env: str) -> Running:
    running = start.quart_jobs("worker", "--tasks", tasks, "--lanes", "1", **env)
    running.says("Ctrl-C stops it")
    return running


def submit(service: Running, task: str) -> str:
    answer = service.post(f"/tasks/{task}/jobs", {})
    assert answer.status == 202, answer
    return answer.headers["Location"]


def ended(service: Running, job: str) -> Any:
    return until(lambda: (seen := service.get(job).json())["state"] not in WAITING and seen)


WAITING = ("PENDING", "STARTED", "RETRY")


def test_a_task_that_only_one_worker_knows_is_left_to_it_and_one_that_none_knows_fails(
    start: Starter,
) -> None:
    service, first = start.serve("--tasks", "mine,more"), worker(start)
    failed = ended(service, submit(service, "more.new"))
    assert (failed["state"], failed["error"]["type"]) == ("FAILURE", "UnknownTask")
    (words,) = service.get("/workers").json()["problems"]
    assert words.startswith(f"the service {service.process.pid} on ")
    assert words.endswith("takes jobs of tasks that no worker has, and they will fail: more.new")
    for running in (service, first):
        running.says(r"WARNING jobs: the service \d+ on .* no worker has, .*: more\.new")

    second = worker(start, "more")
    assert service.get("/workers").json()["problems"] == []
    os.killpg(second.process.pid, signal.SIGSTOP)
    job = submit(service, "more.new")
    first.says(
        rf"jobs of the task more\.new, not known here, are left to the worker {second.process.pid}"
    )
    until(lambda: service.get(job).json()["state"] == "PENDING")
    os.killpg(second.process.pid, signal.SIGCONT)
    done = ended(service, job)
    assert (done["state"], done["attempt"]) == ("SUCCESS", 1)


def test_an_earlier_release_leaves_what_a_later_one_wrote_and_both_say_so(
    start: Starter,
) -> None:
    old = worker(start)
    later = {"PYTHONPATH": f"{start.folder / 'later'}:{ROOT}"}
    service = start.serve("--tasks", "mine", **later)
    job = submit(service, "mine.new")
    old.says(rf"a later release than .* has sealed, such as {job.rpartition('/')[2]} .*: upgrade")
    until(lambda: service.get(job).json()["state"] == "PENDING")
    listed = service.get("/workers").json()
    assert {each["release"] for each in listed["workers"]} == {"99.0", *listed_of(old, listed)}
    (words,) = listed["problems"]
    assert f"the worker {old.process.pid} on" in words
    assert "run the same release in services and workers" in words
    service.says(rf"the worker {old.process.pid} on .* and this process 99\.0")
    old.says(rf"the service {service.process.pid} on .* has release 99\.0 of quart-jobs")
    worker(start, **later)
    done = ended(service, job)
    assert (done["state"], done["attempt"]) == ("SUCCESS", 1)


def listed_of(running: Running, listed: Any) -> list[str]:
    return [each["release"] for each in listed["workers"] if each["pid"] == running.process.pid]


def test_who_does_not_know_the_schema_any_more_takes_no_jobs_until_it_does(
    start: Starter, database: Server
) -> None:
    service, old = start.serve("--tasks", "mine"), worker(start)
    database.ask("INSERT INTO quart_jobs.migrations VALUES (99, 'later', '', 0)")
    words = r"has schema version 99 by now, and this release, .*: it leaves the jobs to others"
    for running in (service, old):
        running.says(words)
    unready = until(lambda: (got := service.get("/readyz")).status == 503 and got)
    assert "schema version 99" in unready.json()["detail"]
    job = submit(service, "mine.new")
    assert service.get(job).json()["state"] == "PENDING"
    database.ask("DELETE FROM quart_jobs.migrations WHERE number = 99")
    assert ended(service, job)["state"] == "SUCCESS"
    until(lambda: service.get("/readyz").status == 200)
