"""Between store and engine: claims what the engine can take, and records what it says."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from time import monotonic
from typing import Any

from . import wire
from .errors import JobsError, StoreError, UnknownTask
from .model import ErrorKind, Invocation, Job, JobId, JobState, Outcome, now_ms
from .protocols import Call, Engine, Event, Interrupt, Store, Wake, Withdrawn
from .registry import Registry
from .retry import RetryPolicy

log = logging.getLogger("jobs.dispatcher")

REAP_EVERY = 1.0  #: seconds between looks for dead claimants and expired jobs
PRUNE_EVERY = 60.0  #: seconds between deletions of jobs past their retention
STORE_PAUSE = 0.5  #: seconds before a write that the store refused is tried again
CRASH_PAUSE = 1.0  #: seconds before a job that has crashed more than once runs again


class Dispatcher:
    """Runs the store's jobs on the engine until `stop_claiming` and the engine's end.

    All decisions are made in one task, `run`, one step at a time: what one step has started, the next
    may cancel. A refused write is kept and tried again: an outcome is lost only with the process.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        registry: Registry,
        *,
        max_crashes: int,
        retention: float,
        changed: Callable[[Iterable[JobId]], None],
        ended: Callable[[Mapping[JobId, tuple[Job, Outcome]]], None],
    ) -> None:
        self._store, self._engine, self._registry = store, engine, registry
        self._max_crashes, self._retention, self._changed = max_crashes, retention, changed
        self._ended = ended
        self._bell = asyncio.Event()
        self._events: list[Event] = []
        self._unsaved: list[Outcome] = []
        self._unreleased: list[Invocation] = []
        self._running: dict[JobId, Job] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._work = True
        self._cancels = False
        self._claiming = True
        self._engine_ended = False
        self._due: asyncio.TimerHandle | None = None

    def wake(self, wake: Wake) -> None:
        """Something may have changed in the store."""
        self._work |= Wake.WORK in wake
        self._cancels |= Wake.CANCEL in wake
        if self._work or self._cancels:
            self._bell.set()

    def stop_claiming(self) -> None:
        """Take no more jobs; what runs is still recorded."""
        self._claiming = False
        self._bell.set()

    async def run(self) -> None:
        """Until the engine has ended and everything it said is recorded."""
        failing = False
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            housekeeping = group.create_task(self._keep_house())
            while not (self._engine_ended and self._settled()):
                await self._bell.wait()
                self._bell.clear()
                try:
                    await self._step()
                except Exception as error:
                    if not failing:
                        told = not isinstance(error, StoreError)
                        log.error("cannot go on, trying again: %s", error, exc_info=told)
                    failing = True
                    asyncio.get_running_loop().call_later(STORE_PAUSE, self._retry)
                else:
                    if failing:
                        log.warning("going on again")
                    failing = False
            housekeeping.cancel()
        if self._due is not None:
            self._due.cancel()

    def _settled(self) -> bool:
        return not (self._events or self._unsaved or self._unreleased)

    def _retry(self) -> None:
        self._work = True
        self._bell.set()

    async def _listen(self) -> None:
        async for events in self._engine.events():
            self._events += events
            self._bell.set()
        self._engine_ended = True
        self._bell.set()

    async def _step(self) -> None:
        self._take_events()
        if self._cancels:
            await self._interrupt()
        # Started together, these share one transaction.
        await _all(self._save(), self._release(), self._claim())

    async def _interrupt(self) -> None:
        self._cancels = False
        try:
            job_ids = await self._store.cancel_requests()
        except BaseException:
            self._cancels = True
            raise
        for job_id in job_ids:
            self._engine.interrupt(job_id, Interrupt.CANCEL)

    def _take_events(self) -> None:
        events, self._events = self._events, []
        for event in events:
            if isinstance(event, Outcome):
                job = self._running.get(event.job_id)
                self._unsaved.append(event if job is None else self._decide(job, event))
            elif isinstance(event, Withdrawn):
                self._unreleased += event.invocations
                for invocation in event.invocations:
                    self._running.pop(invocation.job_id, None)
            elif isinstance(event, Call):
                task = asyncio.create_task(self._answer(event))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)

    def _decide(self, job: Job, outcome: Outcome) -> Outcome:
        """Whether the job runs once more: a crash by its own budget, other failures by the task's."""
        if outcome.state is not JobState.FAILURE or outcome.error is None:
            return outcome
        if outcome.error.kind is ErrorKind.CRASH:
            if job.crashes + 1 < self._max_crashes:
                return outcome.again(now_ms() + round(1000 * CRASH_PAUSE * min(job.crashes, 1)))
            message = f"{outcome.error.message} (run {job.crashes + 1} times; not run again)"
            return outcome._replace(error=replace(outcome.error, message=message))
        if (
            outcome.error.kind in (ErrorKind.EXCEPTION, ErrorKind.TIMEOUT)
            and job.attempts_spent < job.max_attempts
        ):
            return outcome.again(
                now_ms() + round(1000 * self._policy(job).delay(job.attempts_spent))
            )
        return outcome

    def _policy(self, job: Job) -> RetryPolicy:
        try:
            return self._registry.get(job.task).retry
        except UnknownTask:
            return RetryPolicy()

    async def _save(self) -> None:
        if not self._unsaved:
            return
        outcomes, self._unsaved = self._unsaved, []
        try:
            counted = await self._store.finish(outcomes)
        except BaseException:
            self._unsaved = outcomes + self._unsaved
            raise
        ended = {}
        for outcome in outcomes:
            job = self._running.get(outcome.job_id)
            if job is not None and job.attempt == outcome.attempt:  # else it runs again already
                del self._running[outcome.job_id]
                if outcome.state.ended and outcome.job_id in counted:
                    ended[outcome.job_id] = job, outcome
            if outcome.job_id not in counted:
                log.warning(
                    "job %s: attempt %d ended %s, but the job was no longer this process's: not recorded",
                    outcome.job_id,
                    outcome.attempt,
                    outcome.state,
                )
        self._ended(ended)
        self._changed(counted - ended.keys())

    async def _release(self) -> None:
        if not self._unreleased:
            return
        invocations, self._unreleased = self._unreleased, []
        try:
            await self._store.release(invocations)
        except BaseException:
            self._unreleased = invocations + self._unreleased
            raise
        self._work = True
        self._bell.set()
        self._changed(invocation.job_id for invocation in invocations)

    async def _claim(self) -> None:
        limit = self._engine.free
        if not (self._work and self._claiming and limit):
            return
        self._work = False
        claim = await self._store.claim(limit)
        if claim.jobs:
            if len(claim.jobs) == limit:
                self._work = True
            for job in claim.jobs:
                self._running[job.id] = job
            self._engine.start([self._invocation(job) for job in claim.jobs])
            if self._work and self._engine.free:
                self._bell.set()
        if claim.next_due is not None:
            self._wake_when(claim.next_due)

    def _invocation(self, job: Job) -> Invocation:
        invocation, task = Invocation.of(job), self._registry.find(job.task)
        if task is None or not (task.isolation == "fresh" or task.max_memory_mb):
            return invocation
        return invocation._replace(
            fresh=task.isolation == "fresh", max_memory_mb=task.max_memory_mb
        )

    def _wake_when(self, due: int) -> None:
        if self._due is not None:
            self._due.cancel()
        # The wall clock may step: look again within a second whatever it says.
        delay = min(max(due - now_ms(), 0) / 1000, REAP_EVERY)
        self._due = asyncio.get_running_loop().call_later(delay, self._retry)

    async def _answer(self, call: Call) -> None:
        """Do what a running job asks, as its own process may not open the store."""
        try:
            answer: Any = None
            if call.verb == "add":
                await self._store.add(wire.jobs_from_json(call.body))
            elif call.verb == "get":
                answer = wire.job_to_dict(await self._store.get(wire.id_from_json(call.body)))
            else:
                answer = (await self._store.cancel(wire.id_from_json(call.body))).value
            call.reply(wire.answer(answer))
        except JobsError as error:
            call.reply(wire.refusal(error))
        except Exception as error:
            log.exception("a job's %s call failed", call.verb)
            call.reply(wire.refusal(error))

    async def _keep_house(self) -> None:
        """Put back what dead processes held, revoke what expired, forget what is past its retention."""
        prune_at = monotonic() + PRUNE_EVERY
        while True:
            try:
                self._changed(await self._store.reap())
                if monotonic() >= prune_at:
                    while await self._store.prune(now_ms() - round(1000 * self._retention)):
                        pass
                    prune_at = monotonic() + PRUNE_EVERY
            except StoreError as error:
                log.warning("housekeeping put off: %s", error)
            await asyncio.sleep(REAP_EVERY)


async def _all(*steps: Awaitable[None]) -> None:
    """Wait for every step, even if one fails; then raise the first failure."""
    for result in await asyncio.gather(*steps, return_exceptions=True):
        if result is not None:
            raise result
