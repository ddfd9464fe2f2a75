"""Tasks for the fault matrix. Each run says in a file what it did: word, number, attempt, pid, and
when (monotonic seconds, which all processes of a machine share)."""

import ctypes
import os
import signal
import time
from pathlib import Path

from jobs import current_job, task


def note(path: str, word: str, number: int) -> None:
    line = f"{word} {number} {current_job.attempt} {os.getpid()} {time.monotonic()}\n"
    with Path(path).open("a") as file:  # appended in one write: lines of two jobs do not mix
        file.write(line)


@task
def works(path: str, number: int, seconds: float = 0.0) -> int:
    note(path, "began", number)
    time.sleep(seconds)
    note(path, "ended", number)
    return number


@task
def hangs_at_first(path: str, number: int) -> int:
    """Runs on in its first attempt, until something happens to its process."""
    note(path, "began", number)
    if current_job.attempt == 1:
        time.sleep(300)
    note(path, "ended", number)
    return number


@task
def ignores(path: str, number: int) -> None:
    """Does not stop for anything that can be ignored."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(path, "began", number)
    while True:
        try:
            time.sleep(300)
        except BaseException:
            note(path, "ignored", number)


@task
def ends_its_process(path: str, number: int, how: str) -> None:
    note(path, "began", number)
    if how == "exit":
        os._exit(0)
    if how == "abort":
        os.abort()
    if how == "segfault":
        ctypes.string_at(0)
    if how == "parent":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(300)
