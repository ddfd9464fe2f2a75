"""Lanes under fire: real processes that die, hang, fork, detach themselves, or lose their service."""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs import wire
from jobs.errors import AppNotImportable, ConfigurationError
from jobs.model import ErrorKind, JobState, Outcome
from jobs.protocols import Interrupt, Started
from tests.engine_play import Play, alive, boot, gone, invoke, playing, says

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux gives these guarantees")


@pytest.fixture
async def play() -> AsyncIterator[Play]:
    async with playing() as play:
        yield play


@pytest.fixture
async def impatient() -> AsyncIterator[Play]:
    """An engine that kills 0.2 s after it has asked."""
    async with playing(stop_grace=0.2) as play:
        yield play


def error_of(outcome: Outcome) -> Any:
    assert outcome.error is not None
    return outcome.error


async def warm(play: Play, task: str, **args: Any) -> None:
    """Let the engine learn that the task is short, so that it takes batches of it."""
    await play.run_all([invoke(task, **args) for _ in range(30)])
    play.events.clear()


# --- deaths


async def test_a_killed_child_fails_its_own_job_and_the_neighbour_never_notices(play: Play) -> None:
    """Fault row 3."""
    neighbour = play.start("sleeps", seconds=0.5)
    await play.began(neighbour)
    victim = play.start("dies")
    error = error_of(await play.outcome(victim))
    assert error.kind is ErrorKind.CRASH
    assert "SIGKILL" in error.message
    assert "by whom is not known" in error.message
    assert (await play.outcome(neighbour)).result == '"slept"'


@pytest.mark.parametrize(
    ("task", "args", "said"),
    [
        ("dies", {"number": signal.SIGSEGV}, "SIGSEGV"),
        ("dies", {"number": signal.SIGTERM}, "SIGTERM"),
        ("exits", {"code": 0}, "exit code 0"),
        ("exits", {"code": 3}, "exit code 3"),
        ("closes_everything", {}, "lost its channel"),
    ],
)
async def test_how_the_child_ended_is_told(
    play: Play, task: str, args: dict[str, Any], said: str
) -> None:
    """Fault row 32."""
    outcome = await play.run(task, **args)
    assert outcome.state is JobState.FAILURE
    assert error_of(outcome).kind is ErrorKind.CRASH
    assert outcome.started_at is not None
    assert said in error_of(outcome).message
    await play.has_room(2)
    assert (await play.run("add", a=1)).result == "2"


async def test_only_the_job_that_killed_the_child_is_charged_in_a_batch() -> None:
    async with playing(slots=1) as play:
        await warm(play, "kills_if", number=0, fatal=1)
        batch = [invoke("kills_if", number=number, fatal=5) for number in range(10)]
        assert play.engine.free >= 10
        play.engine.start(batch)
        await play.outcome(batch[5])
        await play.until(lambda: len(play.given_back) == 4)
        ended = {outcome.job_id: outcome for outcome in play.outcomes}
        assert list(ended) == [invocation.job_id for invocation in batch[:6]]
        assert [ended[i.job_id].result for i in batch[:5]] == ["0", "1", "2", "3", "4"]
        assert error_of(ended[batch[5].job_id]).kind is ErrorKind.CRASH
        assert play.given_back == batch[6:]


async def test_a_child_killed_between_jobs_is_replaced_and_no_job_is_charged() -> None:
    """Fault row 1."""
    async with playing(slots=1) as play:
        killed = []
        for _ in range(3):
            await play.run_all([invoke("pid")])
            killed.append(int(play.outcomes[0].result or ""))
            os.kill(killed[-1], signal.SIGKILL)
            assert await gone(killed[-1])
            play.events.clear()
        await play.run_all([invoke("add", a=n) for n in range(20)])
        assert {outcome.state for outcome in play.outcomes} == {JobState.SUCCESS}
        assert len(set(killed)) == 3


async def test_the_guardian_killed_takes_its_lanes_along_and_new_ones_open(play: Play) -> None:
    """Fault row 9."""
    invocation = play.start("sleeps", seconds=30)
    lane = (await play.began(invocation)).pid
    guardian = int(Path(f"/proc/{lane}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(guardian, signal.SIGKILL)
    assert error_of(await play.outcome(invocation)).kind is ErrorKind.CRASH
    assert await gone(lane)
    await play.has_room(2)
    assert (await play.run("add", a=1)).result == "2"


# --- what jobs leave behind


async def test_a_detached_daemon_is_gone_when_its_job_has_ended(play: Play, tmp_path: Path) -> None:
    """Fault row 28."""
    outcome = await play.run("leaves_a_daemon", file=str(tmp_path / "pid"))
    assert outcome.state is JobState.SUCCESS
    assert not alive(int(outcome.result or ""))


async def test_a_program_in_its_own_session_is_gone_when_its_job_has_ended(
    play: Play, tmp_path: Path
) -> None:
    """Fault row 28."""
    outcome = await play.run("leaves_a_program", file=str(tmp_path / "pid"))
    assert outcome.state is JobState.SUCCESS
    assert not alive(int(outcome.result or ""))


async def test_a_program_is_gone_when_its_job_has_killed_the_lane(
    play: Play, tmp_path: Path
) -> None:
    """Fault row 28."""
    outcome = await play.run("leaves_a_program", file=str(tmp_path / "pid"), then="die")
    assert error_of(outcome).kind is ErrorKind.CRASH
    assert not alive(int((tmp_path / "pid").read_text()))


async def test_the_services_own_processes_are_left_alone(play: Play, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as own:  # noqa: ASYNC220
        outcome = await play.run("leaves_a_program", file=str(tmp_path / "pid"), then="die")
        assert error_of(outcome).kind is ErrorKind.CRASH
        assert own.poll() is None
        own.kill()


async def test_a_task_that_forks_and_returns_twice_has_one_outcome(play: Play) -> None:
    """Fault row 28."""
    outcome = await play.run("forks_and_returns_twice")
    assert outcome.state is JobState.SUCCESS
    assert (await play.run("add", a=1)).result == "2"
    assert len(play.outcomes) == 2


async def test_the_services_lock_is_held_as_long_as_a_child_lives(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    held = os.open(file, os.O_CREAT | os.O_RDWR)
    other = os.open(file, os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    async with playing(slots=1, hold=held) as play:
        await play.run("add", a=1)
        os.close(held)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)


async def test_programs_of_jobs_inherit_nothing(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as held:
        async with playing(slots=1, hold=held.fileno()) as play:
            result = json.loads((await play.run("descriptors_of_a_program")).result or "")
    assert [name for name in result if "lock" in name or "socket" in name] == []


async def test_a_suicidal_background_task_does_not_end_the_child(play: Play) -> None:
    assert (await play.run("leaves_a_suicidal_task_behind")).result == '"True"'


async def test_children_do_not_run_the_main_module_again(play: Play) -> None:
    ours = getattr(sys.modules["__main__"], "__file__", "no file")
    assert (await play.run("main_module")).result != json.dumps(ours)


# --- stopping


async def test_a_sync_job_is_stopped_softly_and_its_child_lives_on(tmp_path: Path) -> None:
    file = tmp_path / "file"
    async with playing(slots=1) as play:
        before = (await play.run("pid")).result
        invocation = play.start("sleeps", seconds=30, file=str(file))
        await says(file, "began")
        play.engine.interrupt(invocation.job_id, Interrupt.CANCEL)
        outcome = await play.outcome(invocation)
        assert outcome.state is JobState.REVOKED
        assert error_of(outcome).kind is ErrorKind.CANCELLED
        assert "JobInterrupted" in error_of(outcome).traceback
        assert "engines" not in error_of(outcome).traceback.replace("tasks_for_engines", "")
        assert file.read_text() == "cleaned up"
        assert (await play.run("pid")).result == before


async def test_a_sync_job_over_its_time_cleans_up_and_fails(play: Play, tmp_path: Path) -> None:
    file = tmp_path / "file"
    outcome = await play.run("sleeps", seconds=30, file=str(file), timeout=0.2)
    assert outcome.state is JobState.FAILURE
    assert error_of(outcome).kind is ErrorKind.TIMEOUT
    assert file.read_text() == "cleaned up"


async def test_a_job_that_ignores_its_interrupt_is_killed(impatient: Play, tmp_path: Path) -> None:
    """Fault row 37."""
    file = tmp_path / "file"
    invocation = impatient.start("ignores_interrupts", file=str(file))
    await says(file, "began")
    impatient.engine.interrupt(invocation.job_id, Interrupt.CANCEL)
    outcome = await impatient.outcome(invocation)
    assert outcome.state is JobState.REVOKED
    assert "killed" in error_of(outcome).message
    assert file.read_text() == "ignored"


async def test_a_job_may_answer_its_interrupt_with_a_result(play: Play, tmp_path: Path) -> None:
    file = tmp_path / "file"
    invocation = play.start("answers_an_interrupt", file=str(file))
    await says(file, "began")
    play.engine.interrupt(invocation.job_id, Interrupt.CANCEL)
    assert (await play.outcome(invocation)).result == '"as far as I came"'


async def test_a_job_that_holds_the_gil_is_killed_when_its_time_is_over(impatient: Play) -> None:
    """Fault row 34."""
    outcome = await impatient.run("holds_the_gil", seconds=60, timeout=0.2)
    assert error_of(outcome).kind is ErrorKind.TIMEOUT
    assert "killed" in error_of(outcome).message
    await impatient.has_room(2)


async def test_a_stopped_process_is_killed_when_its_time_is_over(impatient: Play) -> None:
    """Fault row 12."""
    invocation = impatient.start("sleeps", seconds=30, timeout=0.3)
    os.kill((await impatient.began(invocation)).pid, signal.SIGSTOP)
    assert error_of(await impatient.outcome(invocation)).kind is ErrorKind.TIMEOUT


async def test_who_waits_behind_a_long_job_is_given_back() -> None:
    async with playing(slots=1) as play:
        await warm(play, "sleeps", seconds=0)
        batch = [invoke("sleeps", seconds=30 if n == 1 else 0) for n in range(4)]
        play.engine.start(batch)
        await play.until(lambda: len(play.given_back) == 2)
        assert {i.job_id for i in play.given_back} == {i.job_id for i in batch[2:]}
        play.engine.interrupt(batch[1].job_id, Interrupt.CANCEL)
        await play.outcome(batch[1])


async def test_an_interrupted_job_that_has_not_begun_is_given_back() -> None:
    async with playing(slots=1) as play:
        await warm(play, "sleeps", seconds=0)
        batch = [invoke("sleeps", seconds=0.04 if n == 0 else 0) for n in range(4)]
        play.engine.start(batch)
        play.engine.interrupt(batch[2].job_id, Interrupt.CANCEL)
        await play.withdrawn(batch[2])
        await play.outcome(batch[3])
        assert play.given_back == [batch[2]]


async def test_closing_kills_what_does_not_stop(tmp_path: Path) -> None:
    file = tmp_path / "file"
    async with playing(stop_grace=0.2) as play:
        invocation = play.start("ignores_interrupts", file=str(file))
        await says(file, "began")
        pid = (await play.began(invocation)).pid
    assert play.stopped == [invocation.job_id]
    assert not alive(pid)


async def test_a_second_cancellation_closes_at_once(tmp_path: Path) -> None:
    file = tmp_path / "file"
    opened = asyncio.Event()
    plays: list[Play] = []

    async def serve() -> None:
        async with playing(stop_grace=30, grace=30) as play:
            plays.append(play)
            play.start("ignores_interrupts", file=str(file))
            opened.set()
            await asyncio.sleep(60)

    server = asyncio.create_task(serve())
    await opened.wait()
    await says(file, "began")
    await plays[0].until(lambda: plays[0].events)
    pid = next(event.pid for event in plays[0].events if isinstance(event, Started))
    server.cancel()
    await asyncio.sleep(0.1)
    began = time.monotonic()
    server.cancel()
    with pytest.raises(asyncio.CancelledError):
        await server
    assert time.monotonic() - began < 2
    assert await gone(pid)
    assert len(plays[0].stopped) == 1


@pytest.mark.parametrize("timeout", [None, 0.3])
async def test_a_sync_job_can_ask_whether_it_is_to_stop(
    play: Play, tmp_path: Path, timeout: float | None
) -> None:
    file = tmp_path / "file"
    invocation = play.start("asks_whether_to_stop", timeout, file=str(file))
    await says(file, "began")
    if timeout is None:
        play.engine.interrupt(invocation.job_id, Interrupt.CANCEL)
    outcome = await play.outcome(invocation)
    assert (outcome.state, outcome.result) == (JobState.SUCCESS, '"False True [True]"')


async def test_a_service_that_stood_still_does_not_time_its_jobs_out(play: Play) -> None:
    """Fault row 13."""
    ended = play.start("sleeps", seconds=0.2, timeout=1)
    running = play.start("sleeps", seconds=2.3, timeout=1)
    await play.began(ended)
    await play.began(running)
    time.sleep(2)  # noqa: ASYNC251 - what a stopped service looks like
    assert (await play.outcome(ended)).state is JobState.SUCCESS
    assert (await play.outcome(running)).state is JobState.SUCCESS


# --- the end of the service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Any]:
    """Start `tests.engine_service`; returns the process and the ids of all beneath it."""
    started = []

    def start(then: str) -> tuple[subprocess.Popen[bytes], list[int]]:
        file = tmp_path / "pids"
        command = [sys.executable, "-m", "tests.engine_service", str(file), then]
        process = subprocess.Popen(command, cwd=ROOT)
        started.append(process)
        deadline = time.monotonic() + 30
        while not file.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pids = json.loads(file.read_text())
        return process, pids

    yield start
    for process in started:
        process.kill()
        process.wait()


async def test_nothing_outlives_a_service_that_is_killed(service: Any) -> None:
    """Fault row 7."""
    process, pids = service("wait")
    assert all(map(alive, pids))
    assert len(pids) >= 7  # forkserver, resource tracker, three lanes, two programs
    process.kill()
    process.wait()
    assert await gone(*pids)


async def test_nothing_of_the_old_program_outlives_an_exec(service: Any) -> None:
    process, pids = service("exec")
    assert await gone(*pids)
    assert process.poll() is None


# --- starting


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('no database here')", "RuntimeError: no database here"),
        ("import nosuchmodule", "No module named 'nosuchmodule'"),
        ("import sys; sys.exit(4)", "SystemExit"),
        ("import os; os._exit(5)", "exit code 5"),
        ("def broken(:", "SyntaxError"),
    ],
)
async def test_a_module_that_does_not_import_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    (tmp_path / "module_with_a_fault.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AppNotImportable) as caught:
        async with playing(modules=("module_with_a_fault",)):
            pass
    assert "module_with_a_fault" in str(caught.value)
    assert said in str(caught.value)


async def test_a_missing_app_attribute_stops_the_start() -> None:
    with pytest.raises(AppNotImportable, match=r"tests\.tasks_for_engines:app"):
        async with playing(app="tests.tasks_for_engines:app"):
            pass


async def test_a_module_that_never_returns_stops_the_start_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module_that_serves.py").write_text("import time\ntime.sleep(600)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("jobs.engines.lanes_process.START_SECONDS", 1.0)
    with pytest.raises(AppNotImportable, match="__main__"):
        async with playing(modules=("module_that_serves",)):
            pass


def test_a_daemonic_server_process_is_told_what_to_do() -> None:
    code = (
        "import asyncio, multiprocessing\n"
        "from tests.engine_play import playing\n"
        "async def main():\n"
        "    async with playing(): pass\n"
        "def run(): asyncio.run(main())\n"
        "if __name__ == '__main__':\n"
        "    worker = multiprocessing.get_context('fork').Process(target=run, daemon=True)\n"
        "    worker.start(); worker.join()\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=50
    ).stderr
    assert "daemon = false" in told
    assert "quart-jobs serve" in told
    assert ConfigurationError.__name__ in told


def run_script(folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(source)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(script)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=50
    )


def test_a_script_without_a_guard_works(tmp_path: Path) -> None:
    shown = run_script(
        tmp_path,
        "import asyncio\n"
        "print('ran the script', flush=True)\n"
        "from tests.engine_play import playing\n"
        "async def main():\n"
        "    async with playing() as play:\n"
        "        print((await play.run('add', a=1)).result)\n"
        "asyncio.run(main())\n",
    )
    assert shown.stdout.split("\n")[:2] == ["ran the script", "2"], shown.stderr


def test_modules_that_would_spoil_the_forkserver_are_left_to_the_children(tmp_path: Path) -> None:
    (tmp_path / "module_with_a_thread.py").write_text(
        "import threading, time, os\n"
        "from jobs import task\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        "@task\n"
        "def threads() -> int: return len(os.listdir('/proc/self/task'))\n"
    )
    shown = run_script(
        tmp_path,
        "import asyncio, logging\n"
        "from tests.engine_play import playing, invoke\n"
        "logging.basicConfig()\n"
        "async def main():\n"
        "    async with playing(modules=('module_with_a_thread',)) as play:\n"
        "        task = invoke('')._replace(task='module_with_a_thread.threads')\n"
        "        play.engine.start([task])\n"
        "        print((await play.outcome(task)).result)\n"
        "asyncio.run(main())\n",
    )
    assert shown.stdout.strip() == "3", shown.stderr  # its main one, its lane's, the module's
    assert shown.stderr.count("they start a thread") == 1


# --- submitting from a job


async def test_a_sync_job_submits_and_returns_when_the_jobs_are_kept(play: Play) -> None:
    invocation = play.start("submits", how_many=3)
    ids = []
    for _ in range(3):
        call = await play.call()
        assert call.verb == "add"
        (job,) = wire.jobs_from_json(call.body)
        assert job.task.endswith(".add")
        assert play.find(Outcome, invocation) is None
        ids.append(job.id)
        call.reply(wire.answer(None))
    assert json.loads((await play.outcome(invocation)).result or "") == ids


async def test_an_async_job_submits_with_options(play: Play) -> None:
    invocation = play.start("submits_async")
    call = await play.call()
    (job,) = wire.jobs_from_json(call.body)
    assert job.priority == 3
    assert job.run_at is not None
    call.reply(wire.answer(None))
    assert json.loads((await play.outcome(invocation)).result or "") == job.id


async def test_a_refused_add_is_raised_in_the_job(play: Play) -> None:
    from jobs.errors import StoreBusy

    invocation = play.start("submits", how_many=1)
    (await play.call()).reply(wire.refusal(StoreBusy("too much is waiting")))
    error = error_of(await play.outcome(invocation))
    assert (error.type, error.message) == ("StoreBusy", "too much is waiting")


async def test_a_job_looks_up_and_cancels_another(play: Play) -> None:
    invocation = play.start("looks_up", job_id="some-id")
    add = await play.call()
    (job,) = wire.jobs_from_json(add.body)
    add.reply(wire.answer(None))
    get = await play.call()
    assert (get.verb, wire.id_from_json(get.body)) == ("get", "some-id")
    get.reply(wire.answer(wire.job_to_dict(job)))
    cancel = await play.call()
    assert cancel.verb == "cancel"
    cancel.reply(wire.answer("PENDING"))
    outcome = await play.outcome(invocation)
    assert outcome.result == json.dumps(f"{job.task} PENDING")


async def test_a_job_that_would_wait_for_a_job_fails(play: Play) -> None:
    invocation = play.start("waits_for_a_job")
    (await play.call()).reply(wire.answer(None))
    assert error_of(await play.outcome(invocation)).type == "WouldDeadlock"


async def test_apply_in_a_job_runs_there(play: Play) -> None:
    assert (await play.run("applies")).result == "5"


def test_boot_has_no_secrets_in_its_representation() -> None:
    assert boot().keys[0] not in repr(boot())


async def test_a_lane_gives_way_also_where_the_kernel_schedules_by_session() -> None:
    own = os.nice(0)
    async with playing(nice=7) as play:
        ended = await play.outcome(play.start("scheduling"))
    niceness, group = json.loads(ended.result or "")
    assert niceness == own + 7
    assert group.endswith(f"nice {own + 7}")
