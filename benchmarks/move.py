"""`quart-jobs move` of a file with many jobs, to a server on the same machine: seconds, and of which no job is taken.

python -m benchmarks.move
"""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.common import ROOT, folder
from jobs.model import Invocation, Job, JobState, Outcome, Usage, new_job_id, now_ms
from jobs.stores.sqlite import SQLiteStore
from tests.postgres import Server

JOBS = int(os.environ.get("BENCH_JOBS", "400000"))
AT_ONCE = 2000
ARGS = '{"text": "' + 100 * "x" + '"}'
SEALED = 240  #: bytes of a sealed request


def ended(number: int, invocation: Invocation) -> Outcome:
    now = now_ms()
    return Outcome(
        invocation.job_id,
        invocation.attempt,
        JobState.SUCCESS,
        result='{"words": 11}',
        started_at=now,
        finished_at=now,
        usage=Usage(50_000_000, number / 7),
        log="it says a line\n" if number % 5 == 0 else None,
    )


async def fill(path: Path) -> None:
    """Nine of ten jobs have ended, with an attempt each."""
    async with SQLiteStore(path, busy_timeout=5.0) as store:
        for number in range(0, JOBS, AT_ONCE):
            await store.add(
                [
                    Job(new_job_id(), "text.stats", now_ms(), args=ARGS, context=os.urandom(SEALED))
                    for _ in range(AT_ONCE)
                ]
            )
            if number < 0.9 * JOBS:
                claim = await store.claim(AT_ONCE)
                await store.finish(
                    [ended(n, Invocation.of(job)) for n, job in enumerate(claim.jobs)]
                )


def main() -> None:
    with folder() as place:
        path = place / "jobs.db"
        asyncio.run(fill(path))
        print(f"{JOBS} jobs, {path.stat().st_size >> 20} MiB")
        server = Server("-c", "fsync=on", within=Path(os.environ.get("BENCH_DIR", "/var/tmp")))
        try:
            command = [sys.executable, "-m", "service.cli", "move", str(path), server.url]
            said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        finally:
            server.close()
    found = re.search(r"in ([\d.]+) s, of which ([\d.]+) s", said.stdout)
    assert found, said.stdout
    print(f"  moved in {found[1]} s, of which {found[2]} s no job was taken")


if __name__ == "__main__":
    main()
