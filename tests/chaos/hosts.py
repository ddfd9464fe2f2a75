"""The service on three hosts: `serve` on one, a worker on each of the others, and a PostgreSQL for all.

With Celery there is a Valkey too, and the workers are Celery's. The shared servers stand on a fourth host, where the
clients are and whoever looks on.
"""

import json
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import redis

from tests import broker, postgres
from tests.running import ROOT, Running, Starter

from . import effects
from .cluster import Cluster, Member, free_port
from .history import Start
from .nemesis import Nemesis, Plan
from .network import Host, network
from .observer import on_server

CELERY = str(Path(sys.executable).with_name("celery"))
LEASE = 18.0  #: seconds after which a host that is cut off has surely been given up


class Hosts(Cluster):
    """See `Cluster`; `celery`: the jobs run in Celery's workers."""

    def __init__(
        self, folder: Path, *, celery: bool = False, more: Iterable[str] = (), **env: str
    ) -> None:
        shared = {"JOBS_SECRET_KEY": "k" * 40, "JOBS_AUTH": "off", "JOBS_BUSY_TIMEOUT": "2"}
        super().__init__(folder, more=more, **shared | env)
        self.network = network()
        self.how = f"three hosts ({self.network.how}) on PostgreSQL{', Celery' if celery else ''}"
        self.front, *self.back = (self.network.host(name) for name in ("a", "b", "c"))
        self.bind = f"{self.front.address}:{free_port()}"
        self._ports = {
            name: self.network.free_port(usual)
            for name, usual in (("database", 5432), ("broker", 6379))
        }
        with self.network.inside():
            self.database = postgres.Server(at=(self.network.address, self._ports["database"]))
        self.records = on_server(self.database.url)
        self.broker: Running | None = None
        if celery:
            self.env["JOBS_ENGINE"] = "celery"
            self.start_broker()

    def start_broker(self) -> None:
        """Begin, or begin again."""
        where = ("--bind", self.network.address, "--port", str(self._ports["broker"]))
        with self.network.inside():
            self.broker, _ = broker.run_valkey(self._start, *where, "--protected-mode", "no")

    def look_into_the_broker(self) -> redis.Redis:
        """A client of it."""
        return broker.client_of(self._start)

    def connect(self, timeout: float) -> socket.socket:
        """See `Cluster`."""
        with self.network.inside():
            return super().connect(timeout)

    def begin(self, workers: int) -> None:
        """Start the service, and on each other host a worker, at the same time."""
        with ThreadPoolExecutor(3) as starting:
            started = [starting.submit(self.serve)]
            started += [starting.submit(self.work, host) for host in self.back]
        for each in started:
            each.result()

    def launch(self, **env: str) -> Member:
        """See `Cluster`."""
        command = Starter.command_of("serve", "--bind", self.bind)
        self.service = self._on(self.front, "serve", command, **env)
        return self.service

    def work(self, host: Host | None = None, **env: str) -> Member:
        """Start a worker on a host; if none is named, on one that has none."""
        if host is None:
            busy = {member.host for member in self.members}
            host = next(host for host in self.back if host not in busy)
        began = time.monotonic()
        if self.broker is None:
            member = self._on(host, "worker", Starter.command_of("worker"), **env)
            member.running.says("lanes?; ")
        else:
            options = ("--concurrency", "2", "--without-gossip", "--without-mingle")
            command = [CELERY, "-A", "jobs.engines.celery", "worker", *options, "-l", "info"]
            member = self._on(host, "worker", command, **env)
            member.running.says(r"\bready\.")
        self.workers.append(member)
        self.history.add(Start(member.name, began, time.monotonic()))
        return member

    def again(self, member: Member) -> Member:
        """Start what a member was on its host once more."""
        assert member.host is not None
        return self.serve() if member.host is self.front else self.work(member.host)

    def _on(self, host: Host, kind: str, command: list[str], **env: str) -> Member:
        self._count += 1
        name = f"{kind}-{self._count}"
        temporary = self.folder / host.name
        temporary.mkdir(exist_ok=True)
        own = {
            effects.MEMBER: name,
            "TMPDIR": str(temporary),
            "JOBS_DATABASE": f"postgresql://jobs@{host.reaches(self._ports['database'])}/postgres",
            "JOBS_BROKER": f"redis://{host.reaches(self._ports['broker'])}/0",
            "PYTHONPATH": str(ROOT),
        }
        running = self._start.command(*command, cwd=ROOT, popen=host.popen, **self.env | own | env)
        return Member(name, running, host)

    def given_up(self, host: Host) -> None:
        """Have the server end the sessions of a host, as it does by itself after a while."""
        self.database.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE {self.network.is_from(host)}"
        )

    def close(self) -> None:
        """See `Cluster`."""
        super().close()
        self.database.close()
        self.network.close()


class HostsNemesis(Nemesis):
    """See `Nemesis`: what befalls hosts, their cables and what they share."""

    faults: ClassVar[Mapping[str, int]] = {
        "kill_child": 4, "kill_forkserver": 1, "stop_child": 1, "kill_member": 2, "kill_host": 2,
        "power_off": 2, "terminate": 2, "cut": 2, "give_up": 3, "restart_database": 2, "crash_database": 1,
    }  # fmt: skip

    slow: ClassVar[Mapping[str, int]] = {"cut_off": 1}

    def __init__(self, cluster: Hosts) -> None:
        super().__init__(cluster)
        self._hosts = cluster
        self._busy: set[Host] = set()  #: cut off, or about to start again

    def members(self) -> list[Member]:
        """See `Nemesis`: one host of the three is left alone."""
        if len(self._busy) == 2:
            return []
        return [member for member in self._hosts.members if member.host not in self._busy]

    def kill_member(self, plan: Plan) -> None:
        self._kill(plan, self._hosts.kill)

    def kill_host(self, plan: Plan) -> None:
        self._kill(plan, self._hosts.kill_family)

    def terminate(self, plan: Plan) -> None:
        self._kill(plan, self._hosts.terminate)

    def power_off(self, plan: Plan) -> None:
        """A host loses its power: all its processes end, and nobody hears of it until it is back."""
        if (member := self.member(plan)) is None:
            return
        host, began = self._take(member), time.monotonic()
        host.cut()
        self._hosts.end(member)

        def power_on() -> None:
            host.mend()
            self._hosts.died(member, "power_off", began)
            self._again(member)

        self._last(plan.lasts, power_on)

    def cut(self, plan: Plan) -> None:
        """A host is cut off for a while, and its sessions outlive that."""
        self._apart("cut", plan, plan.lasts)

    def cut_off(self, plan: Plan) -> None:
        """A host is cut off for so long that the server gives it up."""
        self._apart("cut_off", plan, LEASE + plan.lasts)

    def give_up(self, plan: Plan) -> None:
        """The same, of a server that loses its patience sooner."""
        if host := self._apart("give_up", plan, 2.0 + 2 * plan.lasts):
            time.sleep(0.1)
            self._hosts.given_up(host)

    def restart_database(self, plan: Plan) -> None:
        """All sessions are ended at once, and the server starts again."""
        self._away("restart_database", plan, signal.SIGQUIT)

    def crash_database(self, plan: Plan) -> None:
        """The server is killed."""
        self._away("crash_database", plan, signal.SIGKILL)

    def _take(self, member: Member) -> Host:
        assert member.host is not None
        self._busy.add(member.host)
        return member.host

    def _again(self, member: Member) -> None:
        self._hosts.again(member)
        assert member.host is not None
        self._busy.discard(member.host)

    def _kill(self, plan: Plan, how: Callable[[Member], None]) -> None:
        if member := self.member(plan):
            self._take(member)
            how(member)
            self._last(plan.lasts / 3, lambda: self._again(member))

    def _apart(self, kind: str, plan: Plan, seconds: float) -> Host | None:
        if (member := self.member(plan)) is None:
            return None
        host, began = self._take(member), time.monotonic()
        host.cut()

        def mend() -> None:
            host.mend()
            self._note(kind, began, member, lethal=True, apart=True)
            self._busy.discard(host)

        self._last(seconds, mend)
        return host

    def _away(self, kind: str, plan: Plan, how: int) -> None:
        began = time.monotonic()
        self._hosts.database.stop(how)
        time.sleep(plan.lasts)
        with self._hosts.network.inside():
            self._hosts.database.start()
        self._note(kind, began, apart=True)


class CeleryNemesis(HostsNemesis):
    """The same, and what befalls the broker."""

    faults: ClassVar[Mapping[str, int]] = HostsNemesis.faults | {
        "kill_broker": 3,
        "flush_broker": 3,
        "deliver_twice": 3,
    }

    def kill_broker(self, plan: Plan) -> None:
        """It ends, and has forgotten everything when it begins again."""
        began = time.monotonic()
        assert self._hosts.broker is not None
        self._hosts.broker.process.kill()
        self._hosts.broker.process.wait()
        time.sleep(plan.lasts)
        self._hosts.start_broker()
        self._note("kill_broker", began)

    def flush_broker(self, plan: Plan) -> None:
        """Its messages are gone, those too that workers have and have not acknowledged."""
        began = time.monotonic()
        with self._hosts.look_into_the_broker() as client:
            client.flushall()
        self._note("flush_broker", began)

    def deliver_twice(self, plan: Plan) -> None:
        """Every message that waits, or is not acknowledged, comes once more."""
        began = time.monotonic()
        with self._hosts.look_into_the_broker() as client, suppress(redis.RedisError):
            messages = client.lrange("default", 0, -1)
            messages += [json.dumps(json.loads(each)[0]) for each in client.hvals("unacked")]
            for message in messages:
                client.lpush("default", message)
        self._note("deliver_twice", began)
