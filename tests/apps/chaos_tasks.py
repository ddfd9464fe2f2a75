"""Tasks for the checker: each records its run in the effect log and then behaves well, or badly, as told.

`token` is the client's name for its request, so that a row can be told to be somebody's."""

import asyncio
import ctypes
import os
import signal
import time

from jobs import RetryPolicy, current_job, task
from tests.chaos.effects import BEAT, note, recorded

SOON = RetryPolicy(max_attempts=3, base=0.05, max_delay=0.2)


def live(seconds: float) -> None:
    """Sleep, with a sign of life now and then."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(BEAT, left))
        note("beat")


@task
def quick(token: str) -> str:
    with recorded():
        return token


@task
def sleeps(token: str, seconds: float) -> None:
    with recorded():
        live(seconds)


@task
async def sleeps_async(token: str, seconds: float) -> None:
    with recorded():
        await asyncio.sleep(seconds)


@task
def computes(token: str, seconds: float) -> int:
    with recorded():
        until, turns = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            turns += sum(range(1000)) > 0
        return turns


@task(retry=SOON)
def fails(token: str, times: int) -> None:
    """Raises in its first attempts."""
    with recorded():
        if current_job.attempt <= times:
            raise RuntimeError(f"attempt {current_job.attempt}")


@task
def dies(token: str, how: str, times: int) -> None:
    """Ends its process in its first attempts."""
    with recorded():
        if current_job.attempt <= times:
            note("dies", how)
            if how == "exit":
                os._exit(3)
            if how == "segfault":
                ctypes.string_at(0)
            os.kill(os.getpid(), signal.SIGKILL)


@task(timeout=0.4)
def hangs(token: str) -> None:
    """Until its timeout stops it."""
    with recorded():
        live(60)


@task(timeout=0.4)
def hangs_on(token: str) -> None:
    """Until its timeout kills it."""
    with recorded():
        while True:
            try:
                live(60)
            except BaseException:
                continue


@task
def forks(token: str, seconds: float) -> None:
    """Leaves a process behind."""
    with recorded():
        if os.fork() == 0:
            live(60)
            os._exit(0)
        live(seconds)


@task
def submits(token: str) -> None:
    """Submits another job in each attempt."""
    with recorded():
        child = f"{token}/{current_job.attempt}.{time.monotonic_ns()}"
        note("ask", child)
        note("asked", f"{child} {quick.delay(child).id}")


@task
def prints(token: str) -> None:
    with recorded():
        for number in range(2000):
            print("a line that says little, and is one of many", number)
