"""`serve` while its disk is full, fails, or is held by others, and while its file is taken away."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from tests.disks import fill, mounted
from tests.running import PATIENCE, Answer, Running, Starter, starter, until

start = pytest.fixture(starter)

TASKS = """
import time
from pathlib import Path
from jobs import task

@task
def echo(text: str) -> str:
    return text

@task
def wait(go: str, size: int) -> str:
    while not Path(go).exists():
        time.sleep(0.02)
    return "x" * size
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")


@pytest.fixture(autouse=True)
def _tasks(start: Starter) -> None:
    start.write("mine.py", TASKS)


def sound(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def states(service: Running) -> dict[str, str]:
    """Every job that the service knows."""
    found: dict[str, str] = {}
    page = service.get("/jobs?limit=100").json()
    while True:
        found |= {job["id"]: job["state"] for job in page["jobs"]}
        if not (more := page["links"].get("next")):
            return found
        page = service.get(more).json()


def state(service: Running, accepted: Answer) -> str:
    found: str = service.get(accepted.headers["Location"]).json()["state"]
    return found


def ready(service: Running) -> bool:
    return service.get("/readyz").status == 200


class Clients:
    """Submit jobs without end; keep every answer."""

    def __init__(self, service: Running, count: int = 2) -> None:
        self.answers: list[Answer] = []
        self._service = service
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._submit) for _ in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _submit(self) -> None:
        while not self._stopping.wait(0.01):
            self.answers.append(self._service.post("/tasks/mine.echo/jobs", {"text": "x" * 20_000}))

    def hears(self, status: int) -> Answer:
        """Wait for such an answer that is not there yet."""
        seen = len(self.answers)
        return until(  # type: ignore[no-any-return]
            lambda: next((a for a in self.answers[seen:] if a.status == status), None)
        )

    @property
    def accepted(self) -> set[str]:
        return {answer.json()["id"] for answer in self.answers if answer.status == 202}


# a full disk


@needs_root
def test_a_full_disk_refuses_jobs_and_loses_none(start: Starter, tmp_path: Path) -> None:
    """Two processes share the ballast."""
    go = tmp_path / "go"
    with mounted(tmp_path / "disk", "size=32m") as disk:
        ballast = disk / "jobs.db-ballast"
        service = start.serve(
            *("--tasks", "mine", "--workers", "2", "--nice", "0"),
            *("--ballast-bytes", str(4 << 20)),
            JOBS_DATABASE=str(disk / "jobs.db"),
        )
        assert ballast.stat().st_blocks * 512 == 4 << 20
        running = service.post("/tasks/mine.wait/jobs", {"go": str(go), "size": 3 << 20})
        until(lambda: state(service, running) == "STARTED")
        with Clients(service) as clients:
            clients.hears(202)
            fill(disk / "filler")
            refused = clients.hears(507)
            assert refused.headers["Content-Type"] == "application/problem+json"
            assert refused.json()["type"] == "/problems/storage-full"
            assert not ready(service)
            assert state(service, running) == "STARTED"
            go.touch()
            until(lambda: state(service, running) == "SUCCESS")
            assert not ballast.exists()
            clients.hears(507)
            (disk / "filler").unlink()
            clients.hears(202)
            assert ready(service)
        assert {answer.status for answer in clients.answers} == {202, 507}
        until(lambda: set(states(service).values()) == {"SUCCESS"})
        assert set(states(service)) == clients.accepted | {running.json()["id"]}
        assert ballast.stat().st_blocks * 512 == 4 << 20
        assert service.stop() == 0
        assert "Traceback" not in service.output
        sound(disk / "jobs.db")


@needs_root
def test_a_service_that_is_killed_on_a_full_disk_starts_again(
    start: Starter, tmp_path: Path
) -> None:
    with mounted(tmp_path / "disk", "size=32m") as disk:
        env = {"JOBS_DATABASE": str(disk / "jobs.db"), "JOBS_BALLAST_BYTES": str(4 << 20)}
        service = start.serve("--tasks", "mine", "--lanes", "0", **env)
        accepted = service.post("/tasks/mine.echo/jobs", {"text": "kept"})
        fill(disk / "filler")
        service.close()
        service = start.serve("--tasks", "mine", **env)
        assert state(service, accepted) == "PENDING"
        assert service.post("/tasks/mine.echo/jobs", {"text": "new"}).status == 507
        (disk / "filler").unlink()
        assert service.result(accepted) == "kept"
        until(lambda: ready(service))


# a failing disk


@contextmanager
def syncs_fail(service: Running) -> Iterator[None]:
    """Every sync of the service's fails meanwhile."""
    if shutil.which("strace") is None:
        pytest.skip("needs the program strace, which this machine does not have")
    inject = "inject=fdatasync,fsync:error=EIO"
    command = ["strace", "-f", "-e", inject, "-p", str(service.process.pid)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as strace:
        assert strace.stderr is not None
        if b"attached" not in (said := strace.stderr.readline()):
            pytest.skip(f"tracing is not allowed here: {said.decode()}")
        drain = threading.Thread(target=strace.stderr.read)
        drain.start()
        try:
            yield
        finally:
            strace.send_signal(signal.SIGINT)
            strace.wait(PATIENCE)
            drain.join(PATIENCE)


def test_a_disk_that_cannot_sync_accepts_nothing_until_it_can(
    start: Starter, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    service = start.serve("--tasks", "mine")
    running = service.post("/tasks/mine.wait/jobs", {"go": str(go), "size": 5})
    until(lambda: state(service, running) == "STARTED")
    with syncs_fail(service):
        answers = [service.post("/tasks/mine.echo/jobs", {"text": "no"}) for _ in range(5)]
        assert {answer.status for answer in answers} == {503}
        for _ in range(3):
            unready = service.get("/readyz")
            assert unready.status == 503
            assert "disk I/O error" in unready.json()["detail"]
        go.touch()
        service.says("cannot go on, trying again: .*disk I/O error")
    # Only the dispatcher tries again here, which is enough.
    assert service.result(running) == "xxxxx"
    until(lambda: ready(service))
    assert service.result(service.post("/tasks/mine.echo/jobs", {"text": "yes"})) == "yes"
    until(lambda: set(states(service).values()) == {"SUCCESS"})
    assert len(states(service)) == 2
    assert service.stop() == 0
    assert "Traceback" not in service.output
    sound(tmp_path / "jobs.db")


# others that hold the lock

HOLD = """
import fcntl, os, sqlite3, sys
_, how, path = sys.argv
if how == "database":
    held = sqlite3.connect(path, isolation_level=None)
    held.execute("BEGIN IMMEDIATE")
else:
    held = os.open(path + "-gate", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked(how: str, path: Path) -> Iterator[None]:
    """Another program holds the database meanwhile."""
    command = [sys.executable, "-c", HOLD, how, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            other.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("how", ["database", "gate"])
def test_while_another_holds_the_lock_submits_are_put_off_and_nothing_is_lost(
    start: Starter, tmp_path: Path, how: str
) -> None:
    """The issue's ten seconds at a busy timeout of five, made shorter."""
    go = tmp_path / "go"
    service = start.serve("--tasks", "mine", "--busy-timeout", "0.3")
    running = service.post("/tasks/mine.wait/jobs", {"go": str(go), "size": 5})
    until(lambda: state(service, running) == "STARTED")
    with locked(how, tmp_path / "jobs.db"):
        with Clients(service) as clients:
            until(lambda: len(clients.answers) >= 4)
        for answer in clients.answers:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
            assert answer.json()["type"] == "/problems/busy"
        began = time.monotonic()
        assert service.get("/readyz").status == 503
        # A little more than it may wait: the machine may be slow.
        assert time.monotonic() - began < 2
        assert state(service, running) == "STARTED"
        go.touch()
        service.says("cannot go on, trying again")
    assert service.result(running) == "xxxxx"
    service.says("going on again")
    assert service.result(service.post("/tasks/mine.echo/jobs", {"text": "yes"})) == "yes"
    assert len(states(service)) == 2
    assert service.stop() == 0
    assert "Traceback" not in service.output
    sound(tmp_path / "jobs.db")


# a file that is taken away


@pytest.mark.parametrize(
    ("harm", "how"),
    [
        (lambda path: path.unlink(), "deleted"),
        (lambda path: shutil.copy(__file__, path.with_name("x")) and os.replace(path.with_name("x"), path), "replaced"),
    ],
)  # fmt: skip
def test_a_service_whose_file_is_taken_away_says_so_and_makes_no_other(
    start: Starter, tmp_path: Path, harm: Callable[[Path], Any], how: str
) -> None:
    path = tmp_path / "jobs.db"
    service = start.serve("--tasks", "mine")
    assert service.result(service.post("/tasks/mine.echo/jobs", {"text": "a"})) == "a"
    harm(path)
    for answer in (
        service.get("/readyz"),
        service.post("/tasks/mine.echo/jobs", {"text": "b"}),
        service.get("/readyz"),
    ):
        assert answer.status == 503
        assert f"was {how} while it was in use" in answer.json()["detail"]
    service.stop()
    assert path.exists() is (how == "replaced")
    if how == "replaced":
        assert path.read_bytes() == Path(__file__).read_bytes()
