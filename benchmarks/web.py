"""The HTTP side, under wrk (Debian's package) on the same server, in one run:

- submissions over REST beside an empty Quart route; each 202 is fsynced; lanes paused, then draining;
- GET /jobs/<id> idle, and with every lane busy on the CPU;
- memory of the idle service with two lanes.

    python -m benchmarks.web
"""

import http.client
import json
import os
import shutil
import statistics
import subprocess
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.common import (
    ROUNDS,
    answers,
    folder,
    free_port,
    percentile,
    pss_mib,
    report,
    running,
    serve,
    verdict,
)

SECONDS = int(os.environ.get("BENCH_SECONDS", "6"))
BODY = json.dumps({"to": "someone@example.org", "template": "welcome", "n": 42})


def wrk(url: str, where: Path, *, body: str = BODY, seconds: int = 1, more: str = "") -> float:
    """Posts a second. Any answer but 2xx is fatal. `more` is put before wrk's script."""
    script = where / "wrk.lua"
    script.write_text(
        f"{more} wrk.method='POST' wrk.body='{body}' wrk.headers['Content-Type']='application/json' "
        "done = function(s, l, r) io.write(string.format('%d %d %d\\n', s.requests, s.duration,"
        " s.errors.status + s.errors.connect + s.errors.read + s.errors.timeout)) end"
    )
    command = ["wrk", "-t2", "-c32", f"-d{seconds}s", "-s", str(script), url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    requests, micros, errors = map(int, output.strip().splitlines()[-1].split())
    if errors:
        raise SystemExit(f"{errors} failed requests:\n{output}")
    return requests / (micros / 1e6)


def submissions() -> None:
    """Turns of a second each, empty route and submissions one after the other: a machine that is slow for
    some seconds is so for both sides of a ratio."""
    turns = SECONDS * ROUNDS
    print(f"POST → 202, wrk with 32 connections, {turns} turns of 1 s, one server process")
    envelope = json.dumps({"task": "bench.submit", "args": json.loads(BODY)})
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    typed = f"{url}/tasks/bench.submit/jobs"
    routes = {
        "empty Quart route of the same app": (f"{url}/empty", BODY),
        "POST /tasks/<name>/jobs": (typed, BODY),
        "POST /jobs": (f"{url}/jobs", envelope),
    }
    for lanes, how in ((0, "lanes paused"), (2, "two lanes draining")):
        with (
            folder() as where,
            running(
                *serve(where / "a.db", port, "--lanes", lanes, "--max-queued", 10_000_000),
                ready=answers(url),
            ),
        ):
            wrk(typed, where, seconds=3)
            rates = [
                [wrk(route, where, body=body) for route, body in routes.values()]
                for _ in range(turns)
            ]
        for name, each in zip(routes, zip(*rates, strict=True), strict=True):
            report(f"{name}, {how}", each, "req/s")
        for at, name in enumerate(routes):
            if at:
                ratio = statistics.median(turn[at] / turn[0] for turn in rates)
                verdict(
                    f"{name} / empty route, {how}", ratio, "≥ 0.7" if lanes == 0 else "reported"
                )


def post(url: str, body: object) -> dict[str, object]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def reads_and_memory() -> None:
    print("GET /jobs/<id>, one client at a time, two lanes")
    idle, busy, memory = [], [], []
    for _ in range(ROUNDS):
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        with (
            folder() as where,
            running(*serve(where / "a.db", port, "--lanes", 2), ready=answers(url)) as process,
        ):
            time.sleep(2)
            memory.append(pss_mib(process.pid))
            job = post(f"{url}/jobs", {"task": "bench.noop"})
            target = f"{url}/jobs/{job['id']}"
            idle.append(get_p99(target))
            for _ in range(2):
                post(f"{url}/jobs", {"task": "bench.spin", "args": [3 * SECONDS]})
            time.sleep(0.5)
            busy.append(get_p99(target))
    calm = report("p99, lanes idle", idle, "ms")
    verdict("p99, busy / idle", report("p99, every lane CPU-bound", busy, "ms") / calm, "≤ 2")
    verdict("PSS, service with two idle lanes, MiB", report("memory", memory, "MiB"), "< 110")


def get_p99(url: str) -> float:
    """One keep-alive connection, one request at a time, as a poller would."""
    parts = urlsplit(url)
    times = []
    connection = http.client.HTTPConnection(parts.netloc)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        start = time.perf_counter()
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        answer.read()
        times.append(1000 * (time.perf_counter() - start))
        if answer.status != 200:
            raise SystemExit(f"GET answered {answer.status}")
        time.sleep(0.002)
    connection.close()
    return percentile(times, 99)


def main() -> None:
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing: apt-get install wrk")
    submissions()
    reads_and_memory()


if __name__ == "__main__":
    main()
