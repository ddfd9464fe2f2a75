"""Stored no-op jobs through PostgreSQL: how many a second are added, and from first to last recorded result,
beside Procrastinate on the same server.

    python -m benchmarks.postgres
"""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.common import ROOT, ROUNDS, report, verdict, windowed
from benchmarks.tasks import noop
from jobs import Jobs
from jobs.model import JobQuery, JobState
from tests.postgres import Server

LANES = 2
OURS = int(os.environ.get("BENCH_JOBS", "20000"))
THEIRS = int(os.environ.get("BENCH_PROCRASTINATE_JOBS", "4000"))
WIDTH = 32  #: coroutines that add
CONCURRENCY = 20  #: jobs at one time in each of Procrastinate's processes


async def ours(server: Server) -> tuple[float, float]:
    """Jobs a second: added, and drained."""
    server.ask("DROP SCHEMA IF EXISTS quart_jobs CASCADE")
    options = {
        "database": server.url,
        "secret_key": "k" * 40,
        "nice": 0,
    }  # theirs are not nice either
    async with Jobs(**options, lanes=0):
        added = await windowed(noop.delay, OURS, WIDTH)
    async with Jobs(**options, lanes=LANES) as jobs:
        for state in (JobState.PENDING, JobState.STARTED):
            while left := (await jobs.store.find(JobQuery(state=state, limit=1))).jobs:
                await jobs.ended(left[0].id, None)
    ((ended, took),) = server.ask(
        "SELECT count(*), max(finished_at) - min(finished_at) FROM quart_jobs.jobs WHERE state = 'SUCCESS'"
    )
    assert ended == OURS, f"{ended} of {OURS} succeeded"
    return added, 1000 * ended / took


async def added_by_them() -> float:
    from benchmarks.procrastinate_app import app
    from benchmarks.procrastinate_app import noop as task

    async with app.open_async():
        return await windowed(task.defer_async, THEIRS, WIDTH)


def theirs(server: Server) -> tuple[float, float]:
    """The same of Procrastinate, with as many processes as we have lanes."""
    command = [sys.executable, "-m", "procrastinate", "--app", "benchmarks.procrastinate_app.app"]
    server.ask("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    subprocess.run([*command, "schema", "--apply"], cwd=ROOT, check=True, capture_output=True)
    added = asyncio.run(added_by_them())
    worker = [*command, "worker", "--one-shot", "--concurrency", str(CONCURRENCY)]
    workers = [
        subprocess.Popen(worker, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(LANES)
    ]
    for each in workers:
        each.wait(300)
    ((ended, took),) = server.ask(
        "SELECT count(*), extract(epoch FROM max(at) - min(at))::float FROM procrastinate_events"
        " WHERE type = 'succeeded'"
    )
    assert ended == THEIRS, f"{ended} of {THEIRS} succeeded"
    return added, ended / took


def main() -> None:
    print(f"PostgreSQL, {LANES} lanes beside {LANES} processes of Procrastinate, fsync on")
    server = Server("-c", "fsync=on", within=Path(os.environ.get("BENCH_DIR", "/var/tmp")))
    try:
        os.environ["BENCH_POSTGRES"] = server.url
        rates: dict[str, list[float]] = {"ours": [], "theirs": [], "+ours": [], "+theirs": []}
        for _ in range(ROUNDS):
            for whose, (added, drained) in (
                ("theirs", theirs(server)),
                ("ours", asyncio.run(ours(server))),
            ):
                rates[f"+{whose}"].append(added)
                rates[whose].append(drained)
            time.sleep(1)  # the server tidies up
    finally:
        server.close()
    report(f"Procrastinate, {THEIRS} jobs added by {WIDTH} coroutines", rates["+theirs"], "jobs/s")
    report(f"quart-jobs, {OURS} jobs added by {WIDTH} coroutines", rates["+ours"], "jobs/s")
    base = report(f"Procrastinate, {THEIRS} jobs drained", rates["theirs"], "jobs/s")
    figure = report(f"quart-jobs, {OURS} jobs drained", rates["ours"], "jobs/s")
    verdict("drain, ours / Procrastinate", figure / base, "≥ 3")


if __name__ == "__main__":
    main()
