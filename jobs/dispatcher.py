"""Between store and engine: claims what the engine can take, and records what it says."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from . import wire
from .errors import JobsError, StoreError, UnknownTask
from .housekeeping import REAP_EVERY, keep_house
from .model import (
    ErrorKind,
    Invocation,
    Job,
    JobError,
    JobId,
    JobState,
    Outcome,
    PutOff,
    now_ms,
)
from .protocols import (
    Call,
    Engine,
    Event,
    Interrupt,
    Progress,
    Started,
    Store,
    Wake,
    Withdrawn,
    Wrote,
)
from .registry import Registry
from .retry import ONCE, RetryPolicy
from .roster import LEAVE_FOR, Roster
from .submission import MAX_ATTEMPTS

log = logging.getLogger("jobs.dispatcher")

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
        roster: Roster,
        *,
        add: Callable[[Sequence[Job]], Awaitable[object]],
        max_crashes: int,
        retention: float,
        changed: Callable[[Iterable[JobId]], None],
        ended: Callable[[Mapping[JobId, tuple[Job, Outcome]]], None],
        happened: Callable[[], None],
    ) -> None:
        self._store, self._engine, self._registry = store, engine, registry
        self._roster, self._add = roster, add
        self._max_crashes, self._retention, self._changed = max_crashes, retention, changed
        self._ended, self._happened = ended, happened
        self._bell = asyncio.Event()
        self._events: list[Event] = []
        self._unsaid: list[Progress | Wrote] = []
        self._unsaved: list[Outcome] = []
        self._unreleased: list[Invocation | Outcome | PutOff] = []
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
            housekeeping = group.create_task(
                keep_house(self._store, retention=self._retention, changed=self._changed)
            )
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
        steps = [self._say()] if self._unsaid else []
        await _all(*steps, self._save(), self._release(), self._claim())

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
            if isinstance(event, Outcome) and event.state is JobState.PENDING and not event.error:
                self._unreleased.append(event)
                self._running.pop(event.job_id, None)
            elif isinstance(event, Outcome):
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
            elif not isinstance(event, Started):
                self._unsaid.append(event)

    def _decide(self, job: Job, outcome: Outcome) -> Outcome:
        """Whether the job runs once more: a crash by its own budget, other failures as the job itself says
        or by the task's policy."""
        error = outcome.error
        if outcome.state is not JobState.FAILURE or error is None or outcome.final:
            return outcome
        if error.kind is ErrorKind.CRASH:
            if job.crashes + 1 < self._max_crashes:
                return _again(outcome, CRASH_PAUSE * min(job.crashes, 1))
            return _not_again(outcome, error, f"run {job.crashes + 1} times")
        if outcome.again_in is not None:
            if job.attempts_spent < MAX_ATTEMPTS:
                return _again(outcome, outcome.again_in)
            return _not_again(outcome, error, f"attempt {MAX_ATTEMPTS} of {MAX_ATTEMPTS}")
        policy = self._policy(job)
        # Whether the policy covers an exception, the child has said: only there is it more than a name.
        covered = error.kind is ErrorKind.EXCEPTION or (
            error.kind is ErrorKind.TIMEOUT and policy.covers(TimeoutError)
        )
        if covered and job.attempts_spent < job.max_attempts:
            return _again(outcome, policy.delay(job.attempts_spent))
        return outcome

    def _policy(self, job: Job) -> RetryPolicy:
        try:
            return self._registry.get(job.task).retry
        except UnknownTask:
            return ONCE

    async def _say(self) -> None:
        said, self._unsaid = self._unsaid, []
        try:
            await self._store.say(said)
        except BaseException:
            # Lines are kept without a gap; of progress the latest is enough.
            latest = {one.job_id: one for one in said if isinstance(one, Progress)}
            kept = [one for one in said if isinstance(one, Wrote) or latest[one.job_id] is one]
            self._unsaid = kept + self._unsaid
            raise
        self._happened()

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
        self._happened()

    async def _release(self) -> None:
        if not self._unreleased:
            return
        unspent, self._unreleased = self._unreleased, []
        try:
            await self._store.release(unspent)
        except BaseException:
            self._unreleased = unspent + self._unreleased
            raise
        self._work = True
        self._bell.set()
        self._changed(each.job_id for each in unspent)

    async def _claim(self) -> None:
        limit = self._engine.free
        if not (self._work and self._claiming and limit) or self._roster.trouble:
            return
        self._work = False
        claim = await self._store.claim(limit)
        if claim.jobs:
            if len(claim.jobs) == limit:
                self._work = True
            jobs = claim.jobs
            if not all(map(self._roster.suits, jobs)):
                jobs = [job for job in jobs if await self._is_ours(job)]
            for job in jobs:
                self._running[job.id] = job
            self._engine.start([self._invocation(job) for job in jobs])
            self._happened()
            if self._work and self._engine.free:
                self._bell.set()
        if claim.next_due is not None:
            self._wake_when(claim.next_due)

    async def _is_ours(self, job: Job) -> bool:
        """Whether a claimed job is to run here; else it is given back for others."""
        if self._roster.suits(job) or not await self._roster.leaves(job):
            return True
        self._unreleased.append(PutOff(job.id, job.attempt, now_ms() + LEAVE_FOR))
        self._bell.set()
        return False

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
                await self._add(wire.jobs_from_json(call.body))
            elif call.verb == "get":
                answer = wire.job_to_dict(await self._store.get(wire.id_from_json(call.body)))
            elif call.verb == "attempts":
                records = await self._store.attempts(wire.id_from_json(call.body))
                answer = [wire.attempt_to_list(record) for record in records]
            elif call.verb == "retry":
                answer = list(await self._store.retry([wire.id_from_json(call.body)]))
            else:
                answer = (await self._store.cancel(wire.id_from_json(call.body))).value
            call.reply(wire.answer(answer))
        except JobsError as error:
            call.reply(wire.refusal(error))
        except Exception as error:
            log.exception("a job's %s call failed", call.verb)
            call.reply(wire.refusal(error))


def _again(outcome: Outcome, delay: float) -> Outcome:
    """The job runs once more, in `delay` seconds."""
    return outcome.again(now_ms() + round(1000 * delay))


def _not_again(outcome: Outcome, error: JobError, spent: str) -> Outcome:
    """It does not, and its error says why."""
    told = replace(error, message=f"{error.message} ({spent}; not run again)")
    return outcome._replace(error=told)


async def _all(*steps: Awaitable[None]) -> None:
    """Wait for every step, even if one fails; then raise the first failure."""
    for result in await asyncio.gather(*steps, return_exceptions=True):
        if result is not None:
            raise result
