"""What jobs write: each job's own, whole or capped, never at the cost of anybody else; and what they use."""

import asyncio
import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobs.model import Invocation, JobState, Outcome, Usage, new_job_id
from jobs.protocols import Wrote
from tests.engine_play import Play, invoke, playing

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux gives these guarantees")


@pytest.fixture
async def play() -> AsyncIterator[Play]:
    async with playing() as play:
        yield play


def log_of(outcome: Outcome) -> str:
    assert outcome.log is not None
    return outcome.log


def usage_of(outcome: Outcome) -> Usage:
    assert outcome.state is JobState.SUCCESS, outcome
    assert outcome.usage is not None
    return outcome.usage


# --- what is captured


@pytest.mark.parametrize("task", ["speaks", "speaks_async"])
async def test_all_that_a_job_writes_is_in_its_log_in_order(play: Play, task: str) -> None:
    log = log_of(await play.run(task))
    assert re.fullmatch(
        r"out 1\nerr 2\n\d{4}-.{18} INFO shop\.mail: log 3\nprogram 4\nout 5", log
    ), log
    assert (await play.run("nothing")).log is None


async def test_any_bytes_become_text(play: Play) -> None:
    assert log_of(await play.run("writes_bytes")) == "a\ufffdb\ufffdc\r\nd\\ud800\n"


async def test_each_job_has_its_own_output_whatever_its_size() -> None:
    sizes = random.Random(8).choices([0, 0, 1, 60, 3_000, 40_000, 70_000, 200_000], k=300)
    batch = [invoke("writes", text=f"{at:05} {os.urandom(4).hex()}\n") for at in range(len(sizes))]
    expected = {}
    for at, size in enumerate(sizes):
        args = json.loads(batch[at].args)
        times = -(-size // len(args["text"]))
        batch[at] = batch[at]._replace(args=json.dumps(args | {"times": times}))
        expected[batch[at].job_id] = args["text"] * times or None
    async with playing(slots=3) as play:
        await play.run_all(batch)
    assert {outcome.job_id: outcome.log for outcome in play.outcomes} == expected


async def test_short_jobs_in_batches_keep_their_lines_apart() -> None:
    kinds = random.Random(9).choices([0, 1, 1, 3], k=3_000)
    batch = [invoke("writes", text=f"{at}\n", times=times) for at, times in enumerate(kinds)]
    async with playing(slots=2) as play:
        await play.run_all(batch)
    logs = {outcome.job_id: outcome.log for outcome in play.outcomes}
    expected = [f"{at}\n" * times or None for at, times in enumerate(kinds)]
    assert [logs[invocation.job_id] for invocation in batch] == expected


@pytest.mark.parametrize(
    ("then", "number"),
    [("die", signal.SIGKILL), ("exit", None), ("read at null", signal.SIGSEGV)],
)
async def test_a_crash_comes_with_what_was_written_before(
    play: Play, then: str, number: int | None
) -> None:
    outcome = await play.run("speaks_and", then=then)
    assert outcome.state is JobState.FAILURE
    assert log_of(outcome).startswith("before the end\n")
    assert outcome.signal == number
    assert outcome.usage is None
    if number == signal.SIGSEGV:
        assert "Segmentation fault" in log_of(outcome)
        assert "in speaks_and" in log_of(outcome)
    assert (await play.run("nothing")).log is None


async def test_a_failure_comes_with_what_was_written_before(play: Play) -> None:
    outcome = await play.run("speaks_and", then="raise")
    assert (outcome.state, outcome.log) == (JobState.FAILURE, "before the end\n")
    assert outcome.pid is not None
    assert outcome.signal is None


@pytest.mark.parametrize(("task", "stop_grace"), [("ignores_interrupts_aloud", 0.2), ("hang", 5.0)])
async def test_a_job_over_its_time_comes_with_what_was_written_before(
    tmp_path: Path, task: str, stop_grace: float
) -> None:
    async with playing(stop_grace=stop_grace) as play:
        if task == "hang":
            outcome = await play.run("speaks_and", timeout=0.3, then="hang")
            assert (outcome.log, outcome.signal) == ("before the end\n", None)
        else:
            outcome = await play.run(task, timeout=0.3)
            assert log_of(outcome).startswith("began\nignored\n")
            assert outcome.signal == signal.SIGKILL


# --- what does not fit


@pytest.mark.parametrize("with_a_program", [False, True])
async def test_a_flood_costs_its_cap_and_nobody_notices(play: Play, with_a_program: bool) -> None:
    await play.run("nothing")
    before = _rss()
    slowest = most = 0.0

    async def watch() -> None:
        nonlocal slowest, most
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.001)
            slowest = max(slowest, time.monotonic() - began)
            most = max(most, _rss())

    flood = play.start("floods", megabytes=200, with_a_program=with_a_program)
    await play.began(flood)
    watching = asyncio.create_task(watch())
    neighbours = 0
    while play.find(Outcome, flood) is None:
        assert (await play.run("add", a=1)).result == "2"
        neighbours += 1
    watching.cancel()
    log = log_of(await play.outcome(flood))
    head, left_out, tail = re.split(r"\n… (\d+) bytes left out …\n", log)
    assert len(head) + len(tail) == 1_048_576
    assert int(left_out) == 200 * 1_048_576 + len("the beginning\nthe end\n") - 1_048_576
    assert head.startswith("the beginning\ny\ny\n")
    assert tail.endswith("y\ny\nthe end\n")
    assert neighbours > 5
    assert slowest < 0.25
    assert most - before < 10_000_000
    assert (await play.run("nothing")).log is None


async def test_the_cap_can_be_set() -> None:
    async with playing(slots=1, max_log_bytes=100) as play:
        assert log_of(await play.run("writes", text="0123456789", times=10)) == "0123456789" * 10
        log = log_of(await play.run("writes", text="0123456789", times=11))
        assert log == "0123456789" * 5 + "\n… 10 bytes left out …\n" + "0123456789" * 5


async def test_a_job_that_holds_the_gil_writes_on_when_the_service_is_back(play: Play) -> None:
    invocation = play.start("writes_while_it_holds_the_gil", megabytes=3)
    await play.began(invocation)
    time.sleep(0.5)  # noqa: ASYNC251 - a service that is busy: nobody reads
    outcome = await play.outcome(invocation)
    assert outcome.state is JobState.SUCCESS
    assert "2097152 bytes left out" in log_of(outcome)


@pytest.mark.parametrize("task", ["closes_its_output", "makes_its_output_non_blocking"])
async def test_what_a_job_does_to_its_descriptors_hangs_nothing(play: Play, task: str) -> None:
    assert (await play.run(task)).state is JobState.SUCCESS
    assert (await play.run("add", a=1)).result == "2"


# --- what no job has written


async def test_what_is_written_at_import_goes_to_the_services_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "module_that_speaks.py").write_text(
        "import threading\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "print('as it was imported', 'x' * 2_000_000)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    modules = ("tests.tasks_for_engines", "module_that_speaks")
    async with playing(slots=1, modules=modules) as play:
        assert (await play.run("nothing")).log is None
    assert "as it was imported xxx" in capfd.readouterr().err


async def test_what_is_written_at_import_into_the_forkserver_is_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module_that_speaks_a_little.py").write_text(
        "import sys\nprint('held back')\nprint('said at once', file=sys.stderr)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(
        "import asyncio\n"
        "from tests.engine_play import playing\n"
        "modules = ('tests.tasks_for_engines', 'module_that_speaks_a_little')\n"
        "async def main():\n"
        "    async with playing(slots=3, modules=modules) as play:\n"
        "        assert (await play.run('nothing')).log is None\n"
        "asyncio.run(main())\n"
    )
    root = str(Path(__file__).parents[2])
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        env=os.environ | {"PYTHONPATH": f"{root}:{tmp_path}", "PYTHONUNBUFFERED": ""},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await program.communicate())[0].decode()
    assert (program.returncode, said) == (0, "said at once\nheld back\n")


async def test_without_capture_output_goes_where_the_services_goes() -> None:
    async with playing(slots=1, max_log_bytes=None) as play:
        outcome = await play.run("where_its_output_goes")
    assert outcome.log is None
    assert json.loads(outcome.result or "") is False
    async with playing(slots=1) as play:
        assert json.loads((await play.run("where_its_output_goes")).result or "") is True


# --- logging


@pytest.mark.parametrize("early", [False, True])
async def test_the_apps_logger_writes_into_the_jobs_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    name = f"app_that_logs_{early}".lower()
    (tmp_path / f"{name}.py").write_text(
        "from quart import Quart, current_app\n"
        "from jobs import Jobs, task\n"
        "app = Quart(__name__)\n"
        "Jobs(app)\n"
        f"if {early}: app.logger.warning('imported')\n"
        "@task\n"
        "def logs(text: str) -> None: current_app.logger.info(text)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    batch = [
        Invocation(new_job_id(), 1, f"{name}.logs", json.dumps({"text": f"this is {number}"}))
        for number in range(20)
    ]
    async with playing(slots=1, app=f"{name}:app", modules=(name,)) as play:
        await play.run_all(batch)
    logs = {outcome.job_id: log_of(outcome) for outcome in play.outcomes}
    for number, invocation in enumerate(batch):
        assert logs[invocation.job_id].endswith(f": this is {number}\n")
        assert logs[invocation.job_id].count("\n") == 1, "once, not by each handler"


async def test_an_app_that_has_configured_logging_keeps_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module_with_its_logging.py").write_text(
        "import logging\n"
        "from jobs import task\n"
        "logging.basicConfig(format='my %(message)s', level='DEBUG')\n"
        "@task\n"
        "def logs() -> None: logging.debug('format')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    invocation = Invocation(new_job_id(), 1, "module_with_its_logging.logs", "{}")
    async with playing(slots=1, modules=("module_with_its_logging",)) as play:
        play.engine.start([invocation])
        assert (await play.outcome(invocation)).log == "my format\n"


# --- what jobs use


async def test_cpu_seconds_are_measured_with_those_of_programs() -> None:
    async with playing(slots=1) as play:
        own = usage_of(await play.run("uses", cpu=0.2))
        programs = usage_of(await play.run("uses", cpu=0.2, in_a_program=True))
        nobodys = usage_of(await play.run("nothing"))
    assert 0.2 <= own.cpu < 0.4
    assert 0.2 <= programs.cpu < 0.6
    assert nobodys.cpu < 0.1


async def test_the_peak_of_memory_is_the_jobs_own() -> None:
    async with playing(slots=1) as play:
        before = usage_of(await play.run("nothing")).max_rss
        hungry = usage_of(await play.run("uses", megabytes=100)).max_rss
        after = usage_of(await play.run("nothing")).max_rss
    assert 10_000_000 < before < 200_000_000
    assert 95_000_000 < hungry - before < 120_000_000
    assert after - before < 20_000_000


def _rss() -> int:
    """Bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- what is told of it while the job runs


def told_of(play: Play, invocation: Invocation) -> str:
    return "".join(
        event.text
        for event in play.events
        if isinstance(event, Wrote) and event.job_id == invocation.job_id
    )


async def test_lines_are_told_while_the_job_runs(play: Play, tmp_path: Path) -> None:
    text = "one\nzwö\nunfinished"
    invocation = play.start("writes_until", text=text, file=str(tmp_path / "go"))
    await play.until(lambda: told_of(play, invocation))
    assert told_of(play, invocation) == "one\nzwö\n"
    (tmp_path / "go").touch()
    assert log_of(await play.outcome(invocation)) == text
    assert told_of(play, invocation) == "one\nzwö\n"


async def test_what_is_told_is_the_beginning_of_the_log_and_capped_like_it(tmp_path: Path) -> None:
    line = b"a\0\xffb\xc3\r"
    async with playing(max_log_bytes=1000) as play:
        text = (line * 1000).decode("latin-1")
        invocation = play.start("writes_until", text=text, file=str(tmp_path / "go"))
        await play.until(lambda: told_of(play, invocation))
        (tmp_path / "go").touch()
        log = log_of(await play.outcome(invocation))
        told = told_of(play, invocation)
        assert log.startswith(told)
        assert log.encode().startswith(told.encode())
        assert 300 < len(told) < 1000


async def test_a_short_job_is_told_of_with_its_end_alone(play: Play) -> None:
    batch = [invoke("writes", text="line\n", times=1) for _ in range(200)]
    await play.run_all(batch)
    assert {outcome.log for outcome in play.outcomes} == {"line\n"}
    assert len([event for event in play.events if isinstance(event, Wrote)]) < 20
