"""The effect log: what jobs say themselves of their runs, one line each, whatever becomes of them later.

    begin|beat|dies|end|ask|asked  time  job  attempt  run  member  pid  detail

A line is one `write` to a file opened with O_APPEND, so that processes do not mix theirs and a killed
one leaves no half. What a checker relies on is synced; a `beat` only says that somebody still lives.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from jobs import current_job

from .history import Answer, Submission

FILE, MEMBER = "CHAOS_EFFECTS", "CHAOS_MEMBER"
BEAT = 0.05  #: seconds between two signs of life

_run = ""


def note(word: str, detail: str = "") -> None:
    """Write a line about the job that calls this; a process that it has forked speaks for it too."""
    member = os.environ.get(MEMBER, "-")
    who = f"{current_job.id} {current_job.attempt} {_run} {member} {os.getpid()}"
    line = f"{word} {time.monotonic():.6f} {who} {detail}".rstrip() + "\n"
    fd = os.open(os.environ[FILE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, line.encode())
        if word != "beat":
            os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def recorded() -> Iterator[None]:
    """Around what a job does."""
    global _run
    _run = f"{os.getpid()}.{time.monotonic_ns()}"
    note("begin")
    try:
        yield
    except Exception:
        note("end", "raised")
        raise
    except BaseException:
        note("end", "stopped")
        raise
    else:
        note("end", "ok")


@dataclass(slots=True)
class Run:
    """One run of a job, as its lines tell it."""

    job_id: str
    attempt: int
    member: str
    pid: int
    began: float
    last: float  #: the last sign of life, of any process of the run
    ended: float | None = None
    how: str = ""  #: ok, raised or stopped; empty if the run never came to its end
    died: float | None = None  #: when it was about to end its own process


@dataclass(slots=True)
class Effects:
    """What a log says."""

    runs: list[Run] = field(default_factory=list)  #: in the order they began
    submissions: list[Submission] = field(default_factory=list)  #: that jobs have made

    @classmethod
    def read(cls, path: Path) -> "Effects":
        """From a file; one that does not exist says nothing."""
        return cls.parse(path.read_text().splitlines() if path.exists() else ())

    @classmethod
    def parse(cls, lines: Iterable[str]) -> "Effects":
        """From its lines."""
        runs: dict[str, Run] = {}
        asked: dict[str, Submission] = {}
        for line in lines:
            word, at, job_id, attempt, run_id, member, pid, *rest = line.split(" ")
            moment, detail = float(at), " ".join(rest)
            if word == "begin":
                runs[run_id] = Run(job_id, int(attempt), member, int(pid), moment, moment)
                continue
            run = runs[run_id]
            run.last = max(run.last, moment)
            if word == "end":
                run.ended, run.how = moment, detail
            elif word == "dies":
                run.died = moment
            elif word == "ask":
                asked[detail] = Submission(detail, "", moment, moment, Answer.UNKNOWN)
            elif word == "asked":
                token, _, given = detail.partition(" ")
                sent = asked[token].sent
                asked[token] = Submission(token, "", sent, moment, Answer.ACCEPTED, given)
        return cls(sorted(runs.values(), key=lambda run: run.began), list(asked.values()))
