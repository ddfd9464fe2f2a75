"""Fault matrix: several processes on one file, and clients that go in the middle of a submission."""

import asyncio
import json
import socket
import sqlite3
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from jobs import Jobs
from jobs.model import JobQuery
from jobs.stores.place import Place
from tests.apps import matrix_tasks as tasks
from tests.matrix_play import ENV, MODULE, REQUEUED, TASKS, Notes, kept, kill, soon, submit
from tests.running import Running, Starter, starter, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux gives these guarantees")

start = pytest.fixture(starter)


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path)


@pytest.fixture
async def front(start: Starter) -> AsyncIterator[Jobs]:
    """Takes jobs, and is asked about them, while other processes run them."""
    async with Jobs(database=start.env["JOBS_DATABASE"], lanes=0) as jobs:
        yield jobs


def workers(start: Starter, count: int, *arguments: str) -> list[Running]:
    found = [start.quart_jobs("worker", *TASKS, *arguments, **ENV) for _ in range(count)]
    for worker in found:
        worker.says("1 lane")
    return found


def four_workers_and_a_supervisor(start: Starter) -> list[Running]:
    service = start.serve(*TASKS, "--workers", "4", **ENV)
    at_work = Place.at(Path(start.env["JOBS_DATABASE"])).claimants
    until(lambda: len(list(at_work.iterdir())) >= 4 + 1, "they did not all start")  # and this test
    return [service]


def a_service_and_two_workers(start: Starter) -> list[Running]:
    return [start.serve(*TASKS, **ENV), *workers(start, 2)]


Way = Callable[[Starter], list[Running]]


@pytest.mark.parametrize("way", [four_workers_and_a_supervisor, a_service_and_two_workers])
async def test_each_of_many_jobs_runs_once_whichever_process_takes_it(
    start: Starter, notes: Notes, front: Jobs, way: Way
) -> None:
    """Fault row 14: more processes on the same file join in, and none runs what another runs."""
    running = await soon(way, start)
    handles = [await tasks.works.delay(notes.path, number, 0.01) for number in range(300)]
    for handle in handles:
        assert await handle.result(timeout=40) is not None
    runs = Counter(noted.number for noted in notes.all("began"))
    assert runs == Counter(range(300))
    assert Counter(noted.number for noted in notes.all("ended")) == runs
    assert len({noted.pid for noted in notes.all("began")}) >= 2
    for handle in handles:
        assert (await handle.refresh()).job.attempt == 1
    for process in running:
        assert await soon(process.stop) == 0
        assert "Traceback" not in process.output


@pytest.mark.parametrize("way", [four_workers_and_a_supervisor, a_service_and_two_workers])
async def test_no_wake_up_is_lost_when_all_are_idle(
    start: Starter, notes: Notes, front: Jobs, way: Way
) -> None:
    """Fault row 14: a job starts within 50 ms or so, whichever process took it, and whichever runs it."""
    service = (await soon(way, start))[0]
    delays = []
    for number in range(50):
        submitted = time.monotonic()
        if number % 2:
            await soon(lambda at=number: submit(service, "works", args=[notes.path, at]))
        else:
            await tasks.works.delay(notes.path, number)
        # One that is missed would wait for the next.
        delays.append((await soon(notes.last, "began", number)).at - submitted)
    quickly, median, _ = statistics.quantiles(delays)
    print(f"picked up after {1000 * median:.0f} ms (median), {1000 * max(delays):.0f} ms at most")
    assert quickly < 0.25, sorted(delays)  # the median is under 50 ms where nothing else runs


async def test_one_of_two_workers_is_killed_and_the_other_runs_its_job(
    start: Starter, notes: Notes, front: Jobs
) -> None:
    """Fault row 7, among several processes: no restart is needed."""
    pair = await soon(workers, start, 2)
    handle = await tasks.hangs_at_first.delay(notes.path, 1)
    lane = (await soon(notes.last, "began", 1)).pid
    victim = next(worker for worker in pair if lane in worker.family())
    killed = kill(victim.process.pid)
    assert await handle.result(timeout=20) == 1
    took = notes.last("began", 1, attempt=2).at - killed
    kept(took, REQUEUED)


# --- clients that go


async def test_a_client_that_goes_in_the_middle_of_a_submission_leaves_one_job_or_none(
    start: Starter, notes: Notes
) -> None:
    """Fault row 27, at a hundred points of it."""
    service = await soon(lambda: start.serve(*TASKS, JOBS_LANES="0", **ENV))
    points = 100
    requests = [request(notes, number) for number in range(points)]
    for number, content in enumerate(requests):
        cut = len(content) * (number + 1) // points  # the last has it all, and goes unanswered
        with closing(service.connect(content[:cut])) as client:
            if number % 2:  # with a reset, not in order
                linger = b"\x01\0\0\0\0\0\0\0"
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    for number in range(20):  # goes at about the time of the commit
        with closing(service.connect(request(notes, points + number))):
            await asyncio.sleep(number / 5000)
    last = await soon(lambda: submit(service, "works", args=[notes.path, 999]))
    assert last.status == 202
    async with Jobs(database=start.env["JOBS_DATABASE"], lanes=0) as jobs:
        found = (await jobs.store.find(JobQuery(limit=1000))).jobs
        whole = [await jobs.store.get(job.id) for job in found]
        stored = Counter(json.loads(job.args)["number"] for job in whole)
    assert max(stored.values()) == 1
    assert stored[999] == 1
    assert not stored.keys() & set(range(points - 1))  # what was not whole is nothing
    with closing(sqlite3.connect(start.env["JOBS_DATABASE"], timeout=1)) as connection:
        connection.execute("BEGIN IMMEDIATE")  # no transaction is open
        connection.rollback()
    assert service.stop() == 0
    assert "Traceback" not in service.output


def request(notes: Notes, number: int) -> bytes:
    body = json.dumps({"task": f"{MODULE}.works", "args": [notes.path, number]}).encode()
    head = (
        "POST /jobs HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


# --- a deploy


async def test_a_task_that_is_gone_after_a_deploy_fails_its_jobs_once(
    start: Starter, notes: Notes
) -> None:
    """Fault row 38."""
    old = "from jobs import task\n@task\ndef before(n: int) -> int:\n    return n\n"
    start.write("mine.py", old)
    service = await soon(lambda: start.serve("--tasks", "mine", JOBS_LANES="0"))
    accepted = await soon(lambda: service.post("/tasks/mine.before/jobs", {"n": 1}))
    assert accepted.status == 202
    assert await soon(service.stop) == 0
    start.write("mine.py", old.replace("before", "after"))
    again = await soon(lambda: start.serve("--tasks", "mine"))

    def failed() -> object:
        job = again.get(accepted.headers["Location"]).json()
        return job["state"] == "FAILURE" and job

    job = await soon(until, failed)
    assert (job["attempt"], job["error"]["type"]) == (1, "UnknownTask")
    assert "mine.before" in job["error"]["message"]
    assert again.result(await soon(lambda: again.post("/tasks/mine.after/jobs", {"n": 2}))) == 2
