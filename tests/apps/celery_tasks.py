"""Tasks that Celery's workers run for a service under test."""

import os
import signal
import time
from pathlib import Path

from quart import request

from jobs import current_job, task


@task
def add(a: int, b: int) -> int:
    """What a job writes is its log."""
    print("adding", a, b)
    return a + b


@task
def language() -> str | None:
    """The request's context is there."""
    return request.headers.get("Accept-Language")


@task
def note(path: str, seconds: float = 0.0) -> int:
    """A line in a file for each attempt: its number; the next attempt is quick."""
    with Path(path).open("a") as file:
        file.write(f"{current_job.attempt}\n")
    if current_job.attempt == 1:
        time.sleep(seconds)
    return current_job.attempt


@task(queue="beside")
def elsewhere() -> str:
    """In a queue of its own."""
    return "elsewhere"


@task(timeout=0.2)
def slow() -> None:
    """Longer than it may take."""
    time.sleep(60)


@task(max_attempts=2)
def failing() -> None:
    """Tried twice."""
    raise ValueError("no")


@task
def poison() -> None:
    """Kills its process."""
    os.kill(os.getpid(), signal.SIGKILL)
