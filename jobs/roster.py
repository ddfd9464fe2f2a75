"""Who shares the jobs: each process enters itself, looks at the others, and says in words what does not fit.

A service and its workers are started, and upgraded, apart. What one cannot run or read is left to another.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from . import sealing
from .errors import StoreError
from .model import Job, now_ms
from .peers import Peer, Peers
from .protocols import Store
from .registry import Registry

log = logging.getLogger("jobs")

LOOK_EVERY = 2.0  #: seconds
LEAVE_FOR = 1000  #: ms that a job is hidden which is left to others
_FRESH = 0.2  #: seconds
_SHOWN = 5  #: names of tasks in one message


class Roster:
    """The processes that share a store's jobs, and this one among them.

    `release` is that of quart-jobs; `lanes`: how many jobs this process runs at one time."""

    def __init__(
        self, store: Store, registry: Registry, *, release: str, engine: str, lanes: int
    ) -> None:
        self._store, self._registry = store, registry
        self._me = Peer(
            name=store.claimant,
            release=release,
            schema_version=store.schema_version,
            engine=engine,
            lanes=lanes,
            host=socket.gethostname(),
            pid=os.getpid(),
            opened_at=now_ms(),
            tasks=tuple(sorted(registry)),
        )
        self.peers = Peers(schema_version=store.schema_version, processes=())
        """Those of the last look; this one is among them."""
        self._said: set[str] = set()
        self._left: set[str] = set()
        self._looked_at = 0.0

    async def look(self) -> None:
        """Look who is there, and say what has come up. Raises `StoreError`."""
        self._looked_at = monotonic()
        if len(self._registry) != len(self._me.tasks):  # a module was imported late
            self._me = self._me.model_copy(update={"tasks": tuple(sorted(self._registry))})
        self.peers = await self._store.peers()
        if self._me not in self.peers.processes:  # not yet, or others took it for dead
            await self._store.enter(self._me)
            self.peers = await self._store.peers()
        found = set(self._mismatches())
        for words in sorted(found - self._said):
            log.warning("%s", words)
        self._said = found

    async def run(self, clear: Callable[[], object]) -> None:
        """Look again and again, until cancelled; `clear` is called when there is no `trouble` any more."""
        halted = False
        while True:
            halted |= self.trouble is not None  # others look, too
            await asyncio.sleep(LOOK_EVERY)
            try:
                await self.look()
            except StoreError as error:
                log.debug("who shares the jobs is not known now: %s", error)
            if halted and self.trouble is None:
                halted = False
                clear()

    @property
    def trouble(self) -> str | None:
        """Why this release is not to touch the jobs, in words."""
        there, known = self.peers.schema_version, self._me.schema_version
        if there <= known:
            return None
        return (
            f"{self._store.location} has schema version {there} by now, and this release, {self._me.release}, knows"
            f" {known}: it leaves the jobs to others; upgrade quart-jobs here"
        )

    @property
    def problems(self) -> list[str]:
        """What does not fit, in words."""
        idle = [] if any(peer.runs_jobs for peer in self.peers.processes) else [_NOBODY]
        return [*idle, *self._mismatches()]

    def suits(self, job: Job) -> bool:
        """Whether a job can be read and run here. Asked of every job: it must cost nothing."""
        sealed = job.context
        return job.task in self._registry and (sealed is None or sealed[0] <= sealing.VERSION)

    async def leaves(self, job: Job) -> bool:
        """Whether one that does not suit is for another process; else it is to fail here."""
        if job.task in self._registry:
            self._leave(
                f"jobs with requests that a later release than {self._me.release} has sealed, such as {job.id}"
                f" ({job.task}), cannot be read here and are left to a worker that can: upgrade quart-jobs here",
                "sealed",
            )
            return True
        if monotonic() - self._looked_at > _FRESH:  # who has it may have come a moment ago
            with suppress(StoreError):
                await self.look()
        others = [peer for peer in self.peers.having(job.task) if peer.name != self._me.name]
        if others:
            self._leave(f"jobs of the task {job.task}, not known here, are left to {others[0]}")
        return bool(others)

    def _leave(self, words: str, what: str = "") -> None:
        if (what or words) not in self._left:
            self._left.add(what or words)
            log.warning("%s", words)

    def _mismatches(self) -> list[str]:
        """The same for all who look, but for their own names."""
        peers, me = self.peers.processes, self._me
        found = [
            f"{peer} has release {peer.release} of quart-jobs (schema {peer.schema_version}), and this process"
            f" {me.release} (schema {me.schema_version}): run the same release in services and workers"
            for peer in peers
            if (peer.release, peer.schema_version) != (me.release, me.schema_version)
        ]
        if self.trouble is not None:
            found.append(self.trouble)
        run = {name for peer in peers if peer.runs_jobs for name in peer.tasks}
        if any(peer.runs_jobs for peer in peers):
            for peer in peers:
                if missing := sorted(set(peer.tasks) - run):
                    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
                    found.append(
                        f"{peer} takes jobs of tasks that no worker has, and they will fail:"
                        f" {', '.join(missing[:_SHOWN])}{more}"
                    )
        return found


_NOBODY = "no process runs jobs now: start a worker, or a service with lanes"
