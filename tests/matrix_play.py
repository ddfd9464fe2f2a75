"""What the fault matrix shares: jobs over REST, what they noted, and the processes of a service."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from jobs.processes import children
from tests.engine_play import alive
from tests.running import ROOT, Answer, Running, until

MODULE = "tests.apps.matrix_tasks"
TASKS = ("--tasks", f"{MODULE},tests.tasks_for_engines")
# So that a service in another folder finds the tests' tasks, and a busy machine runs its children.
ENV = {"PYTHONPATH": str(ROOT), "JOBS_NICE": "0"}

T = TypeVar("T")

REQUEUED = (
    2.0  #: seconds within which a lost attempt is back in the queue; its next run follows at once
)
RESTARTED = 5.0  #: the same, after a restart of the service
LENIENCE = 4  #: how much longer a busy machine may take
DEAD = 2.0  #: seconds within which nothing of a killed service is left


class Noted(NamedTuple):
    """A line that a job has written."""

    word: str
    number: int
    attempt: int
    pid: int
    at: float


class Notes:
    """The file in which jobs say what they did."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "notes")
        Path(self.path).touch()

    def all(self, word: str, number: int | None = None) -> list[Noted]:
        """What was noted with that word."""
        whole, _, _ = Path(self.path).read_text().rpartition("\n")
        lines = [line.split() for line in whole.splitlines()]
        found = [Noted(w, int(n), int(a), int(p), float(t)) for w, n, a, p, t in lines]
        return [each for each in found if each.word == word and number in (None, each.number)]

    def last(self, word: str, number: int, *, attempt: int = 1) -> Noted:
        """Wait until this attempt has noted that."""
        return until(
            lambda: next((n for n in self.all(word, number) if n.attempt == attempt), None),
            f"job {number}, attempt {attempt} never noted {word!r}",
        )


def submit(service: Running, task: str, /, **body: Any) -> Answer:
    """Have a task run: `args` and the other members of `POST /jobs`."""
    answer = service.post("/jobs", {"task": f"{MODULE}.{task}"} | body)
    assert answer.status == 202, answer
    return answer


def look(service: Running, accepted: Answer) -> Any:
    """The job as it is now."""
    return service.get(accepted.headers["Location"]).json()


def ended(service: Running, accepted: Answer) -> Any:
    """The job once it has ended."""
    return until(
        lambda: (
            (job := look(service, accepted))
            and job["state"] in ("SUCCESS", "FAILURE", "REVOKED")
            and job
        ),
        "the job never ended",
    )


def guardian(service: int) -> int:
    """The forkserver of a service process."""
    return next(
        pid
        for pid in children(service)
        if b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )


async def soon(wait: Callable[..., T], *arguments: Any) -> T:
    """Wait as that function does, while this test's own event loop goes on."""
    return await asyncio.to_thread(wait, *arguments)


def kill(pid: int) -> float:
    """SIGKILL; when that was."""
    os.kill(pid, signal.SIGKILL)
    return time.monotonic()


def all_gone(pids: set[int], since: float) -> None:
    """Wait until none of these runs; fails if that took longer than is promised."""
    until(lambda: not any(map(alive, pids)), "processes are left")
    kept(time.monotonic() - since, DEAD)


def kept(took: float, promised: float) -> None:
    """A time that is promised, in seconds. The machine may be busy with other things than this test."""
    print(f"took {took:.2f} s of {promised:g}")
    assert took < LENIENCE * promised, f"took {took:.2f} s; {promised:g} s are promised"
