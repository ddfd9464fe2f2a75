"""Several services on one PostgreSQL: each job runs once, and they get over deaths, of one and of the server."""

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.stores.postgres.commits import JUDGE_AFTER
from tests import streaming
from tests.following import Told
from tests.postgres import Server, own
from tests.running import PATIENCE, Running, Starter, starter, until
from tests.streaming import all_of, now_and_then, settled, stream

start = pytest.fixture(starter)
server = pytest.fixture(scope="module")(own)

TASKS = """
import os, time
from jobs import task

@task
def mark(path: str, until: str = "") -> int:
    with open(path, "a") as file:
        file.write(f"{os.getppid()}\\n")
    while until and not os.path.exists(until):
        time.sleep(0.01)
    return 1

@task
def answer(ask: str, end: str) -> None:
    for file in (ask, end):
        while not os.path.exists(file):
            time.sleep(0.01)
        print("there is", os.path.basename(file), flush=True)
"""


@pytest.fixture
def database(server: Server, start: Starter) -> Server:
    """The server, with nothing in it, and named by the environment of what is started."""
    server.clear()
    start.write("mine.py", TASKS)
    start.env |= {
        "JOBS_DATABASE": server.url,
        "JOBS_SECRET_KEY": "k" * 40,
        "JOBS_BUSY_TIMEOUT": "1",
        "JOBS_TASKS": "mine",
    }
    return server


@pytest.fixture
def talking(database: Server, start: Starter) -> Server:
    """The same, and other tasks: those of the tests of streams."""
    start.write("talking.py", streaming.TASKS)
    start.env["JOBS_TASKS"] = "talking"
    return database


def submit(service: Running, path: Path, until: Path | str = "") -> str:
    answer = service.post("/tasks/mine.mark/jobs", {"path": str(path), "until": str(until)})
    assert answer.status == 202, answer
    return answer.headers["Location"]


def state(service: Running, job: str) -> str:
    return str(service.get(job).json()["state"])


def done(service: Running, *jobs: str) -> None:
    for job in jobs:
        until(lambda job=job: state(service, job) == "SUCCESS", service.output)  # type: ignore[misc]


def lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_job_submitted_to_either_service_runs_once_on_one_of_them(
    database: Server, start: Starter
) -> None:
    services = [start.serve() for _ in range(2)]
    ran = start.folder / "ran"
    jobs = [submit(services[n % 2], ran) for n in range(40)]
    done(services[0], *jobs[1::2])
    done(services[1], *jobs[::2])
    assert lines(ran) == 40
    assert "hush" not in "".join(service.output for service in services)


def test_a_stream_on_one_service_tells_of_a_job_that_runs_in_another(
    database: Server, start: Starter
) -> None:
    first = start.serve()
    ask, end = start.folder / "ask", start.folder / "end"
    args = {"ask": str(ask), "end": str(end)}
    running = first.post("/tasks/mine.answer/jobs", args).json()
    until(lambda: first.get(running["links"]["self"]).json()["state"] == "STARTED")
    second = start.serve()  # it has not claimed it, then
    told: list[Told] = []
    with stream(second, "/events") as of_all, stream(second, running["links"]["events"]) as of_one:
        for event in of_one:
            told.append(event)
            if event.kind == "started":
                ask.touch()
            elif event.kind == "log":  # it is told while nothing else happens
                end.touch()
        assert "finished" in (event.kind for event in of_all)
    kinds = [event.kind for event in told]
    assert kinds == ["submitted", "started", "log", "log", "attempt_ended", "finished"]
    assert settled(told) == settled(all_of(first, running["links"]["events"]))
    (worker,) = first.get(running["links"]["attempts"]).json()["attempts"]
    assert worker["worker"].startswith(f"{first.process.pid}-")


def test_everybody_is_told_everything_in_order_on_every_service(
    talking: Server, start: Starter
) -> None:
    services = [start.serve() for _ in range(2)]
    jobs = [
        services[at % 2].post("/tasks/talk/jobs", {"steps": 8, "pause": 0.03}).json()["links"]
        for at in range(6)
    ]
    with ThreadPoolExecutor(12) as clients:
        following = [
            (links["events"], clients.submit(now_and_then, service, links["events"], seed))
            for seed, service in enumerate(services)
            for links in jobs
        ]
        heard = [(path, each.result(PATIENCE)) for path, each in following]
    for path, told in heard:
        assert settled(told) == settled(all_of(services[0], path))
        kinds = [each.kind for each in told if each.kind not in ("log", "progress")]
        assert kinds == ["submitted", *2 * ["started", "attempt_ended"], "finished"]
    ran_by = {
        each["worker"]
        for links in jobs
        for each in services[0].get(links["attempts"]).json()["attempts"]
    }
    assert len(ran_by) == 2, "both services run jobs"


def test_the_jobs_of_a_killed_service_are_back_within_two_seconds(
    database: Server, start: Starter
) -> None:
    first = start.serve()
    go, ran = start.folder / "go", start.folder / "ran"
    job = submit(first, ran, until=go)
    until(lambda: lines(ran) == 1)
    second = start.serve()
    time.sleep(JUDGE_AFTER)  # who has just come judges nobody
    killed = time.monotonic()
    first.process.kill()
    until(lambda: lines(ran) == 2, second.output)
    assert time.monotonic() - killed < 4.0, "2 s are promised, and this machine may be busy"
    go.touch()
    done(second, job)
    attempts = second.get(f"{job}/attempts").json()
    assert [each["outcome"] for each in attempts["attempts"]] == ["lost", "success"]


def test_a_frozen_service_keeps_its_jobs(database: Server, start: Starter) -> None:
    first = start.serve()
    go, ran = start.folder / "go", start.folder / "ran"
    job = submit(first, ran, until=go)
    until(lambda: lines(ran) == 1)
    second = start.serve()
    first.process.send_signal(signal.SIGSTOP)
    time.sleep(JUDGE_AFTER + 1)
    assert state(second, job) == "STARTED"
    go.touch()
    first.process.send_signal(signal.SIGCONT)
    done(second, job)
    assert lines(ran) == 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
def test_while_the_server_is_away_services_say_so_and_then_go_on(
    database: Server, start: Starter, how: int
) -> None:
    services = [start.serve() for _ in range(2)]
    go, ran = start.folder / "go", start.folder / "ran"
    running = submit(services[0], ran, until=go)
    until(lambda: lines(ran) == 1)
    time.sleep(JUDGE_AFTER)  # both may judge the other now, and are not to
    database.stop(how)
    refused = services[0].post("/tasks/mine.mark/jobs", {"path": str(ran)})
    assert refused.status == 503, refused
    assert refused.headers["Retry-After"]
    assert re.search("PostgreSQL database .* cannot be reached", refused.json()["detail"])
    assert b"hush" not in refused.body
    for service in services:
        ready = service.get("/readyz")
        assert (ready.status, "cannot be reached" in ready.json()["detail"]) == (503, True)
        assert service.get("/livez").status == 200
    database.start()
    until(lambda: all(service.get("/readyz").status == 200 for service in services))
    later = [submit(service, ran) for service in services]
    done(services[1], *later)
    time.sleep(JUDGE_AFTER + 1)  # whoever would judge too early had the time to
    go.touch()
    done(services[1], running)
    assert lines(ran) == 3
    attempts = services[0].get(f"{running}/attempts").json()
    assert [each["outcome"] for each in attempts["attempts"]] == ["success"]
    said = "".join(service.output for service in services)
    assert "hush" not in said
    assert said.count("cannot be reached") < 40, "it is said once, not each time"


def test_a_service_that_was_cut_off_stops_what_others_took(
    database: Server, start: Starter
) -> None:
    first = start.serve()
    go, ran = start.folder / "go", start.folder / "ran"
    job = submit(first, ran, until=go)
    until(lambda: lines(ran) == 1)
    sessions = database.ask(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'quart-jobs'"
    )
    second = start.serve()
    first.process.send_signal(
        signal.SIGSTOP
    )  # it does not connect again, as a host that is cut off
    for (session,) in sessions:
        database.ask("SELECT pg_terminate_backend(%s)", session)
    until(lambda: lines(ran) == 2, second.output)
    first.process.send_signal(signal.SIGCONT)
    first.says(r"attempt 1 ended REVOKED, but the job was no longer this process's")
    go.touch()
    done(first, job)
    assert lines(ran) == 2


def test_a_service_waits_for_a_server_that_comes_up_late(database: Server, start: Starter) -> None:
    database.stop()
    service = start.quart_jobs("serve", "--bind", "127.0.0.1:0")
    service.says("waiting for the database: .* cannot be reached")
    database.start()
    service.serves()
    done(service, submit(service, start.folder / "ran"))
    assert service.stop() == 0
    assert database.ask("SELECT count(*) FROM quart_jobs.claimants") == [(0,)]


def test_a_database_that_is_not_there_ends_the_service_in_words(
    database: Server, start: Starter
) -> None:
    url = database.url.replace("/postgres?", "/nowhere?")
    service = start.quart_jobs("serve", "--bind", "127.0.0.1:0", JOBS_DATABASE=url)
    assert service.process.wait(30) == 2
    service.says('quart-jobs: .* cannot be reached: .*database "nowhere" does not exist')
    assert "hush" not in service.output
    assert "Traceback" not in service.output


def test_without_a_key_that_all_share_no_service_starts(database: Server, start: Starter) -> None:
    service = start.quart_jobs("serve", "--bind", "127.0.0.1:0", JOBS_SECRET_KEY="")
    assert service.process.wait(30) == 2
    service.says("JOBS_SECRET_KEY")
    assert os.listdir(start.folder) == ["mine.py"]


def test_the_other_commands_know_postgresql(database: Server, start: Starter) -> None:
    def said(*command: str) -> str:
        running = start.quart_jobs(*command)
        running.process.wait(30)
        running.says(r"\n")
        return running.output

    assert "applied 0001, 0002, 0003, 0004, 0005, 0006" in said("migrate")
    assert "up to date, nothing applied" in said("migrate")
    assert "revoked" not in said("keys", "create", "--name", "ci")
    assert "pg_dump" in said("backup", "copy.db")
    assert "pg_restore" in said("restore", "copy.db")
    found = said("doctor")
    assert re.search("ok +schema +up to date", found)
    assert re.search("problem +durability +fsync is off", found), "as the tests' server has it"
    assert "hush" not in found
