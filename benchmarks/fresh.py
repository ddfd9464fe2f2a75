"""Stored no-op jobs that have a new process each: how many a second on two lanes; and what it costs to see
that a job has left nothing behind.

    python -m benchmarks.fresh
"""

import asyncio
import timeit
from pathlib import Path
from time import perf_counter

from benchmarks.common import ROUNDS, folder, report
from benchmarks.tasks import fresh
from jobs import Jobs
from jobs.hygiene import Habitat

JOBS = 200


async def rate(database: Path) -> float:
    async with Jobs(database=str(database), lanes=2):
        handles = [await fresh.delay() for _ in range(4)]
        await asyncio.gather(*(handle.result() for handle in handles))  # the lanes are up
        start = perf_counter()
        handles = [await fresh.delay() for _ in range(JOBS)]
        await asyncio.gather(*(handle.result() for handle in handles))
        return JOBS / (perf_counter() - start)


def microseconds(look: object) -> float:
    return min(timeit.repeat(look, number=1000, repeat=20)) * 1000  # type: ignore[arg-type]


def main() -> None:
    print("a process for each job, and its hygiene")
    rates = []
    for _ in range(ROUNDS):
        with folder() as where:
            rates.append(asyncio.run(rate(where / "jobs.db")))
    report('no-op jobs with isolation="fresh", two lanes', rates, "jobs/s")
    habitat = Habitat()
    report("a glance, after every job", [microseconds(habitat.looks_clean)], "µs")
    report("a close look", [microseconds(habitat.differences)], "µs")


if __name__ == "__main__":
    main()
