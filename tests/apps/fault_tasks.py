"""Tasks that end badly, or late, on purpose. Each run appends a line to the file it is given."""

import asyncio
import os
import signal
import time
from pathlib import Path

from jobs import current_job, task


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
def instant(number: int) -> int:
    return number
