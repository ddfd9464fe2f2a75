"""Stored no-op jobs: how many a second from first to last recorded result, beside Celery; and idle
latency from `delay` to the result in the caller's hands, likewise.

    python -m benchmarks.drain
"""

import asyncio
import contextlib
import os
import sqlite3
import sys
import time
from pathlib import Path

import redis

from benchmarks.broker import valkey
from benchmarks.common import ROUNDS, folder, percentile, report, running, verdict, windowed
from benchmarks.tasks import noop
from jobs import Jobs
from jobs.model import JobQuery, JobState

LANES = 2
OURS = int(os.environ.get("BENCH_JOBS", "40000"))
CELERYS = int(os.environ.get("BENCH_CELERY_JOBS", "4000"))
CALLS = 200


async def our_drain(database: Path, count: int) -> float:
    """Jobs a second, from the first recorded result to the last; start-up is left out."""
    async with Jobs(database=str(database), lanes=0):
        await windowed(noop.delay, count, 256)
    async with Jobs(database=str(database), lanes=LANES) as jobs:
        for state in (JobState.PENDING, JobState.STARTED):
            while left := (await jobs.store.find(JobQuery(state=state, limit=1))).jobs:
                await jobs.ended(left[0].id, None)
    end = time.time()
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as rows:
        ended, first = rows.execute(
            "SELECT count(*), min(finished_at) FROM jobs WHERE state = 'SUCCESS'"
        ).fetchone()
    assert ended == count, f"{ended} of {count} succeeded"
    return count / (end - first / 1000)


async def our_latency(database: Path) -> list[float]:
    async with Jobs(database=str(database), lanes=LANES):
        return [await timed() for _ in range(CALLS)][CALLS // 10 :]


async def timed() -> float:
    start = time.perf_counter()
    handle = await noop.delay()
    await handle.result()
    return time.perf_counter() - start


def celery_rounds(where: Path) -> tuple[list[float], list[float]]:
    with valkey(where) as url:
        os.environ["BENCH_BROKER"] = url
        from benchmarks import celery_app

        results = redis.Redis(unix_socket_path=url.removeprefix("redis+socket://"), db=1)
        worker = [
            sys.executable, "-m", "celery", "-A", "benchmarks.celery_app", "worker",
            "-P", "prefork", "-c", LANES, "-l", "ERROR",
        ]  # fmt: skip
        drains, latencies = [], []
        for _ in range(ROUNDS):
            results.flushall()
            for _ in range(CELERYS):
                celery_app.noop.delay()
            with running(*worker, ready=lambda: results.dbsize() > 0):
                before, start = results.dbsize(), time.perf_counter()
                while results.dbsize() < CELERYS:
                    time.sleep(0.02)
                drains.append((CELERYS - before) / (time.perf_counter() - start))
                for _ in range(CALLS):
                    start = time.perf_counter()
                    celery_app.noop.delay().get(timeout=20)
                    latencies.append(time.perf_counter() - start)
        return drains, latencies


def main() -> None:
    print(f"drain and idle latency, {LANES} lanes beside {LANES} Celery processes")
    with folder() as where:
        theirs, their_latency = celery_rounds(where)
    ours, our_latencies = [], []
    for _ in range(ROUNDS):
        with folder() as where:
            ours.append(asyncio.run(our_drain(where / "jobs.db", OURS)))
            our_latencies += asyncio.run(our_latency(where / "latency.db"))
    theirs_median = report(f"Celery + Valkey, {CELERYS} jobs", theirs, "jobs/s")
    ours_median = report(f"quart-jobs, {OURS} jobs, every commit fsynced", ours, "jobs/s")
    verdict("drain, ours / Celery", ours_median / theirs_median, "≥ 8")
    for name, values in (("Celery", their_latency), ("quart-jobs", our_latencies)):
        milliseconds = [1000 * value for value in values]
        report(f"{name}, delay to result, p50", [percentile(milliseconds, 50)], "ms")
        report(f"{name}, delay to result, p99", [percentile(milliseconds, 99)], "ms")
    verdict(
        "idle p50, ours / Celery",
        percentile(our_latencies, 50) / percentile(their_latency, 50),
        "≤ 1",
    )


if __name__ == "__main__":
    main()
