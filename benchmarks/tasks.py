"""The tasks that the benchmarks run."""

import time

from jobs import current_job, task


@task(name="bench.noop")
def noop() -> None:
    """Nothing: what is left is our own cost."""


@task(name="bench.submit")
def submit(to: str, template: str, n: int) -> None:
    """Nothing, with the arguments of an ordinary job."""


@task(name="bench.spin")
def spin(seconds: float) -> int:
    """Keep a core busy."""
    end, turns = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        turns += 1
    return turns


@task(name="bench.fresh", isolation="fresh")
def fresh() -> None:
    """Nothing, in a process of its own."""


@task(name="bench.talk")
def talk(seconds: float) -> None:
    """Say something ten times a second."""
    for step in range(int(10 * seconds)):
        current_job.progress(step)
        time.sleep(0.1)
