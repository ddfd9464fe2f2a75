"""An app with `Jobs(app)` under the servers that people use: it works, and nothing stays behind."""

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.running import ROOT, Running, Starter, starter, until

start = pytest.fixture(starter)

APP = """
from quart import Quart
from jobs import Jobs, task

@task
def answer() -> str:
    return "first"

app = Quart(__name__)
jobs = Jobs(app)

@app.post("/run")
async def run():
    job = await answer.delay()
    return await job.result(timeout=20)
"""


def hypercorn(start: Starter, port: int) -> Running:
    # The file as it is shipped, on another port.
    shipped = (ROOT / "hypercorn.toml").read_text()
    start.write("hypercorn.toml", shipped.replace(":8000", f":{port}"))
    return start.python("-m", "hypercorn", "-c", "hypercorn.toml", "mine:app")


def uvicorn(start: Starter, port: int) -> Running:
    return start.python("-m", "uvicorn", "--port", str(port), "--app-dir", ".", "mine:app")


def quart_run(start: Starter, port: int, *options: str) -> Running:
    quart = str(Path(sys.executable).with_name("quart"))
    return start.command(quart, "run", "--port", str(port), *options, QUART_APP="mine:app")


BROKEN = (
    APP
    + """
@app.before_serving
async def broken():
    raise RuntimeError("the app's own start-up")
"""
)


@pytest.mark.parametrize("server", ["hypercorn", "uvicorn"])
def test_a_start_up_that_fails_after_jobs_has_opened_ends_the_server(
    start: Starter, server: str
) -> None:
    start.write("mine.py", BROKEN)
    address = {"hypercorn": ("-w", "0", "-b"), "uvicorn": ("--app-dir", ".", "--port")}[server]
    port = str(_free_port())
    where = f"127.0.0.1:{port}" if server == "hypercorn" else port
    running = start.python("-m", server, *address, where, "mine:app")
    running.says("the app's own start-up")
    until(lambda: running.process.poll() is not None)
    running.is_gone()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("server", [hypercorn, uvicorn, quart_run])
def test_a_job_runs_and_the_stop_leaves_no_process(
    start: Starter, server: object, number: signal.Signals
) -> None:
    start.write("mine.py", APP)
    port = _free_port()
    running: Running = server(start, port).serves(rf"http://127\.0\.0\.1:{port}")  # type: ignore[operator]
    until(lambda: _accepts(port))
    assert running.post("/run").body == b"first"
    running.stop(number)
    running.is_gone()
    assert "Traceback" not in running.output


def test_after_a_reload_jobs_run_the_new_code(start: Starter) -> None:
    start.write("mine.py", APP)
    port = _free_port()
    running = quart_run(start, port, "--reload").serves(rf"http://127\.0\.0\.1:{port}")
    until(lambda: _accepts(port))
    assert running.post("/run").body == b"first"
    before = running.family()

    start.write("mine.py", APP.replace('"first"', '"second"'))
    later = (start.folder / "mine.py").stat().st_mtime + 2
    os.utime(start.folder / "mine.py", (later, later))

    until(lambda: _answers(running, b"second"))
    left = running.family().keys() & before.keys() - {running.process.pid}
    until(lambda: not running.family().keys() & left, "an old lane is left")
    running.stop(signal.SIGINT)  # to all: Quart 0.23 reloads with two processes
    running.is_gone()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _answers(running: Running, expected: bytes) -> bool:
    try:
        return running.post("/run").body == expected
    except OSError:
        return False
