"""A Flask app with `Jobs(app)` under the servers that people use: it works, and nothing stays behind."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.running import PATIENCE, ROOT, Running, Starter, starter, until

start = pytest.fixture(starter)

APP = """
import os, pathlib, time
from flask import Flask
from jobs import Jobs, task

@task
def answer() -> str:
    return "first"

@task
def slow() -> None:
    pathlib.Path("began").write_text("")
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    pathlib.Path("ended").write_text("")

app = Flask(__name__)
jobs = Jobs(app)

@app.get("/")
def index():
    return ""

@app.post("/run")
def run():
    return jobs.run(answer.delay().result(timeout=20))

@app.post("/slow")
def submit_slow():
    return slow.delay().id

@app.get("/state/<job_id>")
def state(job_id):
    return jobs.run(jobs.get(job_id)).state

@app.post("/pid")
def pid():
    return f"{jobs.run(answer.delay().result(timeout=20))} {os.getpid()}"
"""


def program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def flask_run(start: Starter, *options: str) -> Running:
    return start.command(program("flask"), "--app", "mine", "run", "--port", "0", *options).serves()


def gunicorn(start: Starter, *options: str) -> Running:
    command = [program("gunicorn"), "--bind", "127.0.0.1:0", "--workers", "2", *options, "mine:app"]
    # HOME: newer ones keep a control socket there.
    return start.command(*command, JOBS_WORKERS="2", HOME=str(start.folder)).serves()


def preloading(start: Starter) -> Running:
    return gunicorn(start, "--preload", "--worker-class", "gthread", "--threads", "2")


@pytest.mark.parametrize(
    ("server", "number"),
    [
        (flask_run, signal.SIGTERM),
        (flask_run, signal.SIGINT),
        (gunicorn, signal.SIGTERM),
        (gunicorn, signal.SIGINT),
        # Not SIGINT: gunicorn's threaded worker waits for itself if that comes while it takes a connection.
        (preloading, signal.SIGTERM),
    ],
)
def test_a_job_runs_and_the_stop_leaves_no_process(
    start: Starter, server: Any, number: signal.Signals
) -> None:
    start.write("mine.py", APP)
    running: Running = server(start)
    assert running.post("/run").body == b"first"
    running.stop(number)
    running.is_gone()
    assert str(ROOT / "jobs") not in running.output  # where a traceback of ours would be


@pytest.mark.parametrize("server", [gunicorn, preloading])
def test_each_of_several_workers_runs_jobs_of_its_own(start: Starter, server: Any) -> None:
    start.write("mine.py", APP)
    running: Running = server(start)
    answers: set[bytes] = set()
    until(lambda: answers.add(running.post("/pid").body) or len(answers) == 2)
    assert {answer.split()[0] for answer in answers} == {b"first"}
    assert running.process.pid not in {int(answer.split()[1]) for answer in answers}


def test_a_job_that_runs_when_the_server_stops_may_finish(start: Starter) -> None:
    start.write("mine.py", APP)
    running = gunicorn(start)
    job_id = running.post("/slow").body.decode()
    until((start.folder / "began").exists)
    running.process.send_signal(signal.SIGTERM)
    running.says("Worker exiting")
    start.write("go", "")
    running.process.wait(PATIENCE)
    running.is_gone()
    later = gunicorn(start, "--env", "JOBS_LANES=0")
    assert later.get(f"/state/{job_id}").body == b"SUCCESS"


def test_a_job_that_outlasts_the_grace_goes_back_to_the_queue(start: Starter) -> None:
    start.env["JOBS_GRACE"] = "0.3"
    start.write("mine.py", APP)
    running = flask_run(start)
    job_id = running.post("/slow").body.decode()
    until((start.folder / "began").exists)
    running.stop(signal.SIGINT)
    running.is_gone()
    later = gunicorn(start, "--env", "JOBS_LANES=0")
    assert later.get(f"/state/{job_id}").body in (b"PENDING", b"RETRY")


def test_what_a_killed_server_left_is_run_once_another_one_serves(start: Starter) -> None:
    start.write("mine.py", APP)
    killed = flask_run(start)
    killed.post("/slow")
    until((start.folder / "began").exists)
    killed.stop(signal.SIGKILL)
    killed.is_gone()
    start.write("go", "")
    later = flask_run(start)
    assert later.get("/").status == 200
    until((start.folder / "ended").exists)


def test_a_worker_beside_the_server_runs_the_jobs_of_one_without_lanes(start: Starter) -> None:
    start.write("mine.py", APP)
    served = gunicorn(start, "--env", "JOBS_LANES=0")
    served.post("/slow")
    worker = start.quart_jobs("worker", "--app", "mine:app")
    until((start.folder / "began").exists)
    start.write("go", "")
    until((start.folder / "ended").exists)
    assert worker.stop(signal.SIGTERM) == 0


def test_after_a_reload_jobs_run_the_new_code(start: Starter) -> None:
    start.write("mine.py", APP)
    running = flask_run(start, "--debug")
    assert running.post("/run").body == b"first"
    before = running.family()

    start.write("mine.py", APP.replace('"first"', '"second"'))
    later = (start.folder / "mine.py").stat().st_mtime + 2
    os.utime(start.folder / "mine.py", (later, later))

    until(lambda: _answers(running, b"second"))
    left = running.family().keys() & before.keys() - {running.process.pid}
    until(lambda: not running.family().keys() & left, "an old lane is left")
    running.stop(signal.SIGINT)
    running.is_gone()


def _answers(running: Running, expected: bytes) -> bool:
    try:
        return running.post("/run").body == expected
    except OSError:
        return False
