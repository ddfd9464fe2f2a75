"""Jobs accepted through `POST /jobs/batch`: batches of no-op submissions from a few connections, each batch
fsynced before its 202; the same as JSON Lines. Then `GET /jobs/<id>` with an empty queue, and with a full one of
100,000 while further submissions are refused.

    python -m benchmarks.batch
"""

import http.client
import json
import os
import threading
import time
from pathlib import Path

from benchmarks.common import ROUNDS, answers, folder, free_port, report, running, serve, verdict
from benchmarks.web import get_p99, post

COUNT = int(os.environ.get("BENCH_JOBS", "100000"))
CONNECTIONS = 4
SIZE = 1000
SUBMISSION = {"task": "bench.noop"}
WAYS = {
    "one JSON body, all or nothing": (
        "application/json",
        json.dumps({"jobs": [SUBMISSION] * SIZE}),
        202,
    ),
    "JSON Lines, each for itself": (
        "application/jsonl",
        (json.dumps(SUBMISSION) + "\n") * SIZE,
        200,
    ),
}


def send(port: int, batches: int, media: str, body: str, status: int) -> None:
    """Batches one after the other, on one connection. Any other answer is fatal."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for _ in range(batches):
        connection.request("POST", "/jobs/batch", body, {"Content-Type": media})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != status or b'"problem"' in text:
            os.write(2, text[:1000] + b"\n")
            os._exit(1)
    connection.close()


def rate(port: int, connections: int, *how: object) -> float:
    """Jobs a second."""
    each = COUNT // SIZE // connections
    senders = [threading.Thread(target=send, args=(port, each, *how)) for _ in range(connections)]
    start = time.perf_counter()
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    return each * connections * SIZE / (time.perf_counter() - start)


def measure(where: Path) -> list[float]:
    port = free_port()
    command = serve(where / "a.db", port, "--lanes", 0, "--max-queued", 10_000_000)
    with running(*command, ready=answers(f"http://127.0.0.1:{port}/livez")):
        send(port, 3, *WAYS["one JSON body, all or nothing"])
        return [rate(port, CONNECTIONS, *how) for how in WAYS.values()]


def full_queue(where: Path) -> tuple[float, float]:
    """p99 of looking at a job, ms: with one job in the queue, and with as many as may wait."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with running(*serve(where / "a.db", port, "--lanes", 0), ready=answers(f"{url}/livez")):
        target = f"{url}/jobs/{post(f'{url}/jobs', SUBMISSION)['id']}"
        empty = get_p99(target)
        send(port, 99, *WAYS["one JSON body, all or nothing"])
        post(f"{url}/jobs/batch", {"jobs": [SUBMISSION] * (SIZE - 1)})
        done = threading.Event()
        refused = threading.Thread(target=be_refused, args=(port, done))
        refused.start()
        full = get_p99(target)
        done.set()
        refused.join()
    return empty, full


def be_refused(port: int, done: threading.Event) -> None:
    """Try to submit more than fits, fifty times a second."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    body = json.dumps(SUBMISSION)
    while not done.wait(0.02):
        connection.request("POST", "/jobs", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 503 or not answer.headers["Retry-After"]:
            os.write(2, f"answered {answer.status}\n".encode())
            os._exit(1)
    connection.close()


def main() -> None:
    print(f"POST /jobs/batch, {SIZE} jobs each from {CONNECTIONS} connections, lanes paused")
    rates = []
    for _ in range(ROUNDS):
        with folder() as where:
            rates.append(measure(where))
    for name, each in zip(WAYS, zip(*rates, strict=True), strict=True):
        verdict(name, report(name, each, "jobs/s"), "≥ 20,000")
    print("GET /jobs/<id>, p99, lanes paused")
    looks = []
    for _ in range(ROUNDS):
        with folder() as where:
            looks.append(full_queue(where))
    empty, full = zip(*looks, strict=True)
    report("the only job", empty, "ms")
    report("one of 100,000, others are refused", full, "ms")


if __name__ == "__main__":
    main()
