"""Celery's workers on a real RabbitMQ, Debian's: confirms, late acknowledgements, and what may befall them.

Not part of the suite: `TEST_RABBITMQ=1 python -m pytest tests/process/test_rabbitmq.py` runs it.
"""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from kombu import Connection

from jobs.celery.broker import CeleryBroker
from jobs.errors import BrokerUnreachable
from jobs.model import Job, JobId
from tests.broker import celery_worker
from tests.process.test_celery_engine import APP, TASKS, prepared, result, seen, submit
from tests.running import Starter, starter, until

start = pytest.fixture(starter)
pytestmark = [pytest.mark.debian("rabbitmq-server"), pytest.mark.timeout(180)]

PROGRAM = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # Debian's command is for root only


class RabbitMQ:
    """One in a folder, with whatever it has kept there."""

    def __init__(self, start: Starter) -> None:
        self._start, self._folder = start, start.folder / "rabbitmq"
        self._folder.mkdir()
        (self._folder / "plugins").write_text("[].")
        self._ports = free_ports(3)
        self.url = f"amqp://guest:guest@127.0.0.1:{self._ports[0]}//"
        self.begin()

    def begin(self) -> None:
        port, between, names = map(str, self._ports)
        env = {
            "HOME": str(self._folder),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "mnesia"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(self._folder / "none"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "none"),
            "RABBITMQ_NODENAME": "tests@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": port,
            "RABBITMQ_DIST_PORT": between,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": names,
        }
        self.running = self._start.command(PROGRAM, **env)
        self.running.says("Server startup complete")

    def die(self) -> None:
        """As by a kill -9."""
        for pid in self.running.family():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.running.is_gone()

    def waiting(self, queue: str = "default") -> int:
        """How many messages wait in a queue."""
        with Connection(self.url) as connection, connection.channel() as channel:
            return int(channel.queue_declare(queue=queue, passive=True).message_count)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def rabbitmq(start: Starter) -> Iterator[RabbitMQ]:
    prepared(start)
    made = RabbitMQ(start)
    start.env["JOBS_BROKER"] = made.url
    yield made
    made.die()


def test_a_job_runs_a_killed_workers_runs_again_and_no_message_is_left(
    start: Starter, rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    service = start.serve()
    first, second = (celery_worker(start, APP, JOBS_GRACE="0") for _ in range(2))
    assert result(service, submit(service, "add", {"a": 1, "b": 2})) == 3
    assert result(service, submit(service, "elsewhere")) == "elsewhere"

    path = tmp_path / "notes"
    job = submit(service, "note", {"path": str(path), "seconds": 60})
    until(lambda: path.exists() and path.read_text() == "1\n")
    until(lambda: "note[" in first.output + second.output)
    busy, other = (first, second) if "note[" in first.output else (second, first)
    busy.process.kill()  # RabbitMQ hands its message to the other, which finds the attempt taken, or lost
    assert result(service, job) == 2
    attempts = service.get(f"{job}/attempts").json()["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["lost", "success"]
    until(lambda: rabbitmq.waiting() == 0)

    path.unlink()
    job = submit(service, "note", {"path": str(path), "seconds": 60})
    until(lambda: path.exists() and path.read_text() == "1\n")
    assert other.stop() == 0  # it gives the job back, unspent, and its message too
    assert seen(service, job)["state"] == "PENDING"


def test_the_broker_may_die_and_forget_and_no_job_is_lost(
    start: Starter, rabbitmq: RabbitMQ
) -> None:
    service = start.serve()
    waiting = [submit(service, "add", {"a": n, "b": 1}) for n in range(3)]
    until(lambda: rabbitmq.waiting() == 3)
    rabbitmq.die()
    waiting += [submit(service, "add", {"a": n, "b": 1}) for n in range(3, 6)]
    unready = until(lambda: (got := service.get("/readyz")).status == 503 and got)
    assert "amqp://guest:**@127.0.0.1" in unready.json()["detail"]
    rabbitmq.begin()
    worker = celery_worker(start, APP)
    assert [result(service, job) for job in waiting] == [1, 2, 3, 4, 5, 6]

    rabbitmq.die()
    job = submit(service, "add", {"a": 6, "b": 1})
    rabbitmq.begin()
    assert result(service, job) == 7
    assert worker.process.poll() is None
    until(lambda: service.get("/readyz").status == 200)

    worker.stop()
    lost = submit(service, "add", {"a": 7, "b": 1})
    until(lambda: rabbitmq.waiting() == 1)
    with Connection(rabbitmq.url) as connection, connection.channel() as channel:
        channel.queue_purge("default")
    celery_worker(start, APP)
    assert result(service, lost) == 8


def test_a_message_is_confirmed_or_else_the_broker_is_in_trouble(rabbitmq: RabbitMQ) -> None:
    broker = CeleryBroker(rabbitmq.url)
    job = Job(JobId("0199f2f0-7c3a-7000-8a61-3f1d2c9b5e77"), f"{TASKS}.add", 0)
    with closing(broker):
        assert broker.depths(["default", "nowhere"]) == {"default": 0, "nowhere": 0}
        broker.publish([job] * 10)
        assert rabbitmq.waiting() == 10  # at once: each is confirmed
        frozen = rabbitmq.running.family()
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        until(lambda: all(stands_still(pid) for pid in frozen))
        with pytest.raises(BrokerUnreachable):
            broker.publish([job])
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
        until(lambda: broker.depths(["default"])["default"] >= 10)


def stands_still(pid: int) -> bool:
    threads = Path(f"/proc/{pid}/task").glob("*/stat")
    return all(" T " in thread.read_text() for thread in threads)
