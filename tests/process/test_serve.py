"""`quart-jobs serve`, `worker` and `migrate` as processes."""

import os
import signal
import socket
import time

import pytest

from service import server
from tests.running import Starter, starter, until

start = pytest.fixture(starter)

TASKS = """
import os, pathlib, time
from jobs import task

@task
def double(n: int) -> int:
    return 2 * n

@task
def linger(seconds: float) -> int:
    pathlib.Path("lingers").touch()
    time.sleep(seconds)
    return os.getpid()
"""

APP = """
import asyncio, os
from quart import Quart, Response, request, websocket
from jobs import Jobs, task

@task
def double(n: int) -> int:
    return 2 * n

app = Quart(__name__)
jobs = Jobs(app)

@app.get("/pid")
async def pid():
    return str(os.getpid())

@app.post("/double/<int:n>")
async def submit(n):
    job = await double.delay(n)
    return str(await job.result(timeout=20))

@app.post("/body")
async def body():
    return str(len(await request.get_data()))

@app.get("/slow")
async def slow():
    await asyncio.sleep(60)
    return "late"

@app.get("/events")
async def events():
    async def ever():
        while True:
            yield b"data: tick\\n\\n"
            await asyncio.sleep(0.05)
    response = Response(ever(), content_type="text/event-stream")
    response.timeout = None
    return response

@app.get("/flood")
async def flood():
    async def ever():
        while True:
            yield bytes(65536)
    response = Response(ever(), content_type="application/octet-stream")
    response.timeout = None
    return response

@app.websocket("/socket")
async def socket():
    await websocket.accept()
    while True:
        await websocket.receive()
"""

CLIENTS = {
    "idle": b"GET /pid HTTP/1.1\r\nHost: a\r\n\r\n",
    "silent": b"",
    "half a head": b"GET /pid HT",
    "half a body": b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf",
    "waiting": b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n",
    "event stream": b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n",
    "not reading": b"GET /flood HTTP/1.1\r\nHost: a\r\n\r\n",
    "websocket": b"GET /socket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
}


def test_task_modules_of_the_current_folder_are_served(start: Starter) -> None:
    start.write("mine.py", TASKS)
    service = start.serve("--tasks", "mine")
    assert service.get("/livez").json() == service.get("/readyz").json() == {"status": "ok"}
    answer = service.post("/tasks/mine.double/jobs", {"n": 21})
    assert "server" not in answer.headers
    assert service.result(answer) == 42
    assert service.stop() == 0
    assert "Traceback" not in service.output
    service.is_gone()


@pytest.mark.parametrize("app", ["mine:app", "mine:make()"])
def test_an_app_is_served_with_the_health_answers_it_lacks(start: Starter, app: str) -> None:
    start.write("mine.py", APP + "\ndef make():\n    return app\n")
    service = start.serve("--app", app)
    assert service.post("/double/4").body == b"8"
    assert service.get("/livez").json() == service.get("/readyz").json() == {"status": "ok"}
    assert service.get("/jobs").status == 404


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGTERM, "1"), (signal.SIGINT, "1"), (signal.SIGTERM, "2")]
)
def test_it_stops_within_the_grace_whatever_clients_do(
    start: Starter, number: int, workers: str
) -> None:
    """Fault row 10."""
    start.write("mine.py", APP)
    service = start.serve("--app", "mine:app", "--grace", "3", "--workers", workers)
    connections = {name: service.connect(sent) for name, sent in CLIENTS.items()}
    for name in ("idle", "event stream", "not reading", "websocket"):
        assert connections[name].recv(12) in (b"HTTP/1.1 200", b"HTTP/1.1 101")
    began = time.monotonic()
    assert service.stop(number) == 0
    assert time.monotonic() - began < 6
    service.is_gone()
    assert "Traceback" not in service.output
    answers = {}
    for name, connection in connections.items():
        with connection:
            if name != "not reading":
                answers[name] = _rest(connection)
    assert answers["event stream"].endswith(b"\r\n0\r\n\r\n")
    assert b"shut down before it could answer" in answers["waiting"]
    assert answers["websocket"].endswith(b"\x88\x02\x03\xf3")  # closed with 1011


def test_streams_do_not_use_up_the_grace(start: Starter) -> None:
    start.write("mine.py", APP)
    service = start.serve("--app", "mine:app", "--grace", "60")
    streams = [service.connect(CLIENTS[name]) for name in ("event stream", "websocket")]
    for stream in streams:
        assert stream.recv(12) in (b"HTTP/1.1 200", b"HTTP/1.1 101")
    began = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - began < 5
    for stream in streams:
        stream.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_job_that_runs_when_ctrl_c_comes_is_finished(start: Starter, workers: str) -> None:
    """Fault row 11."""
    start.write("mine.py", TASKS)
    service = start.serve("--tasks", "mine", "--workers", workers)
    accepted = service.post("/tasks/mine.linger/jobs", {"seconds": 1})
    until((start.folder / "lingers").exists)  # STARTED it is before it has begun
    # Some tools signal the process and then its group: that is one wish, not two.
    service.process.send_signal(signal.SIGINT)
    assert service.stop(signal.SIGINT) == 0
    service.is_gone()
    job = start.serve("--tasks", "mine", JOBS_LANES="0").get(accepted.headers["Location"]).json()
    assert (job["state"], job["attempt"]) == ("SUCCESS", 1)


def test_a_second_signal_ends_it_at_once(start: Starter) -> None:
    """Fault row 11."""
    start.write("mine.py", TASKS)
    service = start.serve("--tasks", "mine", "--grace", "60")
    service.post("/tasks/mine.linger/jobs", {"seconds": 50})
    until((start.folder / "lingers").exists)  # STARTED it is before it has begun
    service.process.send_signal(signal.SIGTERM)
    until(lambda: _refuses(service.port))
    time.sleep(server.AS_ONE)
    began = time.monotonic()
    assert service.stop() == 128 + signal.SIGTERM
    assert time.monotonic() - began < 3
    service.is_gone()


def test_an_address_in_use_is_said_in_one_line_and_nothing_is_written(start: Starter) -> None:
    start.write("mine.py", TASKS)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        service = start.quart_jobs("serve", "--tasks", "mine", "--bind", address)
        assert service.process.wait(20) == 1
    assert service.output == f"quart-jobs: cannot listen on {address}: Address already in use\n"
    assert not list(start.folder.glob("jobs.db*"))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_app_that_fails_to_start_is_said_once(start: Starter, workers: str) -> None:
    start.write("mine.py", TASKS + "\n@task\ndef bad(x: 'Nowhere') -> int: ...\n")
    service = start.quart_jobs(
        "serve", "--tasks", "mine", "--bind", "127.0.0.1:0", "--workers", workers
    )
    assert service.process.wait(20) == 2
    assert service.output.count("mine.bad") == 1, service.output
    assert "Traceback" not in service.output
    service.is_gone()


def test_workers_share_the_address_and_are_replaced(start: Starter) -> None:
    start.write("mine.py", APP)
    service = start.serve("--app", "mine:app", "--workers", "2")

    def pid() -> int:
        return int(service.get("/pid").body)

    first = {pid()}
    until(lambda: first.add(pid()) or len(first) == 2)
    victim = min(first)
    os.kill(victim, signal.SIGKILL)
    service.says(rf"worker {victim} ended \(signal SIGKILL\); starting another")
    until(lambda: pid() not in first)
    assert service.post("/double/5").body == b"10"
    assert service.stop(signal.SIGINT) == 0
    assert "Traceback" not in service.output
    service.is_gone()


def test_workers_end_with_their_supervisor(start: Starter) -> None:
    start.write("mine.py", APP)
    service = start.serve("--app", "mine:app", "--workers", "2")
    service.process.kill()
    service.process.wait(20)
    service.is_gone()


def test_a_worker_runs_what_a_service_without_lanes_took(start: Starter) -> None:
    start.write("mine.py", TASKS)
    service = start.serve("--tasks", "mine", JOBS_LANES="0")
    accepted = service.post("/tasks/mine.double/jobs", {"n": 3})
    worker = start.quart_jobs("worker", "--tasks", "mine")
    worker.says("1 lane")
    assert service.result(accepted) == 6
    assert worker.stop() == 0
    assert worker.output.count("\n") == 1
    worker.is_gone()


def test_a_database_that_cannot_be_used_is_said_in_one_line(start: Starter) -> None:
    start.write("mine.py", TASKS)
    garbage = start.folder / "garbage.db"
    garbage.write_bytes(b"no database " * 1000)
    missing = start.folder / "missing"
    for path, named in ((garbage, garbage), (missing / "jobs.db", missing)):
        service = start.quart_jobs(
            "serve", "--tasks", "mine", "--bind", "127.0.0.1:0", "--database", str(path)
        )
        assert service.process.wait(20) == 2
        assert str(named) in service.output
        assert service.output.count("\n") == 1
        service.is_gone()
    assert garbage.read_bytes() == b"no database " * 1000


def test_migrate_says_what_it_did(start: Starter) -> None:
    first = start.quart_jobs("migrate")
    assert first.process.wait(20) == 0
    assert str(start.folder / "jobs.db") in first.output
    assert "0001" in first.output
    again = start.quart_jobs("migrate")
    assert again.process.wait(20) == 0
    assert "up to date" in again.output


def _rest(connection: socket.socket) -> bytes:
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def _refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("name", ["jobs.py", "service.py", "service/__init__.py"])
def test_a_module_of_the_users_that_shadows_ours_is_named(start: Starter, name: str) -> None:
    start.write("mine.py", TASKS)
    (start.folder / name).parent.mkdir(exist_ok=True)
    start.write(name, "")
    service = start.quart_jobs("serve", "--tasks", "mine", "--bind", "127.0.0.1:0")
    assert service.process.wait(20) == 2
    assert str(start.folder / name) in service.output
    assert "rename it" in service.output
    assert not list(start.folder.glob("jobs.db*"))
