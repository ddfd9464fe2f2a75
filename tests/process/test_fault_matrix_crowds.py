"""Fault matrix: more clients follow, and more jobs wait, than may."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from jobs.keys import new_key
from jobs.settings import Settings
from service import key_commands
from tests.running import Running, Starter, until

STREAMS, OF_OWNER, OF_ALL = 5, 20, 50
LATER = {"task": "mine.wait", "args": {"seconds": 0}, "countdown": 600}
TASKS = """
import time
from jobs import task

@task
def wait(seconds: float) -> None:
    time.sleep(seconds)
"""


@pytest.fixture(scope="module")
def keys() -> dict[str, str]:
    return {}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, keys: dict[str, str]) -> Iterator[Running]:
    start = Starter(tmp_path_factory.mktemp("crowds"))
    start.write("mine.py", TASKS)
    database = str(start.folder / "jobs.db")
    for name in ("ann", "bob", "eve", "zoe"):
        key, keys[name] = new_key(name)
        asyncio.run(key_commands.add(Settings(database=database), key))
    yield start.serve(
        *("--tasks", "mine", "--lanes", "0"),
        JOBS_DATABASE=database,
        JOBS_MAX_STREAMS=str(STREAMS),
        JOBS_MAX_QUEUED=str(OF_ALL),
        JOBS_MAX_QUEUED_PER_OWNER=str(OF_OWNER),
    )
    start.close()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_clients_that_follow_beyond_the_limit_are_turned_away_and_the_others_served(
    service: Running, keys: dict[str, str]
) -> None:
    """Fault row 26; of the reader that does not read, see `test_events.py` of the API."""
    asked = f"GET /events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {keys['ann']}\r\n\r\n"
    with ExitStack() as held:
        clients = [held.enter_context(closing(service.connect(asked.encode()))) for _ in range(100)]
        heads = [client.recv(4096).partition(b"\r\n\r\n")[0].lower() for client in clients]
        found = Counter(head.split()[1] for head in heads)
        assert found == {b"200": STREAMS, b"503": 100 - STREAMS}
        assert all(b"retry-after: 5" in head for head in heads if b" 503" in head)
        assert service.ask("GET", "/jobs", headers=bearer(keys["ann"])).status == 200
        assert service.get("/readyz").status == 200
    # They have gone: there is room again.

    def follows() -> bool:
        with closing(service.connect(asked.encode())) as client:
            return b" 200" in client.recv(4096)

    until(follows)


def test_at_the_limits_of_the_queue_submissions_are_refused_and_looks_answered(
    service: Running, keys: dict[str, str]
) -> None:
    """Fault row 39."""

    def fill(name: str) -> tuple[list[str], int]:
        """Where the jobs are that were taken, and what the first was told that was not."""
        taken = []
        while True:
            answer = service.ask("POST", "/jobs", LATER, bearer(keys[name]))
            if answer.status != 202:
                assert int(answer.headers["Retry-After"]) >= 1
                assert answer.headers["Content-Type"] == "application/problem+json"
                return taken, answer.status
            taken.append(answer.headers["Location"])

    jobs = {}
    for name, most, status in (
        ("ann", 20, 429),
        ("bob", 20, 429),
        ("eve", 10, 503),
        ("zoe", 0, 503),
    ):
        taken, refused = fill(name)
        while len(taken) < most:  # a count that was just made may say for a moment that it is full
            time.sleep(0.05)
            more, refused = fill(name)
            taken += more
        assert (len(taken), refused) == (most, status)
        jobs[name] = taken

    times = []
    for _ in range(3):
        for name, paths in jobs.items():
            for path in [*paths, "/jobs?limit=5", "/tasks"]:
                began = time.monotonic()
                assert service.ask("GET", path, headers=bearer(keys[name])).status == 200
                times.append(time.monotonic() - began)
    assert sorted(times)[len(times) // 2] < 0.25
    assert service.get("/readyz").status == 200

    gone = service.ask("DELETE", jobs["ann"][0], headers=bearer(keys["ann"]))
    assert gone.status in (200, 202)
    until(lambda: service.ask("POST", "/jobs", LATER, bearer(keys["zoe"])).status == 202)
