"""Fault matrix: processes that stand still, and clocks that jump."""

import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.errors import StoreBusy
from jobs.stores.gate import Gate
from jobs.stores.place import Place
from tests.engine_play import alive
from tests.matrix_play import ENV, TASKS, Notes, ended, look, submit
from tests.running import Running, Starter, starter, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux gives these guarantees")

start = pytest.fixture(starter)
DAYS = 172_800  #: two of them, in seconds


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path)


# --- standing still


def test_a_stopped_child_is_killed_when_its_time_is_over(start: Starter, notes: Notes) -> None:
    """Fault row 12: and the SIGCONT that comes too late changes nothing."""
    service = start.serve(*TASKS, "--stop-grace", "0.3", **ENV)
    accepted = submit(service, "works", args=[notes.path, 1, 0.5], timeout=1)
    child = notes.last("began", 1).pid
    os.kill(child, signal.SIGSTOP)
    job = ended(service, accepted)
    assert (job["state"], job["error"]["kind"]) == ("FAILURE", "timeout")
    assert not alive(child)
    assert not notes.all("ended")


def test_a_child_that_stands_still_for_a_while_goes_on(start: Starter, notes: Notes) -> None:
    """Fault row 12."""
    service = start.serve(*TASKS, **ENV)
    accepted = submit(service, "works", args=[notes.path, 1, 0.5], timeout=20)
    child = notes.last("began", 1).pid
    os.kill(child, signal.SIGSTOP)
    time.sleep(1)  # longer than it would have taken
    assert look(service, accepted)["state"] == "STARTED"
    os.kill(child, signal.SIGCONT)
    assert ended(service, accepted)["state"] == "SUCCESS"


@pytest.mark.parametrize("whole", [False, True], ids=["service", "service and children"])
def test_a_service_that_stood_still_times_nothing_out_and_loses_nothing(
    start: Starter, notes: Notes, whole: bool
) -> None:
    """Fault row 13: nor does a service beside it take its jobs."""
    service = start.serve(*TASKS, "--lanes", "3", **ENV)
    beside = start.serve(*TASKS, **ENV)
    stop_between_writes(beside, start)  # so that the first gets the jobs
    accepted = [
        submit(service, "works", args=[notes.path, number, seconds], timeout=2)
        for number, seconds in enumerate((0.5, 1.0, 1.5))
    ]
    for number in range(3):
        notes.last("began", number)
    stopped = family(service) if whole else [service.process.pid]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    for pid in family(beside):
        os.kill(pid, signal.SIGCONT)
    time.sleep(3)  # past every timeout
    assert beside.get("/readyz").status == 200
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    for each in accepted:
        job = ended(service, each)
        assert (job["state"], job["attempt"]) == ("SUCCESS", 1), job
    assert len(notes.all("began")) == 3


def stop_between_writes(service: Running, start: Starter) -> None:
    """Stopped amid a write it would keep the others from theirs."""
    gate = Gate(Place.at(Path(start.env["JOBS_DATABASE"])).gate)
    while True:
        for pid in family(service):
            os.kill(pid, signal.SIGSTOP)
        try:
            with gate.held(0.0):
                break
        except StoreBusy:
            for pid in family(service):
                os.kill(pid, signal.SIGCONT)
            time.sleep(0.05)
    gate.close()


def family(service: Running) -> list[int]:
    return list(service.family())


# --- clocks that jump


STEPPED = """
import pathlib, time

_true, _true_ns, _file = time.time, time.time_ns, pathlib.Path({file!r})
time.time = lambda: _true() + int(_file.read_text())
time.time_ns = lambda: _true_ns() + int(_file.read_text()) * 10**9
"""


class Clock:
    """The wall clock of a service and of all its processes. (libfaketime would do, but for Python's own
    sleep, which it makes fail.)"""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set(0)
        (folder / "clock_that_steps").mkdir()
        (folder / "clock_that_steps/sitecustomize.py").write_text(
            STEPPED.format(file=str(self._file))
        )
        self.env = ENV | {"PYTHONPATH": f"{folder / 'clock_that_steps'}:{ENV['PYTHONPATH']}"}

    def set(self, seconds: int) -> None:
        """Let it be so far ahead of the true time."""
        part = self._file.with_suffix(".part")
        part.write_text(str(seconds))
        part.rename(self._file)


def _when(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize("jump", [DAYS, -DAYS], ids=["ahead", "back"])
def test_a_clock_that_jumps_times_nothing_out_and_delays_go_by_it(
    start: Starter, notes: Notes, tmp_path: Path, jump: int
) -> None:
    """Fault row 21."""
    clock = Clock(tmp_path)
    service = start.serve(*TASKS, "--lanes", "2", **clock.env)
    running = submit(service, "works", args=[notes.path, 1, 2.0], timeout=10)
    limited = submit(service, "works", args=[notes.path, 2, 300.0], timeout=2)
    delayed = submit(service, "works", args=[notes.path, 3], countdown=3600)
    before = [submit(service, "works", args=[notes.path, 10 + n]).json()["id"] for n in range(10)]
    notes.last("began", 1)
    began = notes.last("began", 2).at
    clock.set(jump)

    job = ended(service, limited)
    took = time.monotonic() - began
    assert job["error"]["kind"] == "timeout"
    assert 1.5 < took < 2.0 + 5.0, f"timed out after {took:.1f} s"
    assert ended(service, running)["state"] == "SUCCESS"

    now = submit(service, "works", args=[notes.path, 4])
    after = [submit(service, "works", args=[notes.path, 20 + n]).json()["id"] for n in range(10)]
    job = ended(service, now)
    assert job["state"] == "SUCCESS"
    assert abs(_when(job["created_at"]) - datetime.now(UTC).timestamp() - jump) < 60
    assert len({*before, *after}) == 20

    if jump > 0:
        assert ended(service, delayed)["state"] == "SUCCESS"
    else:
        assert look(service, delayed)["state"] == "PENDING"
        assert not notes.all("began", 3)
        clock.set(3700)
        assert ended(service, delayed)["state"] == "SUCCESS"
    assert service.get("/readyz").status == 200
    assert service.stop() == 0


def test_a_job_submitted_before_the_clock_went_back_is_not_kept_waiting(
    start: Starter, notes: Notes, tmp_path: Path
) -> None:
    """Fault row 21: jobs run in the order of their commits, whatever the clock says."""
    clock = Clock(tmp_path)
    service = start.serve(*TASKS, JOBS_LANES="0", **clock.env)
    first = submit(service, "works", args=[notes.path, 1])
    clock.set(-DAYS)
    second = submit(service, "works", args=[notes.path, 2])
    worker = start.quart_jobs("worker", *TASKS, **clock.env)
    worker.says("1 lane")
    assert [ended(service, each)["state"] for each in (first, second)] == ["SUCCESS"] * 2
    until(lambda: len(notes.all("ended")) == 2)
    assert [noted.number for noted in notes.all("began")] == [1, 2]
