"""What a job leaves in its process never reaches the next job: row 35 of the fault matrix; and what jobs
may take of the machine's memory: row 29."""

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jobs import JobFailed, Jobs, memory
from jobs.model import ErrorKind, Invocation, JobState, Outcome
from jobs.protocols import Interrupt
from tests import tasks_for_hygiene
from tests.engine_play import Play, invoke, playing
from tests.running import until

MODULE = tasks_for_hygiene.__name__
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux gives these guarantees")


@pytest.fixture
async def play() -> AsyncIterator[Play]:
    async with one_lane() as play:
        yield play


def one_lane(**changes: Any) -> Any:
    return playing(**{"slots": 1, "modules": (MODULE,)} | changes)


def job(name: str, **args: Any) -> Invocation:
    """As the dispatcher makes it."""
    task = getattr(tasks_for_hygiene, name)
    return invoke(name, **args)._replace(
        task=task.name, fresh=task.isolation == "fresh", max_memory_mb=task.max_memory_mb
    )


async def outcome_of(play: Play, name: str, **args: Any) -> Outcome:
    await play.has_room()
    invocation = job(name, **args)
    play.engine.start([invocation])
    return await play.outcome(invocation)


async def result_of(play: Play, name: str, **args: Any) -> Any:
    outcome = await outcome_of(play, name, **args)
    assert outcome.state is JobState.SUCCESS, outcome
    return json.loads(outcome.result or "")


def results(play: Play) -> list[Any]:
    return [json.loads(outcome.result or "") for outcome in play.outcomes]


# --- row 35: leftovers


EVERY_MESS = pytest.mark.parametrize(
    "what", [name for name in tasks_for_hygiene.MESSES if name != "nothing"]
)


@EVERY_MESS
async def test_the_next_job_finds_the_process_as_the_first_one_did(
    play: Play, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 35: leftover threads, closed fds, changed cwd, umask, env, signals, locale, rlimits, sys.stdout."""
    clean = (await result_of(play, "look"))[1]
    left_in = await result_of(play, "mess", what=what)
    pid, found = await result_of(play, "look")
    assert pid != left_in
    assert found == clean
    (record,) = [each for each in caplog.records if each.name == "jobs.engines"]
    assert f"{MODULE}.mess left its process changed" in record.getMessage()
    assert "secret" not in record.getMessage()


@EVERY_MESS
async def test_a_mess_is_seen_also_of_a_job_that_has_run_cleanly_before(
    play: Play, what: str
) -> None:
    """Row 35, by the cheap look alone: every later run of a task that is short."""
    pids = {await result_of(play, "mess", what="nothing") for _ in range(5)}
    assert len(pids) == 1
    assert await result_of(play, "mess", what=what) in pids
    assert (await result_of(play, "look"))[0] not in pids


async def test_a_task_left_on_the_event_loop_is_gone_for_the_next_job(play: Play) -> None:
    """Row 35: what runs on the event loop is as much at work as a thread."""
    assert await result_of(play, "mess_async") != await result_of(play, "shared")


async def test_the_rest_of_a_batch_comes_back_unspent(play: Play) -> None:
    """Row 35: a job behind the one that left something begins in another process, uncharged."""
    await play.run_all([job("mess", what="nothing") for _ in range(30)])
    play.events.clear()
    batch = [job("mess", what="umask" if n == 4 else "nothing") for n in range(10)]
    assert play.engine.free >= 10
    play.engine.start(batch)
    await play.until(lambda: len(play.given_back) == 5)
    assert [outcome.state for outcome in play.outcomes] == [JobState.SUCCESS] * 5
    assert play.given_back == batch[5:]
    await play.run_all([])


async def test_the_log_names_a_mess_once_and_not_each_time(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        await result_of(play, "mess", what="chdir")
    await play.has_room()
    warnings = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "the working directory is /" in warnings[0].getMessage()
    assert '@task(keeps=["cwd"])' in warnings[0].getMessage()


async def test_what_a_task_keeps_belongs_to_the_process(play: Play) -> None:
    pids = {await result_of(play, "keeps_a_thread") for _ in range(3)}
    pids.add(await result_of(play, "shared"))
    assert len(pids) == 1
    pid, found = await result_of(play, "look")
    assert {pid} == pids
    assert found["cwd"] == "/"


async def test_open_descriptors_and_idle_pool_threads_may_stay(play: Play) -> None:
    pids = {await result_of(play, name) for name in ("leaves_a_file_open", "in_a_thread") * 3}
    assert len(pids) == 1


async def test_work_left_in_a_pool_is_not_idle(play: Play) -> None:
    clean = await result_of(play, "in_a_thread")
    assert await result_of(play, "in_a_thread", left=60) == clean
    assert await result_of(play, "shared") != clean


async def test_clean_jobs_keep_their_process(play: Play) -> None:
    await play.run_all([job("shared") for _ in range(200)])
    assert len(set(results(play))) == 1


async def test_an_apps_context_leaves_nothing_behind() -> None:
    async with one_lane(app="tests.apps.context_app:app") as play:
        pids = {await result_of(play, name) for name in ("shared", "in_a_thread") * 10}
        assert len(pids) == 1


# --- recycling


async def test_a_process_is_replaced_after_so_many_jobs_and_none_is_lost() -> None:
    async with one_lane(recycle_after_jobs=10) as play:
        batch = [job("shared") for _ in range(100)]
        await play.run_all(batch)
        assert sorted(o.job_id for o in play.outcomes) == sorted(i.job_id for i in batch)
        assert {outcome.state for outcome in play.outcomes} == {JobState.SUCCESS}
        pids = results(play)
        assert {pids.count(pid) for pid in pids} == {10}


async def test_a_process_that_has_grown_is_replaced_between_jobs() -> None:
    async with one_lane(recycle_after_bytes=48 * memory.MIB) as play:
        pids = [await result_of(play, "grows", mb=20) for _ in range(4)]
        assert pids[0] == pids[1] == pids[2] != pids[3]


# --- a fresh process


async def test_a_fresh_job_has_a_process_that_ran_nothing_before_and_nothing_after(
    play: Play,
) -> None:
    before = await result_of(play, "shared")
    fresh = [await result_of(play, "fresh") for _ in range(3)]
    after = await result_of(play, "shared")
    assert len({before, *fresh, after}) == 5


@pytest.mark.parametrize("slots", [1, 2])
async def test_fresh_and_shared_jobs_do_not_starve_each_other(slots: int) -> None:
    async with one_lane(slots=slots) as play:
        await play.run_all([job("shared") for _ in range(60)])
        play.events.clear()
        batch = [job("fresh" if n % 4 == 1 else "shared") for n in range(40)]
        await play.run_all(batch)
        of = {outcome.job_id: json.loads(outcome.result or "") for outcome in play.outcomes}
        alone = [of[invocation.job_id] for invocation in batch if invocation.fresh]
        assert len(set(alone)) == 10
        assert not set(alone) & {of[each.job_id] for each in batch if not each.fresh}


async def test_a_fresh_job_does_not_wait_behind_a_long_one() -> None:
    async with one_lane() as play:
        await play.run_all([job("waits", seconds=0) for _ in range(30)])
        play.events.clear()
        long, fresh = job("waits", seconds=1), job("fresh")
        play.engine.start([long, fresh])
        await play.withdrawn(fresh)
        assert play.find(Outcome, long) is None


async def test_a_fresh_job_that_waits_can_be_interrupted_and_closing_gives_it_back() -> None:
    async with one_lane() as play:
        await result_of(play, "shared")
        stopped, left = job("fresh"), job("fresh")
        play.engine.start([stopped])
        play.engine.interrupt(stopped.job_id, Interrupt.CANCEL)
        await play.withdrawn(stopped)
        await play.has_room()
        await result_of(play, "shared")
        play.engine.start([left])
    assert play.given_back == [stopped, left]


async def test_every_attempt_of_a_fresh_job_has_a_process_of_its_own(tmp_path: Path) -> None:
    async with Jobs(database=str(tmp_path / "jobs.db"), lanes=1, nice=0) as jobs:
        before = await (await tasks_for_hygiene.shared.delay()).result(timeout=30)
        handle = await tasks_for_hygiene.fresh_at_last.delay(str(tmp_path / "pids"))
        others = [await tasks_for_hygiene.shared.delay() for _ in range(5)]
        pids = await handle.result(timeout=30)
        shared = {before, *[await other.result(timeout=30) for other in others]}
        assert len(set(pids)) == 3
        assert not shared & set(pids)
        assert (await jobs.get(handle.id)).job.attempt == 3


# --- row 29: memory


async def test_a_job_over_its_cap_is_a_failure_and_the_next_one_runs(tmp_path: Path) -> None:
    """Row 29, with store and dispatcher."""
    async with Jobs(database=str(tmp_path / "jobs.db"), lanes=1, nice=0):
        handle = await tasks_for_hygiene.needs.delay(200, "with a late handler")
        with pytest.raises(JobFailed, match="max_memory_mb=64"):
            await handle.result(timeout=30)
        assert await (await tasks_for_hygiene.shared.delay()).result(timeout=30)


@pytest.mark.parametrize("how", ["at once", "in small pieces", "with a late handler"])
async def test_a_job_over_its_memory_cap_fails_and_says_so(play: Play, how: str) -> None:
    """Row 29: a memory leak fails its own job; the lanes and the API stay."""
    before = await result_of(play, "shared")
    assert await result_of(play, "needs", mb=20) == 20 * memory.MIB
    outcome = await outcome_of(play, "needs", mb=200, how=how)
    assert outcome.state is JobState.FAILURE
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.error.type) == (ErrorKind.EXCEPTION, "MemoryError")
    assert "64 MiB" in outcome.error.message
    assert "max_memory_mb=64" in outcome.error.message
    assert await result_of(play, "shared") != before  # an allocation may have failed anywhere


async def test_a_job_that_is_stuck_at_its_cap_is_killed(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 29: as where CPython cannot even unwind, and all help is in vain."""
    monkeypatch.setattr("jobs.engines.caps._RELIEFS", 0)
    monkeypatch.setattr("jobs.engines.caps._STUCK", 1.0)
    outcome = await outcome_of(play, "needs", mb=200, how="and stays")
    assert outcome.error is not None
    assert outcome.error.kind is ErrorKind.CRASH
    assert "stuck at its memory cap (max_memory_mb=64)" in outcome.error.message
    assert await result_of(play, "shared")


async def test_an_async_job_over_its_memory_cap_fails(play: Play) -> None:
    """Row 29."""
    assert await result_of(play, "needs_async", mb=20) == 20 * memory.MIB
    outcome = await outcome_of(play, "needs_async", mb=200)
    assert outcome.error is not None
    assert "max_memory_mb=64" in outcome.error.message


async def test_the_cap_holds_for_programs_too_and_only_as_long_as_the_job(play: Play) -> None:
    """Row 29: what a job starts has the same limit."""
    assert await result_of(play, "needs", mb=10, how="in a program") == 0
    assert await result_of(play, "needs", mb=500, how="in a program") == 1
    pid = await result_of(play, "grows", mb=100)
    assert pid == await result_of(play, "shared")


async def test_the_kernel_is_to_spare_the_service(play: Play) -> None:
    """Row 29: if memory runs out, a lane goes, or what a job has started."""
    own = int(Path("/proc/self/oom_score_adj").read_text())
    assert await result_of(play, "oom_scores") == [1000, 1000]
    assert int(Path("/proc/self/oom_score_adj").read_text()) == own < 1000


def removed(group: Path) -> bool:
    """Try; what ran in it may be about to end."""
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


@pytest.fixture
def small_cgroup() -> Any:
    """A cgroup of 300 MB, as `add(pid)`, which moves a process there."""
    for top, limit in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        group = top / f"quart-jobs-test-{os.getpid()}"
        try:
            group.mkdir()
            (group / limit).write_text("300M")
        except OSError:
            if group.exists():
                group.rmdir()
            continue
        made = group
        break
    else:
        pytest.skip("no memory cgroup can be made here: that needs root and the memory controller")
    yield lambda pid: (made / "cgroup.procs").write_text(str(pid))
    until(lambda: removed(made))


async def test_a_child_killed_because_memory_ran_out_is_recognised(
    small_cgroup: Any, tmp_path: Path
) -> None:
    """Row 29, without a cap: the kernel kills the lane and spares the service, which says why."""
    code = (
        "import asyncio, sys\n"
        "sys.stdin.readline()\n"
        "from tests.process.test_hygiene import one_lane, outcome_of, result_of\n"
        "async def main():\n"
        "    async with one_lane() as play:\n"
        "        await result_of(play, 'shared')\n"
        "        print((await outcome_of(play, 'eats_all')).error.message)\n"
        "        await result_of(play, 'shared')\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as service:
        small_cgroup(service.pid)
        said, _ = await asyncio.to_thread(service.communicate, b"go\n", 50)
    assert service.returncode == 0
    assert "was killed by SIGKILL because memory ran out" in said.decode()
