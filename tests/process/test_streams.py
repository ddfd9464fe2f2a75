"""Event streams of a service that runs: several processes, clients that come and go, deaths and stops."""

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.following import Told
from tests.running import PATIENCE, Starter, starter, until
from tests.streaming import TASKS, all_of, now_and_then, settled, stream

start = pytest.fixture(starter)


def test_everybody_is_told_everything_once_and_in_order(start: Starter) -> None:
    start.write("talking.py", TASKS)
    service = start.serve("--tasks", "talking", "--workers", "2")
    jobs = [
        service.post("/tasks/talk/jobs", {"steps": 8, "pause": 0.03}).json()["links"]["events"]
        for _ in range(4)
    ]
    with ThreadPoolExecutor(16) as clients:
        following = [
            (path, clients.submit(now_and_then, service, path, seed))
            for seed in range(4)
            for path in jobs
        ]
        heard = [(path, each.result(PATIENCE)) for path, each in following]
    for path, told in heard:
        assert settled(told) == settled(all_of(service, path))
        said = "".join(each.data["text"] for each in told if each.kind == "log")
        lines = "".join(f"line {step}\n" for step in range(8)) + "no more"
        assert said == 2 * lines
        kinds = [each.kind for each in told if each.kind not in ("log", "progress")]
        assert kinds == ["submitted", *2 * ["started", "attempt_ended"], "finished"]
        last = [each.data["progress"]["done"] for each in told if each.kind == "progress"][-1]
        assert last == 8


def test_a_stream_is_followed_across_the_death_of_the_service(start: Starter) -> None:
    start.write("talking.py", TASKS)
    service = start.serve("--tasks", "talking")
    file = str(start.folder / "go")
    job = service.post("/tasks/hold/jobs", {"file": file}).json()
    path = job["links"]["events"]
    told: list[Told] = []
    with stream(service, path) as events:
        for event in events:
            told.append(event)
            if {"log", "progress"} <= {each.kind for each in told}:
                break
    assert {each.data.get("text") for each in told} == {None, "holding\n"}
    service.stop(signal.SIGKILL)
    service.is_gone()
    service = start.serve("--tasks", "talking")
    with stream(service, path, told[-1].id) as events:
        for event in events:
            told.append(event)
            if event.kind == "log":
                (start.folder / "go").touch()
    assert settled(told) == settled(all_of(service, path))
    ends = [each.data["outcome"] for each in told if each.kind == "attempt_ended"]
    assert ends == ["lost", "success"]
    assert told[-1].data["state"] == "SUCCESS"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_open_streams_hold_no_service_up_that_is_to_stop(start: Starter, workers: str) -> None:
    start.write("talking.py", TASKS)
    service = start.serve("--tasks", "talking", "--workers", workers)
    path = service.post("/jobs", {"task": "hold", "args": {"file": "x"}, "countdown": 600}).json()
    ended = threading.Barrier(9)
    opened = threading.Semaphore(0)

    def follow(path: str) -> None:
        with stream(service, path) as events:
            if path != "/events":
                next(events)
            opened.release()
            list(events)
        ended.wait(PATIENCE)

    for _ in range(4):
        for each in ("/events", path["links"]["events"]):
            threading.Thread(target=follow, args=(each,), daemon=True).start()
    for _ in range(8):
        assert opened.acquire(timeout=PATIENCE)
    began = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - began < 8
    ended.wait(PATIENCE)


def test_what_a_job_writes_is_read_while_it_runs(start: Starter) -> None:
    start.write("talking.py", TASKS)
    service = start.serve("--tasks", "talking")
    job = service.post("/tasks/hold/jobs", {"file": str(start.folder / "go")}).json()
    with stream(service, job["links"]["events"]) as events:
        text = next(each.data["text"] for each in events if each.kind == "log")
        assert text == "holding\n"
        seen = until(lambda: service.get(job["links"]["self"]).json()["progress"])
        assert seen == {"done": 1, "total": None, "message": "holding"}
        (start.folder / "go").touch()
        assert [each.kind for each in events][-1] == "finished"
