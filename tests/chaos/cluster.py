"""The service under test: one `quart-jobs serve` and any number of `quart-jobs worker` on one database.

This is one machine with SQLite; `hosts` has several."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from jobs import processes
from tests.running import PATIENCE, ROOT, Running, Starter

from . import effects
from .effects import Effects
from .history import Fault, Gone, History, Start
from .network import Host, free_port
from .observer import in_file
from .verdict import Evidence

TASKS = "tests.apps.chaos_tasks"

_GONE_PAUSE = 0.02


class Member:
    """One service or worker, with its children; on `host`, if there are several."""

    def __init__(self, name: str, running: Running, host: Host | None = None) -> None:
        self.name, self.running, self.host = name, running, host

    @property
    def pid(self) -> int:
        return self.running.process.pid

    @property
    def forkserver(self) -> int | None:
        """The process that its children are forked from."""
        for pid in processes.children(self.pid):
            with suppress(OSError):
                if b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        return None

    def children(self) -> list[int]:
        """Its lanes' processes."""
        return [] if (parent := self.forkserver) is None else sorted(processes.children(parent))


def in_its_own_eyes(pid: int) -> int:
    """The pid by which a process knows itself: another one, if it is on another host."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return pid


class Cluster:
    """Starts, kills and looks after the members, on one machine. All is kept in `folder`; the history says what
    was done.

    `more` are further modules that the service imports, `env` is its environment."""

    def __init__(self, folder: Path, *, more: Iterable[str] = (), **env: str) -> None:
        self.folder, self.history = folder, History(folder / "history.jsonl")
        self.effects = folder / "effects.log"
        self.records = in_file(folder / "jobs.db")
        self.how = "one machine, on SQLite"
        self.env = {
            "JOBS_LANES": "2",
            "JOBS_GRACE": "1",
            "JOBS_STOP_GRACE": "0.5",
            "JOBS_TASKS": ",".join([TASKS, *more]),
            effects.FILE: str(self.effects),
        } | env
        self.service: Member | None = None
        self.workers: list[Member] = []
        self.bind = f"127.0.0.1:{free_port()}"
        self._start = Starter(folder)
        self._count = 0
        self._watches: list[threading.Thread] = []

    @property
    def members(self) -> list[Member]:
        """Those that run."""
        return [*([] if self.service is None else [self.service]), *self.workers]

    def connect(self, timeout: float) -> socket.socket:
        """A connection with the service."""
        host, _, port = self.bind.partition(":")
        return socket.create_connection((host, int(port)), timeout)

    def begin(self, workers: int) -> None:
        """Start the service, and so many workers."""
        self.serve()
        for _ in range(workers):
            self.work()

    def serve(self, **env: str) -> Member:
        """Start the service, and wait until it serves."""
        began = time.monotonic()
        member = self.launch(**env)
        member.running.serves()
        self.history.add(Start(member.name, began, time.monotonic()))
        return member

    def launch(self, **env: str) -> Member:
        """Start the service, always on the same port."""
        self.service = self._run("service", "serve", "--bind", self.bind, **env)
        return self.service

    def work(self, **env: str) -> Member:
        """Start a worker beside it."""
        began = time.monotonic()
        member = self._run("worker", "worker", **env)
        member.running.says("lanes?; ")
        self.workers.append(member)
        self.history.add(Start(member.name, began, time.monotonic()))
        return member

    def _run(self, name: str, *command: str, **env: str) -> Member:
        self._count += 1
        name = f"{name}-{self._count}"
        running = self._start.quart_jobs(
            *command, cwd=ROOT, **self.env | {effects.MEMBER: name} | env
        )
        return Member(name, running)

    def kill(self, member: Member) -> None:
        """SIGKILL the member's own process; its children have to notice."""
        began = time.monotonic()
        member.running.process.kill()
        member.running.process.wait(PATIENCE)
        self.died(member, "kill_member", began)

    def kill_family(self, member: Member) -> None:
        """SIGKILL it and all beneath it."""
        began = time.monotonic()
        self.end(member)
        self.died(member, "kill_family", began)

    def end(self, member: Member) -> None:
        """SIGKILL it and all beneath it, without a word."""
        for pid in member.running.family():
            processes.kill(pid)
        member.running.process.wait(PATIENCE)

    def terminate(self, member: Member) -> None:
        """SIGTERM, and wait for its end."""
        began = time.monotonic()
        member.running.process.send_signal(signal.SIGCONT)
        code = member.running.stop()
        self._forget(member)
        self.history.add(
            Fault("terminate", began, time.monotonic(), member=member.name, lethal=True)
        )
        if code != 0:
            raise RuntimeError(f"{member.name} ended with {code}:\n{member.running.output}")

    def died(self, member: Member, kind: str, began: float) -> None:
        """It has been killed: note when the last of its family has gone."""
        self._forget(member)

        def watch() -> None:
            until = began + PATIENCE
            while member.running.family() and time.monotonic() < until:
                time.sleep(_GONE_PAUSE)
            gone = time.monotonic()
            self.history.add(Fault(kind, began, gone, member=member.name, lethal=True))
            self.history.add(Gone(member.name, began, gone))

        thread = threading.Thread(target=watch, name="gone", daemon=True)
        thread.start()
        self._watches.append(thread)

    def _forget(self, member: Member) -> None:
        if member is self.service:
            self.service = None
        elif member in self.workers:
            self.workers.remove(member)

    def settle(self, seconds: float) -> bool:
        """Wait until every job has ended; whether that came to pass."""
        until = time.monotonic() + seconds
        while any(not row.state.ended for row in self.records.rows()):
            if time.monotonic() > until:
                return False
            time.sleep(0.1)
        return True

    def evidence(self) -> Evidence:
        """What is known so far."""
        for thread in self._watches:
            thread.join()
        return Evidence(self.history.all(object), Effects.read(self.effects), self.records.rows())

    def close(self) -> None:
        """End everything."""
        for member in self.members:
            with suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGCONT)
        self._start.close()
        self.history.close()

    def ended_by_themselves(self) -> list[str]:
        """Members that should run and do not."""
        return [
            f"{each.name} ended with {code}:\n{each.running.output[-2000:]}"
            for each in self.members
            if (code := each.running.process.poll()) is not None
        ]
