"""Tasks that end badly, or late, on purpose. Each run appends a line to the file it is given."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

from jobs import Reject, Retry, RetryPolicy, current_job, task
from jobs.model import JobId


def note(path: str, word: str) -> None:
    with Path(path).open("a") as file:
        file.write(f"{word} {current_job.attempt} {os.getpid()}\n")


@task
def kills_its_process(path: str) -> None:
    note(path, "began")
    os.kill(os.getpid(), signal.SIGKILL)


@task
def fails_before(path: str, attempt: int) -> int:
    note(path, "began")
    if current_job.attempt < attempt:
        raise RuntimeError(f"attempt {current_job.attempt}")
    return current_job.attempt


@task
def asks_again_before(path: str, attempt: int, countdown: float = 0) -> int:
    note(path, "began")
    if current_job.attempt < attempt:
        raise Retry(f"not attempt {attempt}", countdown=countdown)
    return current_job.attempt


@task(max_attempts=5)
def gives_up(path: str) -> None:
    note(path, "began")
    raise Reject("wrong harbour")


@task(retry=RetryPolicy(3, on=OSError, never=PermissionError, base=0.01))
def is_refused(path: str, kind: str) -> None:
    note(path, "began")
    raise {"OSError": OSError, "PermissionError": PermissionError, "ValueError": ValueError}[kind]


@task(retry=RetryPolicy(2, base=0.01), timeout=0.5)
def is_slow(stubborn: bool) -> None:
    sleeps_on(stubborn)


@task(retry=RetryPolicy(2, never=TimeoutError, base=0.01), timeout=0.5)
def is_slow_once(stubborn: bool) -> None:
    sleeps_on(stubborn)


def sleeps_on(stubborn: bool) -> None:
    while True:
        try:
            time.sleep(50)
        except BaseException:
            if not stubborn:
                raise


@task
async def counts_attempts_of(job_id: str) -> list[str]:
    """A job looks at the attempts of another."""
    handle = await instant.delay(0)
    handle.job = handle.job._replace(id=JobId(job_id))
    return [f"{each.number} {each.outcome} {each.error}" for each in await handle.attempts()]


@task
def sleeps(path: str, seconds: float) -> str:
    note(path, "began")
    try:
        time.sleep(seconds)
    finally:
        note(path, "stopped")
    return "slept"


@task
async def sleeps_async(path: str, seconds: float) -> str:
    note(path, "began")
    try:
        await asyncio.sleep(seconds)
    finally:
        note(path, "stopped")
    return "slept"


@task
def returns_what_is_no_json() -> Any:
    return object()


@task
def rejects_plainly(reason: str) -> None:
    if reason:
        raise Reject(reason)
    raise Retry


@task
def instant(number: int) -> int:
    return number
