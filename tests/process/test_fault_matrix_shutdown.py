"""Fault matrix: a service is asked to stop, politely, twice, or by Ctrl-C, with jobs under way."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from jobs import Jobs, JobState
from service.server import AS_ONE
from tests.apps import matrix_tasks as tasks
from tests.engine_play import alive
from tests.matrix_play import ENV, TASKS, Notes, all_gone, kept, soon
from tests.running import Running, Starter, starter, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux gives these guarantees")

start = pytest.fixture(starter)
AT_ONCE = 1.0  #: seconds
WAYS = ["serve", "serve --workers 2", "worker"]

Runner = Callable[..., Running]


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path)


@pytest.fixture
def runner(request: pytest.FixtureRequest, start: Starter) -> Runner:
    """Start what runs jobs, in one of the three ways, with two lanes."""

    def run(*arguments: str) -> Running:
        if request.param == "worker":
            process = start.quart_jobs("worker", *TASKS, *arguments, JOBS_LANES="2", **ENV)
            process.says("lane")
            return process
        workers = request.param.split()[1:]
        lanes = "1" if workers else "2"
        return start.serve(*TASKS, *workers, *arguments, JOBS_LANES=lanes, **ENV)

    return run


@pytest.fixture
async def front(start: Starter) -> AsyncIterator[Jobs]:
    """Takes jobs, and is asked about them, while another process runs them and is stopped."""
    async with Jobs(database=start.env["JOBS_DATABASE"], lanes=0) as jobs:
        yield jobs


async def run_again(start: Starter, notes: Notes, number: int, times: int) -> None:
    """See that the job runs once more after a restart."""
    async with Jobs(database=start.env["JOBS_DATABASE"], lanes=2, nice=0, grace=0, stop_grace=0):
        await soon(until, lambda: len(notes.all("began", number)) == times)


@pytest.mark.parametrize("runner", WAYS, indirect=True)
async def test_jobs_that_end_within_the_grace_end_and_no_other_begins(
    front: Jobs, runner: Runner, notes: Notes
) -> None:
    """Fault row 10; and row 11: Ctrl-C reaches no child, and makes no noise."""
    running = await soon(runner, "--grace", "20")
    under_way = [await tasks.works.delay(notes.path, number, 1.5) for number in range(2)]
    for number in range(2):
        await soon(notes.last, "began", number)
    waiting = await tasks.works.delay(notes.path, 9)
    said = running.output
    began = time.monotonic()
    assert await soon(running.stop, signal.SIGINT) == 0
    assert time.monotonic() - began < 10
    for handle in under_way:
        job = (await handle.refresh()).job
        assert (job.state, job.attempt) == (JobState.SUCCESS, 1)
    job = (await waiting.refresh()).job
    assert (job.state, job.attempt) == (JobState.PENDING, 0)
    assert not notes.all("began", 9)
    assert running.output == said
    running.is_gone()


@pytest.mark.parametrize("runner", WAYS, indirect=True)
async def test_jobs_that_do_not_end_within_the_grace_are_stopped_and_run_again(
    front: Jobs, runner: Runner, notes: Notes, start: Starter
) -> None:
    """Fault row 10: asked to stop, then killed; the attempt is not spent."""
    running = await soon(runner, "--grace", "0.5", "--stop-grace", "0.3")
    handles = [
        await tasks.works.delay(notes.path, 0, 300.0),
        await tasks.ignores.delay(notes.path, 1),
    ]
    children = [(await soon(notes.last, "began", number)).pid for number in range(2)]
    began = time.monotonic()
    assert await soon(running.stop) == 0
    assert time.monotonic() - began < 6
    assert not any(map(alive, children))
    assert [len(notes.all("ignored", number)) for number in range(2)] == [0, 1]
    for handle in handles:
        job = (await handle.refresh()).job
        assert (job.state, job.attempt) == (JobState.PENDING, 0)
    assert "Traceback" not in running.output
    running.is_gone()
    await run_again(start, notes, 0, times=2)
    assert [noted.attempt for noted in notes.all("began", 0)] == [1, 1]


@pytest.mark.parametrize(
    ("runner", "number"),
    [*((way, signal.SIGINT) for way in WAYS), ("serve", signal.SIGTERM)],
    indirect=["runner"],
)
async def test_a_second_signal_ends_all_at_once_and_the_job_runs_again(
    front: Jobs, runner: Runner, notes: Notes, start: Starter, number: signal.Signals
) -> None:
    """Fault row 11: SIGTERM to the process, SIGINT to its whole group, as a terminal does."""
    running = await soon(runner, "--grace", "60", "--stop-grace", "60")
    handle = await tasks.hangs_at_first.delay(notes.path, 1)
    await soon(notes.last, "began", 1)
    family = set(running.family())
    send = os.killpg if number == signal.SIGINT else os.kill
    send(running.process.pid, number)
    await asyncio.sleep(AS_ONE + 0.2)  # closer than that, two signals are one wish
    assert running.process.poll() is None
    asked = time.monotonic()
    assert await soon(running.stop, number) == 128 + number
    took = time.monotonic() - asked
    kept(took, AT_ONCE)
    await soon(all_gone, family, asked)
    assert "Traceback" not in running.output
    assert (await handle.refresh()).state in (JobState.STARTED, JobState.RETRY)
    await run_again(start, notes, 1, times=2)
