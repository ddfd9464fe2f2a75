"""Runs attempts of jobs in this process: the context restored, failure a value."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any

from . import current, memory
from .attempt import Attempt, caught, in_thread
from .errors import BadContext, JobInterrupted, JsonTooLarge, Problem
from .frameworks import framework_of
from .model import ErrorKind, Invocation, Job, JobId, Outcome
from .progress import ProgressNote
from .protocols import Interrupt
from .registry import Registry
from .sealed import unpack
from .sealing import Sealer
from .signature import join
from .snapshot import Carrier, RequestSnapshot

original: ContextVar[bytes | None] = ContextVar("jobs_original_snapshot", default=None)
"""The snapshot (JSON) that the running job came with; jobs that it submits get the same."""


class Runner:
    """Runs attempts: one after another by `run`, or any number at once by `run_async`.

    `app` is a Quart or Flask app, or None. An outcome's state is SUCCESS, FAILURE, REVOKED, or PENDING where a
    shutdown stopped the attempt.
    """

    def __init__(
        self,
        app: Any,
        registry: Registry,
        sealer: Sealer,
        carriers: Mapping[str, Carrier],
        *,
        max_result_bytes: int,
    ) -> None:
        self._app, self._registry, self._sealer = app, registry, sealer
        self._framework = None if app is None else framework_of(app)
        self._carriers, self._max_result_bytes = carriers, max_result_bytes
        self.told: Callable[[str, ProgressNote], None] | None = None
        """What to do with the progress of a job, which is named by its id; called in any thread."""
        self._attempts: dict[JobId, Attempt] = {}
        self._main: Attempt | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._outside: Callable[[], None] | None = None
        self._pid = os.getpid()

    # --- a child's main thread

    def expect(self, invocation: Invocation) -> None:
        """An attempt that is about to be run, or forgotten: it can be interrupted from now on."""
        self._attempts[invocation.job_id] = Attempt(invocation, self.told)

    def forget(self, invocation: Invocation) -> None:
        """It does not run after all."""
        del self._attempts[invocation.job_id]

    def run(self, invocation: Invocation) -> Outcome:
        """Run an expected attempt in this thread: a sync function with no event loop running, so that
        `asyncio.run` works in it; an async one on a loop that is kept from job to job."""
        attempt = self._main = self._attempts[invocation.job_id]
        try:
            self._prepare(attempt)
            if not (attempt.task.is_async or (self._framework and self._framework.needs_loop)):
                return copy_context().run(self._run_plainly, attempt)
            return self._run_on_loop(attempt, copy_context())
        except BaseException as error:  # noqa: BLE001 - whatever a job raises is its outcome
            return attempt.failed(error)
        finally:
            self._main = None
            del self._attempts[invocation.job_id]

    def _run_plainly(self, attempt: Attempt) -> Outcome:
        """With no event loop at all, which nothing here waits for."""
        if self._app is None:
            current.enter(attempt.current)
            return attempt.succeeded(self._dump(attempt, self._call_sync(attempt)))

        async def call() -> Any:
            return self._call_sync(attempt)

        try:
            self._attend(attempt, call).send(None)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        raise AssertionError("what needs no loop has waited for one")

    def _run_on_loop(self, attempt: Attempt, context: Context) -> Outcome:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        loop = self._loop

        async def leave_loop() -> Any:
            """Have the sync function called where no loop runs, and come back with what became of it."""
            done = loop.create_future()
            ending: list[Callable[[], Any]] = []

            def call() -> None:
                ending.append(caught(self._call_sync, attempt))
                done.set_result(None)

            self._outside = call
            loop.stop()
            await done
            return ending[0]()

        work = self._attend(attempt, leave_loop)
        attempt.loop_task = loop.create_task(work, context=context)
        attempt.loop_task.add_done_callback(lambda _: loop.stop())
        while not attempt.loop_task.done():
            # A SystemExit in some other task of the job's must not end the loop, or this process.
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                loop.run_forever()
            if self._outside is not None:
                outside, self._outside = self._outside, None
                context.run(outside)
        return attempt.loop_task.result()

    def kept_loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that `run` keeps from job to job, once there is one."""
        return self._loop

    def keeps(self, name: str) -> Collection[str]:
        """What the task of that name means to leave in this process."""
        task = self._registry.find(name)
        return () if task is None else task.keeps

    # --- on an event loop that others use too

    async def run_async(self, invocation: Invocation) -> Outcome:
        """Run an attempt on the running loop, a sync function in a thread of its own (where nothing can
        stop it)."""
        attempt = self._attempts[invocation.job_id] = Attempt(invocation, self.told)
        try:
            self._prepare(attempt)
            work = self._attend(attempt, lambda: in_thread(lambda: self._call_sync(attempt)))
            attempt.loop_task = asyncio.create_task(work)
        except Exception as error:  # noqa: BLE001 - as above
            return attempt.failed(error)
        else:
            return await asyncio.shield(attempt.loop_task)
        finally:
            if attempt.loop_task is not None:
                attempt.loop_task.cancel()
            del self._attempts[invocation.job_id]

    async def apply(self, job: Job) -> Job:
        """Run a job that is not kept; returns it as it ends."""
        job = job._replace(attempt=1)
        return job.after(await self.run_async(Invocation.of(job)))

    # --- stopping

    def interrupt(self, job_id: JobId, why: Interrupt) -> None:
        """Ask a running attempt to stop; from any thread. An unknown id is ignored.

        Async code is cancelled. For sync code in a main thread, `deliver` is then to be called there."""
        attempt = self._attempts.get(job_id)
        if attempt is None or attempt.why is not None:
            return
        attempt.why = why
        if attempt.loop_task is not None:
            attempt.loop_task.get_loop().call_soon_threadsafe(attempt.cancel)

    def deliver(self) -> None:
        """Raise `JobInterrupted` if this thread runs the sync code of a job that is to stop: for a signal
        handler, so that it strikes wherever that code is."""
        attempt = self._main
        if attempt and attempt.in_sync_code and attempt.why and not attempt.delivered:
            attempt.delivered = True
            raise JobInterrupted(attempt.why.value)

    # --- the steps of one attempt

    def _prepare(self, attempt: Attempt) -> None:
        invocation = attempt.invocation
        attempt.task = self._registry.get(invocation.task)
        attempt.policy = attempt.task.retry
        if invocation.context is None and not attempt.task.has_secrets:
            return
        attempt.kind = ErrorKind.BAD_CONTEXT
        attempt.original, secrets = self._open(invocation)
        if secrets is None and attempt.task.needs_secrets:
            raise BadContext(
                "the job's secret arguments are gone: they are sealed, and forgotten when the job ends; submit it"
                " anew"
            )
        if attempt.original is not None:
            if self._app is None:
                raise BadContext(
                    "the job has a request context, but here is no app to restore it in"
                )
            attempt.snapshot = RequestSnapshot.read(attempt.original)
        if secrets is not None:
            attempt.args = join(attempt.args, secrets)

    def _open(self, invocation: Invocation) -> tuple[bytes | None, str | None]:
        if invocation.context is None:
            return None, None
        return unpack(self._sealer.open(invocation.job_id, invocation.context))

    async def _attend(self, attempt: Attempt, call_sync: Callable[[], Awaitable[Any]]) -> Outcome:
        """Run the task within its restored context; `call_sync` is how a sync function is called.
        In a context (`contextvars`) of its own."""
        attempt.cancellable = True
        if attempt.why:
            attempt.cancel()
        call = partial(self._call_async, attempt) if attempt.task.is_async else call_sync
        current.enter(attempt.current)
        try:
            if self._app is None:
                return attempt.succeeded(self._dump(attempt, await call()))
            return await self._within_app(attempt, call)
        except BaseException as error:  # noqa: BLE001 - whatever a job raises is its outcome
            return attempt.failed(error)
        finally:
            attempt.cancellable = False

    async def _within_app(self, attempt: Attempt, call: Callable[[], Awaitable[Any]]) -> Outcome:
        original.set(attempt.original)
        attempt.kind = ErrorKind.BAD_CONTEXT
        assert self._framework is not None
        async with self._framework.restored(
            self._app,
            attempt.snapshot,
            self._carriers,
            after_request=attempt.task.after_request,
        ) as context:
            try:
                result = await call()
                text = self._dump(attempt, result)
            except BaseException as error:
                attempt.note(error)  # what the context's end may raise is of less interest
                raise
            attempt.kind = ErrorKind.EXCEPTION
            context.result = result
        return attempt.succeeded(text)

    def _call_sync(self, attempt: Attempt) -> Any:
        attempt.cancellable = False
        attempt.kind = ErrorKind.EXCEPTION
        cap = self._cap(attempt)
        try:
            attempt.in_sync_code = True
            if self._main is attempt:
                self.deliver()
            return attempt.task.call(attempt.args)
        except MemoryError as error:
            cap.lift()
            raise cap.explain(error) from None
        finally:
            cap.lift()
            attempt.in_sync_code = False
            self._leave_forks()

    async def _call_async(self, attempt: Attempt) -> Any:
        attempt.kind = ErrorKind.EXCEPTION
        cap = self._cap(attempt)
        try:
            return await attempt.task.call(attempt.args)
        except MemoryError as error:
            cap.lift()
            raise cap.explain(error) from None
        finally:
            cap.lift()
            attempt.cancellable = False
            self._leave_forks()

    def _cap(self, attempt: Attempt) -> memory.Cap:
        """The job's memory cap, where this process is the job's alone."""
        most = attempt.invocation.max_memory_mb
        return memory.UNCAPPED if most is None or self._main is not attempt else memory.Cap(most)

    def _leave_forks(self) -> None:
        # A task that forks and returns twice must not be a second runner of this lane's jobs.
        if os.getpid() != self._pid:
            os._exit(0)

    def _dump(self, attempt: Attempt, result: Any) -> str:
        attempt.kind = ErrorKind.BAD_RESULT
        try:
            return attempt.task.dump(result, max_bytes=self._max_result_bytes)
        except JsonTooLarge as error:
            detail = f"the result {error.problems[0].detail} (setting: max_result_bytes)"
            raise JsonTooLarge([Problem("", detail)]) from None
