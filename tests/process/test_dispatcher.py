"""Store, dispatcher and lanes together: what becomes of jobs that crash, fail, hang or are stopped."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobs import JobFailed, JobRevoked, Jobs, JobState
from jobs.errors import StoreBusy
from tests.apps import fault_tasks as tasks


@pytest.fixture
async def jobs(tmp_path: Path) -> AsyncIterator[Jobs]:
    async with Jobs(database=str(tmp_path / "jobs.db"), lanes=2, grace=5) as jobs:
        yield jobs


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes"
    path.touch()
    return path


async def seen(path: Path, word: str, count: int = 1) -> list[list[str]]:
    """The noted lines with that word, once there are so many."""
    while True:
        lines = [line.split() for line in path.read_text().splitlines() if line.startswith(word)]
        if len(lines) >= count:
            return lines
        await asyncio.sleep(0.01)


async def test_a_job_that_kills_its_process_runs_three_times_and_no_more(
    jobs: Jobs, notes: Path
) -> None:
    neighbour = await tasks.sleeps.delay(str(notes), 2.0)
    handle = await tasks.kills_its_process.delay(str(notes))
    with pytest.raises(JobFailed, match="SIGKILL") as caught:
        await handle.result(timeout=30)
    assert caught.value.error.kind == "crash"
    began = [line for line in await seen(notes, "began", 4) if line[1] != "0"]
    assert len(began) == 4
    assert await neighbour.result(timeout=30) == "slept"
    assert (await neighbour.refresh()).job.attempt == 1


async def test_a_failed_attempt_is_tried_again_while_the_budget_lasts(
    jobs: Jobs, notes: Path
) -> None:
    handle = await tasks.fails_before.apply_async((str(notes), 2), max_attempts=3)
    assert await handle.result(timeout=30) == 2
    spent = await tasks.fails_before.apply_async((str(notes), 9), max_attempts=1)
    with pytest.raises(JobFailed, match="attempt 1"):
        await spent.result(timeout=30)


@pytest.mark.parametrize("name", ["sleeps", "sleeps_async"])
async def test_a_running_job_is_cancelled_softly(jobs: Jobs, notes: Path, name: str) -> None:
    handle = await getattr(tasks, name).delay(str(notes), 50)
    await seen(notes, "began")
    assert await handle.cancel() is JobState.STARTED
    with pytest.raises(JobRevoked) as caught:
        await handle.result(timeout=20)
    assert caught.value.error.kind == "cancelled"
    await seen(notes, "stopped")


@pytest.mark.parametrize("name", ["sleeps", "sleeps_async"])
async def test_a_job_past_its_timeout_is_stopped(jobs: Jobs, notes: Path, name: str) -> None:
    handle = await getattr(tasks, name).apply_async((str(notes), 50), timeout=0.2)
    with pytest.raises(JobFailed) as caught:
        await handle.result(timeout=20)
    assert caught.value.error.kind == "timeout"
    await seen(notes, "stopped")


async def test_jobs_waiting_behind_a_long_one_run_on_the_other_lane(
    jobs: Jobs, notes: Path
) -> None:
    for number in range(200):
        await tasks.instant.delay(number)
    slow = await tasks.sleeps.delay(str(notes), 50)
    quick = [await tasks.instant.delay(number) for number in range(40)]
    assert [await handle.result(timeout=20) for handle in quick] == list(range(40))
    assert (await slow.refresh()).state is JobState.STARTED


async def test_what_runs_at_shutdown_is_given_back_unspent(tmp_path: Path, notes: Path) -> None:
    options = {"database": str(tmp_path / "jobs.db"), "stop_grace": 0.2, "grace": 0.3}
    async with Jobs(lanes=1, **options):
        running = await tasks.sleeps.delay(str(notes), 50)
        waiting = await tasks.instant.delay(1)
        [[_, _, pid]] = await seen(notes, "began")
    assert not Path(f"/proc/{pid}").exists()
    async with Jobs(lanes=0, **options) as jobs:
        for handle in (running, waiting):
            job = await jobs.store.get(handle.job.id)
            assert (job.state, job.attempt, job.claimed_by) == (JobState.PENDING, 0, None)


async def test_a_shutdown_lets_a_short_job_finish(tmp_path: Path, notes: Path) -> None:
    options = {"database": str(tmp_path / "jobs.db"), "grace": 10}
    async with Jobs(lanes=1, **options):
        handle = await tasks.sleeps.delay(str(notes), 0.5)
        await seen(notes, "began")
    async with Jobs(lanes=0, **options) as jobs:
        assert await (await jobs.get(handle.id)).result(timeout=1) == "slept"


async def test_outcomes_wait_while_the_store_refuses_writes(
    jobs: Jobs, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = await tasks.sleeps.delay(str(notes), 0.3)
    await seen(notes, "began")
    refusals = 3
    finish = jobs.store.finish

    async def refuse(outcomes: object) -> object:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise StoreBusy("held for a test")
        return await finish(outcomes)  # type: ignore[arg-type]

    monkeypatch.setattr(jobs.store, "finish", refuse)
    assert await handle.result(timeout=20) == "slept"
    assert refusals == 0


async def test_a_cancel_is_not_forgotten_while_the_store_refuses(
    jobs: Jobs, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = await tasks.sleeps.delay(str(notes), 50)
    await seen(notes, "began")
    asked = 0
    requests = jobs.store.cancel_requests

    async def refuse_once() -> object:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise StoreBusy("held for a test")
        return await requests()

    monkeypatch.setattr(jobs.store, "cancel_requests", refuse_once)
    await handle.cancel()
    with pytest.raises(JobRevoked):
        await handle.result(timeout=10)


async def test_two_services_on_one_file_share_the_work_and_run_each_job_once(
    tmp_path: Path, notes: Path
) -> None:
    """Fault row 14."""
    database = str(tmp_path / "jobs.db")
    async with Jobs(database=database, lanes=1) as first, Jobs(database=database, lanes=1):
        handles = [
            first.submit(tasks.fails_before, f'{{"path":"{notes}","attempt":1}}', options)
            for options in [tasks_options()] * 200
        ]
        for handle in handles:
            await handle
        assert [await handle.result(timeout=30) for handle in handles] == [1] * 200
    lines = await seen(notes, "began", 200)
    assert len(lines) == 200
    assert len({pid for _, _, pid in lines}) == 2
    assert os.getpid() not in {int(pid) for _, _, pid in lines}


def tasks_options() -> object:
    from jobs.submission import Options

    return Options()
