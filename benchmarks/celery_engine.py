"""No-op jobs in Celery's workers: how many a second from first to last recorded result, through our engine and
through plain Celery that acknowledges late and stores its results; both on the same Valkey.

    python -m benchmarks.celery_engine
"""

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import psutil
import redis

from benchmarks.broker import valkey
from benchmarks.common import ROUNDS, folder, report, running, verdict, windowed
from benchmarks.tasks import noop
from jobs import Jobs

PROCESSES = 2
PLAIN = "plain Celery, acks_late, results kept, prefetch 4"
COUNT = int(os.environ.get("BENCH_CELERY_JOBS", "4000"))


def worker(app: str, *options: object) -> list[object]:
    return [
        sys.executable, "-m", "celery", "-A", app, "worker", "-c", PROCESSES, "-l", "ERROR", *options,
    ]  # fmt: skip


class Drained(NamedTuple):
    rate: float  #: jobs a second
    cpu: float  #: ms of the worker's processes for each


def cpu(process: subprocess.Popen[bytes]) -> float:
    """Seconds that a process and what descends from it have used so far."""
    root = psutil.Process(process.pid)
    times = [each.cpu_times() for each in (root, *root.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def drained(process: subprocess.Popen[bytes], done: Callable[[], int]) -> Drained:
    """From now until all are done."""
    before, used, start = done(), cpu(process), time.perf_counter()
    while done() < COUNT:
        time.sleep(0.02)
    count = COUNT - before
    return Drained(count / (time.perf_counter() - start), 1000 * (cpu(process) - used) / count)


def plain(url: str) -> Drained:
    """Through plain Celery."""
    os.environ["BENCH_BROKER"] = url
    from benchmarks import celery_app

    results = redis.Redis(unix_socket_path=url.removeprefix("redis+socket://"), db=1)
    results.flushall()
    for _ in range(COUNT):
        celery_app.noop.delay()
    command = worker("benchmarks.celery_app", "-P", "prefork")
    with running(*command, ready=lambda: results.dbsize() > 0, BENCH_ACKS_LATE=1) as process:
        return drained(process, results.dbsize)


async def ours(url: str, database: Path, prefetch: int) -> tuple[float, Drained]:
    """Through our engine: jobs a second announced, and run."""
    broker = redis.Redis(unix_socket_path=url.removeprefix("redis+socket://"))
    broker.flushall()
    async with Jobs(database=str(database), engine="celery", broker=url, secret_key="k" * 40):
        start = time.perf_counter()
        await windowed(noop.delay, COUNT, 256)
        while broker.llen("default") < COUNT:  # noqa: ASYNC110 - the broker rings no bell
            await asyncio.sleep(0.01)
        announced = COUNT / (time.perf_counter() - start)

        def succeeded() -> int:
            with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as rows:
                sql = "SELECT count(*) FROM jobs WHERE state = 'SUCCESS'"
                return int(rows.execute(sql).fetchone()[0])

        settings = {
            "JOBS_DATABASE": database,
            "JOBS_BROKER": url,
            "JOBS_TASKS": "benchmarks.tasks",
            "JOBS_SECRET_KEY": "k" * 40,
            "JOBS_NICE": "0",  # as Celery's processes are
        }
        command = worker("jobs.engines.celery", "--prefetch-multiplier", prefetch)

        def run() -> Drained:
            with running(*command, ready=lambda: succeeded() > 0, **settings) as process:
                return drained(process, succeeded)

        # The service stays open beside it, and keeps house.
        return announced, await asyncio.to_thread(run)


def main() -> None:
    print(f"{COUNT} jobs in {PROCESSES} processes of a Celery worker")
    rates: dict[str, list[Drained]] = {}
    announced = []
    # One broker for all rounds: Celery's client keeps its address.
    with folder() as where, valkey(where) as url:
        for turn in range(ROUNDS):
            rates.setdefault(PLAIN, []).append(plain(url))
            for prefetch in (1, 4, 16):
                rate, run = asyncio.run(ours(url, where / f"{turn}-{prefetch}.db", prefetch))
                announced.append(rate)
                rates.setdefault(f"ours, prefetch {prefetch}", []).append(run)
    report("ours: submitted, kept and announced", announced, "jobs/s")
    medians = {
        name: report(name, [each.rate for each in of], "jobs/s") for name, of in rates.items()
    }
    for name, of in rates.items():
        report(f"{name}: CPU of the worker", [each.cpu for each in of], "ms/job")
    for name, median in medians.items():
        if name != PLAIN:
            verdict(f"{name} / plain Celery", median / medians[PLAIN], "≥ 0.8")


if __name__ == "__main__":
    main()
