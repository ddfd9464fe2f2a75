"""Fault matrix: the machine gives no more processes, or no more open files."""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobs.processes import children
from tests.matrix_play import ENV, TASKS, Notes, ended, guardian, kill, look, submit
from tests.running import Starter, starter, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux gives these guarantees")

start = pytest.fixture(starter)

# Root's processes are not counted: another user then, who may read and write the same files.
_FILES = "+dac_override,+dac_read_search"
_OTHER = ("setpriv", "--reuid", "54321", "--inh-caps", _FILES, "--ambient-caps", _FILES)
COUNTED = _OTHER if os.geteuid() == 0 else ()


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path)


def limit(pid: int, kind: int, soft: int | None) -> None:
    """Set a limit of a running process, or take it back; the hard one stays."""
    _, hard = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (hard if soft is None else soft, hard))


def limit_processes(pid: int, soft: str) -> None:
    """The same, for one of `COUNTED`, who alone may."""
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    soft = soft or ("unlimited" if hard == resource.RLIM_INFINITY else str(hard))
    subprocess.run([*COUNTED, "prlimit", "--pid", str(pid), f"--nproc={soft}:"], check=True)


@pytest.fixture
def start_counted() -> Iterator[Starter]:
    """In a folder that another user can write."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield from starter(Path(folder))


@pytest.mark.parametrize("where", ["forkserver", "everywhere"])
def test_jobs_wait_while_the_machine_gives_no_more_processes(
    start_counted: Starter, notes: Notes, where: str
) -> None:
    """Fault row 22: what runs goes on, readiness says why, and all recovers by itself."""
    start = start_counted
    command = [sys.executable, "-P", "-m", "service.cli", "serve", "--bind", "127.0.0.1:0"]
    service = start.command(*COUNTED, *command, *TASKS, "--lanes", "2", **ENV).serves()
    forkserver = guardian(service.process.pid)
    idle = set(children(forkserver))
    running = submit(service, "works", args=[notes.path, 1, 3.0])
    busy = notes.last("began", 1).pid
    limited = [forkserver] if where == "forkserver" else [forkserver, service.process.pid]
    for pid in limited:
        limit_processes(pid, "1")
    for pid in idle - {busy}:
        kill(pid)
    service.says("a lane could not be replaced")
    assert service.get("/readyz").status == 200  # one lane is left
    assert ended(service, running)["attempt"] == 1

    kill(busy)
    until(lambda: service.get("/readyz").status == 503, "it never turned unready")
    assert "process" in service.get("/readyz").json()["detail"]
    waiting = submit(service, "works", args=[notes.path, 2])
    said = service.output.count("could not be replaced")
    time.sleep(1)
    assert service.output.count("could not be replaced") - said <= 2 * 5  # it pauses between tries
    job = look(service, waiting)
    assert (job["state"], job["attempt"]) == ("PENDING", 0)
    assert service.get("/livez").status == 200

    for pid in limited:
        limit_processes(pid, "")
    assert ended(service, waiting)["state"] == "SUCCESS"
    until(lambda: service.get("/readyz").status == 200)
    assert guardian(service.process.pid) == forkserver
    assert service.stop() == 0
    service.is_gone()


def test_idle_connections_that_use_up_all_files_hold_requests_up_and_no_job_is_lost(
    start: Starter, notes: Notes
) -> None:
    """Fault row 20."""
    service = start.serve(*TASKS, **ENV)
    accepted = submit(service, "works", args=[notes.path, 1, 1.0])
    notes.last("began", 1)
    open_now = len(os.listdir(f"/proc/{service.process.pid}/fd"))
    limit(service.process.pid, resource.RLIMIT_NOFILE, open_now + 20)
    idle = [service.connect() for _ in range(40)]
    until(lambda: "out of system resource" in service.output, "the limit was never met")
    # Refused it is not, only late: the idle ones are closed after a few seconds.
    assert service.get("/livez").status == 200
    later = submit(service, "works", args=[notes.path, 2])
    assert [ended(service, each)["state"] for each in (accepted, later)] == ["SUCCESS"] * 2
    assert service.get("/readyz").status == 200
    for connection in idle:
        connection.close()


def test_a_lane_that_dies_while_there_are_no_more_files_is_replaced_later(
    start: Starter, notes: Notes
) -> None:
    """Fault row 20."""
    service = start.serve(*TASKS, **ENV)
    accepted = submit(service, "hangs_at_first", args=[notes.path, 1])
    child = notes.last("began", 1).pid
    with closing(service.connect(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")) as kept:
        assert kept.recv(12) == b"HTTP/1.1 200"
        limit(service.process.pid, resource.RLIMIT_NOFILE, 3)
        kill(child)
        service.says("a lane could not be replaced")
        kept.sendall(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
        until(lambda: b"503" in kept.recv(65536))
        limit(service.process.pid, resource.RLIMIT_NOFILE, None)
    assert ended(service, accepted)["state"] == "SUCCESS"
    assert service.stop(signal.SIGTERM) == 0
    service.is_gone()
