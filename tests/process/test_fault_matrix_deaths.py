"""Fault matrix: processes are killed, one, several or all, and what was accepted runs all the same."""

import asyncio
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobs import JobFailed, Jobs, JobState
from tests import tasks_for_engines
from tests.apps import matrix_tasks as tasks
from tests.engine_play import Play, alive, playing
from tests.matrix_play import (
    ENV,
    REQUEUED,
    RESTARTED,
    TASKS,
    Notes,
    all_gone,
    ended,
    guardian,
    kept,
    kill,
    look,
    soon,
    submit,
)
from tests.running import Running, Starter, starter, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux gives these guarantees")

start = pytest.fixture(starter)


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path)


@pytest.fixture
async def jobs(tmp_path: Path) -> AsyncIterator[Jobs]:
    options = {"lanes": 2, "nice": 0, "stop_grace": 0.5, "grace": 2}
    async with Jobs(database=str(tmp_path / "jobs.db"), **options) as jobs:
        yield jobs


# --- a child


@pytest.fixture
async def play() -> AsyncIterator[Play]:
    async with playing(slots=1) as play:
        yield play


async def test_a_child_killed_before_it_began_its_job_gives_the_job_back(play: Play) -> None:
    """Fault row 2."""
    await play.has_room()
    child = int((await play.run("pid")).result or "")
    os.kill(child, signal.SIGSTOP)
    invocation = play.start("add", a=1)
    kill(child)
    await play.withdrawn(invocation)
    assert (await play.run("add", a=1)).result == "2"


async def test_a_job_whose_child_was_killed_runs_again_within_two_seconds(
    jobs: Jobs, notes: Notes
) -> None:
    """Fault row 3."""
    handle = await tasks.hangs_at_first.delay(notes.path, 1)
    first = await soon(notes.last, "began", 1)
    killed = kill(first.pid)
    assert await handle.result(timeout=20) == 1
    took = notes.last("began", 1, attempt=2).at - killed
    kept(took, REQUEUED)
    job = (await handle.refresh()).job
    assert (job.state, job.attempt, job.max_attempts) == (JobState.SUCCESS, 2, 1)


async def test_a_job_with_a_program_runs_again_within_two_seconds_and_the_program_is_gone(
    jobs: Jobs, notes: Notes, tmp_path: Path
) -> None:
    """Fault row 3, with a detached program of the job's that would live on."""
    file = tmp_path / "pid"
    handle = await tasks_for_engines.leaves_a_program.delay(str(file), "sleep")
    program = await soon(until, lambda: file.exists() and file.read_text())
    lane = int(Path(f"/proc/{program}/stat").read_text().rpartition(")")[2].split()[1])
    file.unlink()
    killed = kill(lane)
    second = await soon(until, lambda: file.exists() and file.read_text())
    took = time.monotonic() - killed
    kept(took, REQUEUED)
    assert second != program
    assert not alive(int(program))
    await handle.cancel()


async def test_a_result_that_was_told_before_the_child_died_counts(
    jobs: Jobs, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault row 4."""
    told, stored = asyncio.Event(), asyncio.Event()
    finish = jobs.store.finish

    async def hold(outcomes):  # type: ignore[no-untyped-def]
        told.set()
        await stored.wait()
        return await finish(outcomes)

    monkeypatch.setattr(jobs.store, "finish", hold)
    handle = await tasks.works.delay(notes.path, 1)
    await told.wait()
    child = notes.last("ended", 1).pid
    await soon(all_gone, {child}, kill(child))
    stored.set()
    assert await handle.result(timeout=20) == 1
    assert len(notes.all("began")) == (await handle.refresh()).job.attempt == 1


@pytest.mark.parametrize(
    ("how", "named"), [("exit", "exit code 0"), ("abort", "SIGABRT"), ("segfault", "SIGSEGV")]
)
async def test_a_job_that_ends_its_process_runs_three_times_a_second_apart_and_fails(
    jobs: Jobs, notes: Notes, how: str, named: str
) -> None:
    """Fault row 32."""
    handle = await tasks.ends_its_process.delay(notes.path, 1, how)
    with pytest.raises(JobFailed, match=named) as caught:
        await handle.result(timeout=30)
    assert caught.value.error.kind == "crash"
    runs = [noted.at for noted in notes.all("began")]
    assert len(runs) == 3
    apart = [later - earlier for earlier, later in itertools.pairwise(runs)]
    kept(max(apart), 1.0 + REQUEUED)  # a second, and what it takes to see a death


# --- the forkserver


async def test_a_killed_forkserver_takes_all_with_it_and_its_jobs_run_again(
    jobs: Jobs, notes: Notes, tmp_path: Path
) -> None:
    """Fault row 9: also what the jobs had started, in sessions of its own or by fork alone."""
    programs = [tmp_path / "program", tmp_path / "daemon"]
    detached = tasks_for_engines.leaves_a_program, tasks_for_engines.forks_a_daemon_and_sleeps
    handles = [
        await task.delay(str(file), "sleep") for task, file in zip(detached, programs, strict=True)
    ]
    await soon(until, lambda: all(file.exists() and file.read_text() for file in programs))
    left = {int(file.read_text()) for file in programs}
    for file in programs:
        file.unlink()
    killed = kill(guardian(os.getpid()))
    await soon(all_gone, left, killed)
    await soon(until, lambda: all(file.exists() and file.read_text() for file in programs))
    took = time.monotonic() - killed
    kept(took, REQUEUED)
    assert all(map(alive, (int(file.read_text()) for file in programs)))
    for handle in handles:
        await handle.cancel()


async def test_a_job_that_kills_the_forkserver_fails_and_its_neighbour_does_not(
    jobs: Jobs, notes: Notes
) -> None:
    """Fault row 37."""
    neighbour = await tasks.works.delay(notes.path, 1, 3.0)
    await soon(notes.last, "began", 1)
    killer = await tasks.ends_its_process.delay(notes.path, 2, "parent")
    with pytest.raises(JobFailed, match="run 3 times") as caught:
        await killer.result(timeout=30)
    assert caught.value.error.kind == "crash"
    assert await neighbour.result(timeout=30) == 1
    job = (await neighbour.refresh()).job
    assert job.attempt >= 2  # killed with the other, as often as it ran beside it,
    assert job.crashes == 0  # and not once charged for that
    assert await (await tasks.works.delay(notes.path, 3)).result(timeout=30) == 3


async def test_a_job_that_ignores_every_signal_is_killed_when_its_time_is_over(
    jobs: Jobs, notes: Notes
) -> None:
    """Fault row 37."""
    handle = await tasks.ignores.apply_async((notes.path, 1), timeout=0.3)
    with pytest.raises(JobFailed, match="killed") as caught:
        await handle.result(timeout=20)
    assert caught.value.error.kind == "timeout"
    assert not alive(notes.last("began", 1).pid)


# --- the service


def pour(service: Running, notes: Notes, taken: dict[int, str], asked: list[int]) -> None:
    """Submit jobs, one after another, until the service is gone; not too many where lanes are slow."""
    for number in range(200):
        asked.append(number)
        try:
            answer = submit(service, "works", args=[notes.path, number])
        except OSError:
            return
        taken[number] = answer.headers["Location"]


def test_what_a_killed_service_had_accepted_runs_and_what_it_had_not_answered_at_most_once(
    start: Starter, notes: Notes
) -> None:
    """Fault rows 5, 6 and 8: killed amid submissions, runs and outcomes."""
    service = start.serve(*TASKS, **ENV)
    taken: dict[int, str] = {}
    asked: list[int] = []
    pouring = threading.Thread(target=pour, args=(service, notes, taken, asked))
    pouring.start()
    until(lambda: len(notes.all("ended")) > 70)
    kill(service.process.pid)
    pouring.join()
    assert len(asked) - len(taken) <= 1  # under way
    again = start.serve(*TASKS, **ENV)
    done = {number: until(lambda at=at: _success(again, at)) for number, at in taken.items()}
    assert {job["state"] for job in done.values()} == {"SUCCESS"}
    runs = [noted.number for noted in notes.all("began")]
    assert taken.keys() <= set(runs) <= set(asked)
    twice = [number for number in set(runs) if runs.count(number) > 1]
    for number in twice:  # only what ran, or was not recorded yet, when the service died
        assert runs.count(number) == 2
        assert done[number]["attempt"] == 2, done[number]
    assert len(twice) <= 64 + 64  # a lane's jobs, and those whose outcome was not committed


def _success(service: Running, location: str):  # type: ignore[no-untyped-def]
    job = service.get(location).json()
    return job if job["state"] in ("SUCCESS", "FAILURE", "REVOKED") else None


def test_after_a_killed_service_nothing_runs_on_and_its_jobs_run_again_soon_after_a_restart(
    start: Starter, notes: Notes, tmp_path: Path
) -> None:
    """Fault row 7."""
    service = start.serve(*TASKS, "--lanes", "2", **ENV)
    hanging = submit(service, "hangs_at_first", args=[notes.path, 1])
    program = tmp_path / "pid"
    service.post(
        "/jobs",
        {
            "task": "tests.tasks_for_engines.leaves_a_program",
            "args": [str(program), "hold the GIL"],
        },
    )
    notes.last("began", 1)
    until(lambda: program.exists() and program.read_text())
    family = set(service.family())
    assert int(program.read_text()) in family
    all_gone(family, kill(service.process.pid))
    restarted = time.monotonic()
    again = start.serve(*TASKS, **ENV)
    took = notes.last("began", 1, attempt=2).at - restarted
    kept(took, RESTARTED)
    assert ended(again, hanging)["state"] == "SUCCESS"


def test_a_service_beside_it_takes_over_what_a_killed_one_ran(start: Starter, notes: Notes) -> None:
    """Fault row 7, with another service on the same file: no restart is needed."""
    service = start.serve(*TASKS, **ENV)
    hanging = submit(service, "hangs_at_first", args=[notes.path, 1])
    notes.last("began", 1)
    other = start.serve(*TASKS, **ENV)
    killed = kill(service.process.pid)
    took = notes.last("began", 1, attempt=2).at - killed
    kept(took, REQUEUED)
    assert ended(other, hanging)["attempt"] == 2


def test_what_a_service_and_its_forkserver_left_is_gone_before_their_jobs_run_again(
    start: Starter, tmp_path: Path
) -> None:
    """Fault rows 7 and 9 at once: nobody of that family is left to end what the job had started."""
    service = start.serve(*TASKS, **ENV)
    program = tmp_path / "pid"
    body = {
        "task": "tests.tasks_for_engines.leaves_a_program",
        "args": [str(program), "sleep"],
    }
    accepted = service.post("/jobs", body)
    until(lambda: program.exists() and program.read_text())
    left = int(program.read_text())
    os.kill(service.process.pid, signal.SIGSTOP)
    kill(guardian(service.process.pid))
    until(lambda: not any("forkserver" in line for line in service.family().values()))
    kill(service.process.pid)
    assert alive(left)
    program.unlink()
    again = start.serve(*TASKS, **ENV)
    until(lambda: program.exists() and program.read_text())
    assert not alive(left)
    assert look(again, accepted)["attempt"] == 2
    assert alive(int(program.read_text()))


def test_everything_killed_at_once_is_whole_again_after_a_restart(
    start: Starter, notes: Notes
) -> None:
    """Fault rows 1 to 8, at once: no process is left to clean up."""
    service = start.serve(*TASKS, "--lanes", "2", **ENV)
    hanging = [submit(service, "hangs_at_first", args=[notes.path, n]) for n in range(2)]
    waiting = submit(service, "works", args=[notes.path, 2])
    for number in range(2):
        notes.last("began", number)
    for pid in service.family():
        kill(pid)
    restarted = time.monotonic()
    again = start.serve(*TASKS, "--lanes", "2", **ENV)
    for accepted in (*hanging, waiting):
        assert ended(again, accepted)["state"] == "SUCCESS"
    took = max(notes.last("began", n, attempt=2).at for n in range(2)) - restarted
    kept(took, RESTARTED)
    assert [look(again, accepted)["attempt"] for accepted in (*hanging, waiting)] == [2, 2, 1]


def test_the_api_answers_while_jobs_crash_and_hang(start: Starter, notes: Notes) -> None:
    """Promise 6."""
    service = start.serve(*TASKS, "--lanes", "2", "--stop-grace", "0.2", **ENV)
    for number in range(20):
        accepted = submit(service, "ends_its_process", args=[notes.path, number, "segfault"])
        submit(service, "ignores", args=[notes.path, 100 + number], timeout=0.2)
    took = []
    for number in range(100):
        asked = time.monotonic()
        if number % 5:
            look(service, accepted)
        else:
            submit(service, "works", args=[notes.path, 200 + number])
        took.append(time.monotonic() - asked)
    took.sort()
    print(f"half of the answers within {took[49]:.3f} s, all but one within {took[98]:.3f} s")
    assert took[98] < 0.5, took  # 0.25 is promised; this machine may be busy with other things
