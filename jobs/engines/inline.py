"""The engine that runs jobs in this process: for tests and debugging.

An async job shares the service's event loop; a sync one has a thread, where nothing can stop it: a
timeout or cancel has no effect on it, and at shutdown it is left behind, its job given back. What jobs
write is not captured, and what they use not measured: they share a process with everything else.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from jobs.model import Invocation, JobId, JobState, Outcome
from jobs.progress import ProgressNote
from jobs.protocols import Event, Interrupt, Progress, Started
from jobs.runner import Runner

_BETWEEN_PROGRESS = 0.1  #: seconds
_STOP_GRACE = 1.0  #: seconds that cancelled jobs have at shutdown


class InlineEngine:
    """Up to `slots` jobs at once; `grace` is the time in seconds that they have at shutdown."""

    def __init__(self, runner: Runner, *, slots: int, grace: float) -> None:
        self._runner, self._slots, self._grace = runner, slots, grace
        self._running: dict[JobId, tuple[Invocation, asyncio.Task[None]]] = {}
        runner.told = self._hear
        self._heard: dict[str, ProgressNote] = {}  # the latest of each job, not passed on yet
        self._hearing = threading.Lock()
        self._events: list[Event] = []
        self._bell = asyncio.Event()
        self._closing = self._closed = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing = True
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._grace):
                    await self.drain()
            for job_id in list(self._running):
                self.interrupt(job_id, Interrupt.SHUTDOWN)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_GRACE):
                    await self.drain()
        finally:
            for invocation, task in self._running.values():
                task.cancel()
                self._report(Outcome(invocation.job_id, invocation.attempt, JobState.PENDING))
            self._running.clear()
            self._closed = True
            self._bell.set()

    @property
    def trouble(self) -> str | None:
        """Why it can run nothing now."""
        return None

    @property
    def free(self) -> int:
        """How many more invocations it takes now."""
        return 0 if self._closing else self._slots - len(self._running)

    def start(self, batch: Sequence[Invocation]) -> None:
        """Begin them all."""
        for invocation in batch:
            task = asyncio.create_task(self._run(invocation))
            self._running[invocation.job_id] = invocation, task

    def interrupt(self, job_id: JobId, why: Interrupt) -> None:
        """Cancel an async job; a sync one goes on."""
        self._runner.interrupt(job_id, why)

    async def events(self) -> AsyncIterator[Sequence[Event]]:
        """What happens."""
        while not (self._closed and not self._events):
            await self._bell.wait()
            self._bell.clear()
            events, self._events = self._events, []
            yield events

    async def drain(self) -> None:
        """Return when everything has ended: it has all begun."""
        while self._running:
            await asyncio.wait([task for _, task in self._running.values()])

    async def _run(self, invocation: Invocation) -> None:
        self._report(Started(invocation.job_id, invocation.attempt, os.getpid()))
        timer = None
        if invocation.timeout is not None:
            timer = asyncio.get_running_loop().call_later(
                invocation.timeout, self.interrupt, invocation.job_id, Interrupt.TIMEOUT
            )
        try:
            outcome = await self._runner.run_async(invocation)
        finally:
            if timer is not None:
                timer.cancel()
        self._pass_on(invocation.job_id)
        del self._running[invocation.job_id]
        self._report(outcome._replace(pid=os.getpid()))

    def _hear(self, job_id: str, note: ProgressNote) -> None:
        """In any thread."""
        with self._hearing:
            first = job_id not in self._heard
            self._heard[job_id] = note
        if first:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                self._loop.call_soon_threadsafe(
                    self._loop.call_later, _BETWEEN_PROGRESS, self._pass_on, job_id
                )

    def _pass_on(self, job_id: str) -> None:
        with self._hearing:
            note = self._heard.pop(job_id, None)
        running = self._running.get(JobId(job_id))
        if note is not None and running is not None:
            self._report(Progress(running[0].job_id, running[0].attempt, note.to_json()))

    def _report(self, event: Event) -> None:
        self._events.append(event)
        self._bell.set()
