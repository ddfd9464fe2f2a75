"""`quart-jobs move` beside a busy service, killed again and again: what was accepted runs once, and ends."""

import asyncio
import threading
from collections import Counter
from http.client import HTTPException
from pathlib import Path

import pytest

from jobs.keys import Scope, new_key
from jobs.stores.sqlite import SQLiteStore
from tests.postgres import Server, own
from tests.running import PATIENCE, Answer, Running, Starter, starter, until

start = pytest.fixture(starter)
server = pytest.fixture(scope="module")(own)

TASKS = """
import time
from pathlib import Path
from jobs import task

@task
def mark(n: int, seconds: float = 0.0) -> int:
    with Path("ran").open("a") as file:
        file.write(f"{n}\\n")
    time.sleep(seconds)
    return 2 * n
"""

KILLED_AT = (
    "before:Destination.begin",
    "after:Destination.append",
    "after:Destination.replace",
    "after:Source.hold",
    "after:Source.close",
    "before:Destination.finish",
    "after:Destination.finish",
)
"""Points that one move comes by, one after another."""


@pytest.fixture
def database(server: Server, start: Starter) -> Server:
    """The server, with nothing in it; what is started still uses a file."""
    server.clear()
    start.write("mine.py", TASKS)
    start.env |= {"JOBS_TASKS": "mine", "JOBS_SECRET_KEY": "k" * 40, "JOBS_NICE": "0"}
    return server


SCRIPT = Path(__file__).parents[1] / "apps/killed_move.py"


class Load:
    """A client that submits jobs, each with a key of its own, as fast as they are taken, until it is ended."""

    def __init__(self, service: Running, **headers: str) -> None:
        self.acknowledged: dict[int, str] = {}
        self.refused: dict[int, Answer] = {}
        self.unanswered: set[int] = set()
        self.headers = headers
        self._service, self._over = service, threading.Event()
        self._thread = threading.Thread(target=self._submit)
        self._thread.start()

    def send(self, service: Running, n: int) -> Answer:
        body = {"n": n, "seconds": 0.1 if n % 50 == 0 else 0.0}
        return service.post(
            "/tasks/mine.mark/jobs", body, Idempotency_Key=f"key-{n}", **self.headers
        )

    def _submit(self) -> None:
        n = 0
        while not self._over.is_set():
            n += 1
            try:
                answer = self.send(self._service, n)
            except (OSError, HTTPException):
                self.unanswered.add(n)
                continue
            if answer.status == 202:
                self.acknowledged[n] = answer.json()["id"]
            else:
                self.refused[n] = answer
            self._over.wait(0.005)

    def end(self) -> None:
        self._over.set()
        self._thread.join(PATIENCE)


async def with_a_key(path: Path) -> str:
    """The text of an API key, which a new database has."""
    key, text = new_key("ci", owner="ann", scopes=frozenset(Scope), lasts=None)
    async with SQLiteStore(path, busy_timeout=5.0) as store:
        await store.add_key(key)
    return text


def ends(running: Running) -> tuple[int, str]:
    return running.process.wait(PATIENCE), running.output


def test_a_service_moves_under_load_and_what_was_accepted_runs_once_whatever_is_killed(
    database: Server, start: Starter
) -> None:
    file = start.env["JOBS_DATABASE"]
    bearer = f"Bearer {asyncio.run(with_a_key(Path(file)))}"
    service = start.serve("--grace", "1")
    load = Load(service, Authorization=bearer)
    try:
        until(lambda: len(load.acknowledged) >= 50)
        moving = start.python(str(SCRIPT), ",".join(KILLED_AT), "move", file, database.url)
        code, said = ends(moving)
        assert (code, said.count("killed ")) == (0, len(KILLED_AT)), said
        until(lambda: len(load.refused) > 5)
    finally:
        load.end()
    assert service.get("/readyz").status == 503
    assert {answer.status for answer in load.refused.values()} == {503}
    refusal = load.refused[max(load.refused)]
    assert refusal.headers["Retry-After"]
    assert "have moved to the PostgreSQL database postgres" in refusal.json()["detail"]
    assert service.stop() == 0
    late = start.quart_jobs("worker")
    assert late.process.wait(PATIENCE) == 2
    late.says(r"quart-jobs: the jobs of .*jobs\.db have moved to .*: set JOBS_DATABASE")
    assert "hush" not in service.output + late.output + said

    service = start.serve(JOBS_DATABASE=database.url, JOBS_LANES="2")
    for n in list(load.acknowledged)[-20:] + list(load.refused)[:20]:
        again = load.send(service, n)
        assert again.status == 202, again
        assert load.acknowledged.setdefault(n, again.json()["id"]) == again.json()["id"]
    until(
        lambda: database.ask("SELECT DISTINCT state FROM quart_jobs.jobs") == [("SUCCESS",)],
        service.output,
    )
    kept = dict(
        database.ask(
            "SELECT idempotency_key, id FROM quart_jobs.jobs JOIN quart_jobs.payloads USING (seq)"
        )
    )
    assert {f"key-{n}": job_id for n, job_id in load.acknowledged.items()}.items() <= kept.items()
    ran = Counter(int(line) for line in (start.folder / "ran").read_text().splitlines())
    assert set(load.acknowledged) <= ran.keys()
    assert set(ran.values()) == {1}
    assert ran.keys() <= load.acknowledged.keys() | load.unanswered
    some = load.acknowledged[50]
    headers = {"Authorization": bearer}
    assert service.ask("GET", f"/jobs/{some}/result", headers=headers).json() == 100
    assert service.get(f"/jobs/{some}").status == 401
