"""A submission with all that a service on a network asks of one: an API key, an Idempotency-Key that is new for
each, a rate limit and limits of the queue; beside an empty Quart route that is sent the same header fields
through the same guard. Each 202 is fsynced; lanes paused.

    python -m benchmarks.contract
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

from benchmarks.common import (
    ROOT,
    ROUNDS,
    answers,
    folder,
    free_port,
    report,
    running,
    serve,
    verdict,
)
from benchmarks.web import BODY, wrk

TURNS = int(os.environ.get("BENCH_SECONDS", "6")) * ROUNDS
MANY = 10_000_000
LIMITS = {
    "JOBS_AUTH": "required",
    "JOBS_RATE_LIMIT": f"{MANY}/s",
    "JOBS_MAX_QUEUED": MANY,
    "JOBS_MAX_QUEUED_PER_OWNER": MANY,
    "JOBS_MAX_QUEUED_BYTES": 1 << 40,
    "JOBS_MAX_QUEUED_BYTES_PER_OWNER": 1 << 40,
}


def make_key(database: Path) -> str:
    command = ["keys", "create", "--name", "bench", "--scopes", "submit", "--database", database]
    made = subprocess.run(
        [sys.executable, "-m", "service.cli", *map(str, command)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return made.stdout.strip()


def a_key_each(key: str) -> str:
    """For wrk's script: all requests with the API key, each with an Idempotency-Key of its own."""
    return f"""
wrk.headers['Authorization'] = 'Bearer {key}'
local threads, sent = 0, 0
function setup(thread) threads = threads + 1; thread:set('number', threads) end
function request()
  sent = sent + 1
  wrk.headers['Idempotency-Key'] = '{uuid4()}-' .. number .. '-' .. sent
  return wrk.format()
end
"""


def main() -> None:
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing: apt-get install wrk")
    print(f"POST → 202 with key and limits, wrk with 32 connections, {TURNS} turns of 1 s")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    typed = f"{url}/tasks/bench.submit/jobs"
    routes = {
        "empty Quart route of the same app": (f"{url}/empty", BODY),
        "POST /tasks/<name>/jobs": (typed, BODY),
        "POST /jobs": (
            f"{url}/jobs",
            json.dumps({"task": "bench.submit", "args": json.loads(BODY)}),
        ),
    }
    with folder() as where:
        database = where / "a.db"
        key = make_key(database)
        with running(*serve(database, port, "--lanes", 0), ready=answers(url), **LIMITS):
            wrk(typed, where, seconds=3, more=a_key_each(key))
            rates = [
                [wrk(to, where, body=body, more=a_key_each(key)) for to, body in routes.values()]
                for _ in range(TURNS)
            ]
    for name, each in zip(routes, zip(*rates, strict=True), strict=True):
        report(name, each, "req/s")
    for at, name in list(enumerate(routes))[1:]:
        ratio = statistics.median(turn[at] / turn[0] for turn in rates)
        verdict(f"{name} with key and limits / empty route", ratio, "≥ 0.6")


if __name__ == "__main__":
    main()
