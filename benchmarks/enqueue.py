"""Submissions from 32 coroutines through `delay`, beside 32 bare clients behind one group-committing
writer thread: the most that this disk and Python give. Both fsync every commit.

    python -m benchmarks.enqueue
"""

import asyncio
import json
import os
import queue
import sqlite3
import threading
import time
from pathlib import Path

from benchmarks.common import ROUNDS, folder, report, verdict, windowed
from benchmarks.tasks import submit
from jobs import Jobs
from jobs.model import Job, new_job_id, now_ms

COUNT = int(os.environ.get("BENCH_JOBS", "20000"))
CLIENTS = 32
STANDING = 100_000  #: jobs that are in the database already, on both sides
ARGS = {"to": "someone@example.org", "template": "welcome" * 8, "n": 42}
ROW = json.dumps(ARGS)
CONTEXT = json.dumps({f"x-header-{number}": "v" * 18 for number in range(15)})
SCHEMA = """
CREATE TABLE job (id TEXT PRIMARY KEY, name TEXT NOT NULL, args TEXT NOT NULL, context TEXT NOT NULL,
  state TEXT NOT NULL, priority INTEGER NOT NULL DEFAULT 0, run_at REAL NOT NULL, created_at REAL NOT NULL,
  started_at REAL, finished_at REAL, result TEXT, error TEXT, attempts INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE INDEX job_claim ON job (state, priority, run_at, id);
"""
INSERT = """INSERT INTO job (id, name, args, context, state, priority, run_at, created_at)
  VALUES (?, ?, ?, ?, 'queued', ?, ?, ?)"""


def row() -> tuple[object, ...]:
    now = time.time()
    return (new_job_id(), "bench.submit", ROW, CONTEXT, 0, now, now)


async def bare(database: Path) -> float:
    loop = asyncio.get_running_loop()
    waiting: queue.SimpleQueue[tuple[tuple[object, ...], asyncio.Future[None]] | None] = (
        queue.SimpleQueue()
    )

    def write() -> None:
        connection = sqlite3.connect(database, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(SCHEMA)
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(INSERT, (row() for _ in range(STANDING)))
        connection.execute("COMMIT")
        ready.set()
        while True:
            batch = [waiting.get()]
            while not waiting.empty() and len(batch) < 500:
                batch.append(waiting.get())
            rows = [item for item in batch if item is not None]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(INSERT, [row for row, _ in rows])
            connection.execute("COMMIT")
            loop.call_soon_threadsafe(
                lambda done=rows: [future.set_result(None) for _, future in done]
            )
            if len(rows) < len(batch):
                connection.close()
                return

    ready = threading.Event()
    thread = threading.Thread(target=write)
    thread.start()
    await asyncio.to_thread(ready.wait)

    async def one() -> None:
        future: asyncio.Future[None] = loop.create_future()
        waiting.put((row(), future))
        await future

    rate = await windowed(one, COUNT, CLIENTS)
    waiting.put(None)
    await asyncio.to_thread(thread.join)
    return rate


async def ours(database: Path) -> float:
    async with Jobs(database=str(database), lanes=0, max_queued=10_000_000) as jobs:
        for _ in range(STANDING // 1000):
            await jobs.store.add(
                [
                    Job(id=new_job_id(), task="bench.submit", args=ROW, created_at=now_ms())
                    for _ in range(1000)
                ]
            )
        return await windowed(lambda: submit.delay(**ARGS), COUNT, CLIENTS)


def main() -> None:
    print(f"enqueue, {COUNT} jobs from {CLIENTS} coroutines")
    bares, rates = [], []
    for _ in range(ROUNDS):
        with folder() as where:
            bares.append(asyncio.run(bare(where / "bare.db")))
            rates.append(asyncio.run(ours(where / "jobs.db")))
    base = report("bare clients, one group-committing writer", bares, "jobs/s")
    verdict("enqueue, ours / bare", report("delay()", rates, "jobs/s") / base, "≥ 0.6")


if __name__ == "__main__":
    main()
