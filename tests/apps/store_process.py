"""A process that uses a store, for the tests with several of them: `store_process.py COMMAND DATABASE`.

It says what it did on its standard output, a line at a time."""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

from jobs.errors import StoreError
from jobs.model import Job, JobState, Outcome, new_job_id, now_ms
from jobs.stores.migrate import migrate
from jobs.stores.sqlite import SQLiteStore


def say(*words: Any) -> None:
    print(*words, flush=True)


async def told() -> str:
    """The next line from the test."""
    return await asyncio.to_thread(sys.stdin.readline)


def new_job() -> Job:
    return Job(id=new_job_id(), task="t", created_at=now_ms(), context=b"sealed")


async def work(store: SQLiteStore) -> None:
    """Add a hundred jobs from ten tasks, and run whatever there is until nothing is left."""

    async def add() -> None:
        for _ in range(10):
            await store.add([new_job()])

    async def run() -> None:
        while jobs := (await store.claim(5)).jobs:
            done = [Outcome(job.id, job.attempt, JobState.SUCCESS, result="1") for job in jobs]
            for job_id in await store.finish(done):
                say("ran", job_id)

    await asyncio.gather(*(add() for _ in range(10)))
    await asyncio.gather(run(), run())


async def hold(store: SQLiteStore) -> None:
    """Claim a job and sit on it until told to go."""
    await store.add([new_job()])
    (job,) = (await store.claim(1)).jobs
    say("holds", job.id)
    await told()


async def hold_with_a_child(store: SQLiteStore) -> None:
    """The same, with a child that was handed the claimant's file and lives on."""
    child = await asyncio.create_subprocess_exec("sleep", "60", pass_fds=[store.hold_fileno()])
    say("child", child.pid)
    await hold(store)


async def add_when_told(store: SQLiteStore) -> None:
    """Add a job for each line, and say when (monotonic seconds, which all processes share)."""
    say("ready")
    while await told():
        await store.add([new_job()])
        say("added", time.monotonic())


async def pour(store: SQLiteStore) -> None:
    """Add jobs without end, saying which are kept."""

    async def add() -> None:
        while True:
            job = new_job()
            await store.add([job])
            say("kept", job.id)

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(add())


async def meet_failures(store: SQLiteStore) -> None:
    """Add jobs one by one, until the disk has failed and works again."""
    failed = False
    for _ in range(200):
        job = new_job()
        try:
            await store.add([job])
        except StoreError as error:
            failed = True
            say("refused", job.id, type(error).__name__, error)
            try:
                await store.check()
            except StoreError as unready:
                say("unready", unready)
        else:
            say("kept", job.id)
            if failed:
                await store.check()
                say("ready")
                return


async def opened(command: str, path: Path) -> None:
    async with SQLiteStore(path, busy_timeout=10.0) as store:
        await COMMANDS[command](store)


COMMANDS = {
    one.__name__: one for one in (work, hold, hold_with_a_child, add_when_told, pour, meet_failures)
}

if __name__ == "__main__":
    _, command, database = sys.argv
    try:
        if command == "migrate":
            say("applied", *migrate(Path(database), busy_timeout=10.0))
        else:
            asyncio.run(opened(command, Path(database)))
    except StoreError as error:
        sys.exit(str(error))
    say("bye", os.getpid())
