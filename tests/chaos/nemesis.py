"""Whoever does the harm: faults drawn from a seed, one after another, some lasting beside the next."""

import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import ClassVar

from jobs import processes

from .cluster import Cluster, Member, in_its_own_eyes
from .history import Fault

LONGEST_STILL = 1.5  #: seconds that a process is stopped, or the database locked


@dataclass(frozen=True, slots=True)
class Plan:
    """A fault to come: after `pause` seconds; `pick` (0 to 1) says whom it hits, `lasts` how long (s)."""

    kind: str
    pause: float
    pick: float
    lasts: float


def plans(seed: int, weights: Mapping[str, int]) -> Iterator[Plan]:
    """Faults without end, the same for the same seed: each kind once, and then by their weights."""
    dice = random.Random(f"{seed} nemesis")
    kinds = list(weights)
    first = dice.sample(kinds, len(kinds))
    while True:
        kind = first.pop() if first else dice.choices(kinds, weights.values())[0]
        yield Plan(kind, dice.uniform(0.1, 1.2), dice.random(), dice.uniform(0.1, LONGEST_STILL))


class Nemesis:
    """Does to a cluster what is planned, and notes it. `heal` undoes what can be undone."""

    faults: ClassVar[Mapping[str, int]] = {
        "kill_child": 6, "kill_forkserver": 2, "kill_service": 3, "kill_everything": 1, "terminate": 2,
        "stop_child": 2, "stop_service": 2, "lock": 2, "worker": 4,
    }  # fmt: skip
    """The kinds, each a method, and how often it is drawn."""

    slow: ClassVar[Mapping[str, int]] = {}
    """Those that take longer than a short run."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lasting: list[threading.Thread] = []
        self._failures: list[BaseException] = []

    def harm(self, plan: Plan) -> None:
        """Do it; returns while it may still last."""
        getattr(self, plan.kind)(plan)

    def heal(self) -> None:
        """Wait for what lasts, and start the service if it does not run."""
        for thread in self._lasting:
            thread.join()
        if self._failures:
            raise self._failures[0]
        if self._cluster.service is None:
            self._cluster.serve()

    def kill_child(self, plan: Plan) -> None:
        if found := self._child(plan):
            member, pid = found
            began, known_as = time.monotonic(), in_its_own_eyes(pid)
            processes.kill(pid)
            self._note("kill_child", began, member, known_as, lethal=True)

    def kill_forkserver(self, plan: Plan) -> None:
        member = self.member(plan)
        if member is not None and (pid := member.forkserver) is not None:
            began = time.monotonic()
            processes.kill(pid)
            # Its children, and with them their runs, end a moment later.
            self._last(0.5, lambda: self._note("kill_forkserver", began, member, lethal=True))

    def kill_service(self, plan: Plan) -> None:
        assert self._cluster.service is not None
        self._cluster.kill(self._cluster.service)
        self._restart(plan)

    def kill_everything(self, plan: Plan) -> None:
        for member in self._cluster.members:
            self._cluster.kill_family(member)
        self._restart(plan)

    def terminate(self, plan: Plan) -> None:
        assert self._cluster.service is not None
        self._cluster.terminate(self._cluster.service)
        self._restart(plan)

    def stop_child(self, plan: Plan) -> None:
        if found := self._child(plan):
            self._stand_still("stop_child", plan, *found)

    def stop_service(self, plan: Plan) -> None:
        if member := self.member(plan):
            self._stand_still("stop_member", plan, member, member.pid)

    def lock(self, plan: Plan) -> None:
        """Another program has the database locked."""
        began = time.monotonic()

        def hold() -> None:
            with closing(
                sqlite3.connect(self._cluster.folder / "jobs.db", timeout=5)
            ) as connection:
                connection.isolation_level = None
                with suppress(sqlite3.OperationalError):  # somebody stands still in a transaction
                    connection.execute("BEGIN IMMEDIATE")
                    time.sleep(plan.lasts)
                    connection.execute("ROLLBACK")
            self._note("lock", began)

        self._keep(threading.Thread(target=hold))

    def worker(self, plan: Plan) -> None:
        """Another process joins, or leaves, by its own will or not."""
        workers = self._cluster.workers
        if not workers:
            self._cluster.work()
            now = time.monotonic()
            self._note("join", now)
        elif plan.pick < 0.5:
            self._cluster.terminate(workers[0])
        else:
            self._cluster.kill(workers[0])

    # --- whom, and how

    def members(self) -> list[Member]:
        """Those that can be hit."""
        return self._cluster.members

    def member(self, plan: Plan) -> Member | None:
        """The one that is hit, if there is any."""
        members = self.members()
        return members[int(plan.pick * len(members))] if members else None

    def _child(self, plan: Plan) -> tuple[Member, int] | None:
        children = [(each, pid) for each in self.members() for pid in each.children()]
        return children[int(plan.pick * len(children))] if children else None

    def _restart(self, plan: Plan) -> None:
        time.sleep(plan.lasts / 3)
        self._cluster.serve()

    def _stand_still(self, kind: str, plan: Plan, member: Member, pid: int) -> None:
        began, known_as = time.monotonic(), in_its_own_eyes(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)

        def go_on() -> None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            self._note(kind, began, member, known_as)

        self._last(plan.lasts, go_on)

    def _note(
        self,
        kind: str,
        began: float,
        member: Member | None = None,
        pid: int | None = None,
        *,
        lethal: bool = False,
        apart: bool = False,
    ) -> None:
        name = None if member is None else member.name
        self._cluster.history.add(Fault(kind, began, time.monotonic(), name, pid, lethal, apart))

    def _last(self, seconds: float, then: Callable[[], None]) -> None:
        def do() -> None:
            try:
                then()
            except BaseException as error:
                self._failures.append(error)

        self._keep(threading.Timer(seconds, do))

    def _keep(self, thread: threading.Thread) -> None:
        thread.start()
        self._lasting.append(thread)
