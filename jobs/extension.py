"""`Jobs`: the extension that holds the parts together, and the one place that wires them."""

import asyncio
import os
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from contextvars import Context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

from . import current
from .child import Boot
from .errors import ConfigurationError, KeyReused, NotRunning, SecretsGone, WouldDeadlock
from .frameworks import Framework, framework_of, quart
from .handle import JobHandle
from .idempotency import IdempotencyKey
from .intake import Intake
from .key_ring import KeyRing
from .model import AttemptRecord, Job, JobId, JobQuery, JobState
from .operation import Operation
from .parts import boot_for, broker_for, engine_for, sealing_keys
from .portal import Portal
from .protocols import Engine, Store, Wake
from .registry import Registry, Task, default_registry
from .release import __version__
from .roster import Roster
from .runner import Runner
from .sealing import Sealer
from .settings import Settings
from .shadowing import check_shadowing
from .snapshot import Carrier, carried, origin
from .stores import open_store
from .streams import Streams
from .submission import NO_OPTIONS, Options, Submission, check_size, new_job, same_again

if TYPE_CHECKING:
    from flask import Flask
    from quart import Quart

R = TypeVar("R")

_BREATH = 200  #: jobs of a batch after which others get their turn


class Jobs:
    """Background jobs for a Quart or a Flask app.

    `Jobs(app)` or `Jobs().init_app(app)`. With a Quart app it opens and closes; with a Flask app it opens
    at the first request that a process serves, and closes before that process ends. Without a server,
    use `async with jobs:` or `with jobs:`.

    Args:
        carry: names of `g` that travel with every job.
        child: import string by which a child process finds the app (`"package:app"` or
            `"package:create_app()"`); by default the module attribute that is the app.
        registry: the tasks; by default all that `@task` has registered.
        settings: any setting of `jobs.settings.Settings`, by name.
    """

    def __init__(
        self,
        app: "Quart | Flask | None" = None,
        *,
        carry: Iterable[str] = (),
        child: str | None = None,
        registry: Registry = default_registry,
        **settings: Any,
    ) -> None:
        self.registry = registry
        self.carriers: dict[str, Carrier] = {}
        self.app: Quart | Flask | None = None
        self._framework: Framework = quart
        self._carry = frozenset(carry)
        self._child = child
        self._arguments = settings
        self._stack: AsyncExitStack | None = None
        self._portal: Portal | None = None
        self.stopping = asyncio.Event()
        """Set when the service is about to stop: who waits for something then waits no longer."""
        self.exposed_at: str | None = None
        """Set before the opening if other machines can reach the job API: the address. Opening then raises
        `ConfigurationError` where anyone could use it."""
        self.claims: Callable[[Store], Store] | None = None
        """Set before the opening in a worker that is told by messages what to claim: wraps the store."""
        if app is not None:
            self.init_app(app)

    def init_app(self, app: "Quart | Flask") -> None:
        """Open and close with `app`, and be found as `app.extensions["jobs"]`."""
        framework = framework_of(app)
        if "jobs" in app.extensions:
            raise ConfigurationError(f"Jobs is already installed on the app {app.name!r}")
        self.app, self._framework = app, framework
        app.extensions["jobs"] = self
        framework.open_with(app, self)

    def carrier(self, name: str, *, save: Callable[[Any], Any], load: Callable[[Any], Any]) -> None:
        """Let `g.<name>` travel although it is not JSON: `save` makes it JSON at submit, `load` makes it
        again in the child, where it may be async."""
        self.carriers[name] = Carrier(save, load)

    # --- opening and closing

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            self._refuse_fork()
            raise ConfigurationError("this Jobs is already open")
        self._pid = os.getpid()
        async with AsyncExitStack() as stack:
            await self._open(stack)
            self._stack = stack.pop_all()
        self._last_resort = asyncio.create_task(
            self._closed_with_the_loop(), name="jobs last resort"
        )
        return self

    async def _closed_with_the_loop(self) -> None:
        """A server that drops its loop (a reload, for one) cancels all tasks and never stops the app:
        without this the store's threads would keep the process from ending."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self._close()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            if asyncio.current_task() is not self._last_resort:
                self._last_resort.cancel()
            await stack.aclose()

    def __enter__(self) -> Self:
        """Open for code without an event loop: everything runs in a thread of its own."""
        self._portal = Portal()
        try:
            # What runs from now on belongs to no request or app context that the caller may be in.
            Context().run(self._portal.run, self.__aenter__())
        except BaseException:
            self._portal.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._portal is not None
        try:
            self._portal.run(self._close())
        finally:
            self._portal.close()

    async def _open(self, stack: AsyncExitStack) -> None:
        config = self.app.config if self.app is not None else None
        self.settings = Settings.load(arguments=self._arguments, config=config)
        if current.in_child:
            raise ConfigurationError(
                "Jobs was opened while a child process imported the module that does it: put that, or app.run(),"
                ' under `if __name__ == "__main__":`'
            )
        check_shadowing(("jobs",))
        self.registry.resolve()
        self._loop = asyncio.get_running_loop()
        self.stopping.clear()
        self.store: Store = await stack.enter_async_context(open_store(self.settings))
        self.keys = KeyRing(self.store)
        if self.exposed_at is not None:
            await self._refuse_if_open_to_anyone(self.exposed_at)
        keys = sealing_keys(self.settings, self.app, self.store)
        self.sealer = Sealer(keys)
        self._carried = self._carry | set(self.settings.carry)
        self._intake = Intake(
            self.store,
            max_jobs=self.settings.max_queued,
            max_jobs_per_owner=self.settings.max_queued_per_owner,
            max_bytes=self.settings.max_queued_bytes,
            max_bytes_per_owner=self.settings.max_queued_bytes_per_owner,
        )
        await self._intake.count()
        stack.push_async_callback(self._intake.close)
        announces = self.settings.engine == "celery" and self.claims is None
        engine = self._engine(keys) if self.settings.lane_count and not announces else None
        self._operation = Operation(
            self.store if self.claims is None else self.claims(self.store),
            self._intake,
            engine,
            self.registry,
            Roster(
                self.store,
                self.registry,
                release=__version__,
                engine=self.settings.engine,
                lanes=0 if engine is None else self.settings.lane_count,
            ),
            self.settings,
            self.stopping,
            broker=broker_for(self.settings) if announces else None,
        )
        await stack.enter_async_context(self._operation)
        current.opened(self)
        stack.callback(current.closed, self)

    async def _refuse_if_open_to_anyone(self, address: str) -> None:
        if self.settings.auth != "off" and await self.keys.is_empty():
            raise ConfigurationError(
                f"other machines can reach {address}, and there is no API key in {self.store.location}: make one"
                " (quart-jobs keys create --name …), listen on 127.0.0.1, or let anyone run jobs (--auth off)"
            )

    def _engine(self, keys: list[str]) -> Engine:
        def boot() -> Boot:
            return boot_for(self.settings, self.app, self._child, self.registry, keys, self.store)

        return engine_for(self.settings, boot=boot, runner=self._runner)

    def wake(self) -> None:
        """There is something to claim, announce or stop: for a worker that is told by messages."""
        self._operation.wake(Wake.WORK)

    def call_soon(self, act: Callable[[], object]) -> None:
        """Have this called on the loop that Jobs was opened on, from any thread."""
        self._loop.call_soon_threadsafe(act)

    def _runner(self) -> Runner:
        return Runner(
            self.app,
            self.registry,
            self.sealer,
            self.carriers,
            max_result_bytes=self.settings.max_result_bytes,
        )

    # --- submitting

    def submit(
        self, task: Task[..., R], args: str, options: Options, *, owner: str | None = None
    ) -> JobHandle[R]:
        """Keep a job of `task` with these arguments (its canonical JSON), which is `owner`'s.

        In a coroutine the add begins at once and `await` of the handle ends with the commit; in a
        thread without a loop this returns after the commit. Raises `NotRunning`, `InvalidArguments`,
        `NotCarriable`, `StoreError`.
        """
        self._refuse_unless_open()
        job = self._new_job(task, args, options, owner=owner)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run_coroutine_threadsafe(self._add(job), self._loop).result()
            return JobHandle(job, self, task=task)
        if loop is not self._loop:
            adding = asyncio.run_coroutine_threadsafe(self._add(job), self._loop)
            return JobHandle(job, self, task=task, added=asyncio.wrap_future(adding))
        return JobHandle(job, self, task=task, added=self._intake.add([job]))

    async def _add(self, job: Job) -> object:
        return await self._intake.add([job])

    async def submit_once(
        self, task: Task[..., Any], args: str, options: Options, key: IdempotencyKey
    ) -> Job:
        """Keep a job of the key's owner, or find the one that an earlier request with this key has made.
        Raises as `submit` does, and `KeyReused` if that earlier request was another one.

        The job's id is made of the key, so that the store itself lets no second job in; the key is
        remembered as long as the job is kept."""
        self._refuse_unless_open()
        return await self._added_once(self._new_job(task, args, options, key, owner=key.owner))

    async def _added_once(self, job: Job) -> Job:
        if job.id in await self._intake.add([job]):
            kept = await self.store.get(job.id)
            if kept.fingerprint != job.fingerprint:
                raise KeyReused(job.idempotency_key or "")
            return kept
        return job

    async def enqueue_many(
        self, calls: Iterable[tuple[Task[..., R], Sequence[Any], Mapping[str, Any]]]
    ) -> list[JobHandle[R]]:
        """Submit several calls, each a task, its arguments in order and those by name: all of them or none,
        in one transaction. Raises `InvalidArguments`, `NotRunning`, `NotCarriable`, `StoreError`."""
        asked = [Submission(task, task.bind(args, kwargs)) for task, args, kwargs in calls]
        if (lane := current.lane()) is not None:
            jobs, client = await lane.submit_many(asked), lane
        else:
            self._refuse_unless_open()
            for each in asked:
                check_size(each.args, self.settings.max_args_bytes)
            jobs, client = await self.submit_many(asked), self
        return [
            JobHandle(job, client, task=each.task) for job, each in zip(jobs, asked, strict=True)
        ]

    async def submit_many(
        self,
        asked: Sequence[Submission],
        *,
        owner: str | None = None,
        key: IdempotencyKey | None = None,
    ) -> list[Job]:
        """Keep a job for each, all or none, in this order. The arguments are of a size that fits. Raises as
        `submit` does.

        With a `key`, jobs that an earlier request with it has made are found instead (without those that
        were deleted since); raises `KeyReused` if that request was another one."""
        self._refuse_unless_open()
        owner = current.owner() if owner is None else owner
        shared: dict[frozenset[str], tuple[bytes | None, str | None]] = {}
        jobs = []
        for number, (task, args, options) in enumerate(asked):
            if not number % _BREATH:
                await asyncio.sleep(0)
            if task.carry not in shared:
                shared[task.carry] = self._snapshot(task)
            snapshot, described = shared[task.carry]
            jobs.append(
                new_job(
                    task,
                    args,
                    options,
                    snapshot=snapshot,
                    origin=described,
                    sealer=self.sealer,
                    key=None if key is None else key.of_item(number),
                    owner=owner,
                )
            )
        kept = await self._here(lambda: self._add_all(jobs))
        if not kept or key is None:
            return jobs
        earlier = await self._here(
            lambda: self.store.find(JobQuery(ids=[job.id for job in jobs], limit=len(jobs)))
        )
        if any(job.fingerprint != key.fingerprint for job in earlier.jobs):
            raise KeyReused(key.text)
        known = {job.id: job for job in earlier.jobs}
        return [known[job.id] for job in jobs if job.id in known]

    async def _add_all(self, jobs: Sequence[Job]) -> Collection[JobId]:
        return await self._intake.add(jobs)

    def _new_job(
        self,
        task: Task[..., Any],
        args: str,
        options: Options,
        key: IdempotencyKey | None = None,
        *,
        owner: str | None = None,
    ) -> Job:
        check_size(args, self.settings.max_args_bytes)
        snapshot, described = self._snapshot(task)
        return new_job(
            task,
            args,
            options,
            snapshot=snapshot,
            origin=described,
            sealer=self.sealer,
            key=key,
            owner=current.owner() if owner is None else owner,
        )

    def _snapshot(self, task: Task[..., Any]) -> tuple[bytes | None, str | None]:
        """The request at hand as a job of this task carries it, and what of it stays readable."""
        here = self._framework.current_request()
        if here is None:
            return None, None
        names = self._carried | task.carry
        values = carried(self._framework.g, names, self.carriers) if names else {}
        taken = self._framework.take(here, values)
        return taken.model_dump_json().encode(), origin(taken, here)

    def apply(self, task: Task[..., R], args: str) -> JobHandle[R]:
        """Run a task here and now under the rules of a job, without keeping it: arguments and result go
        through JSON, the request context is a restored one, failure is in the handle. Await the handle in
        a coroutine; in a thread without a loop the run is over on return."""
        job = self._new_job(task, args, NO_OPTIONS)

        async def run() -> None:
            handle.job = await self._runner().apply(job)

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            handle = JobHandle(job, self, task=task)
            asyncio.run_coroutine_threadsafe(run(), self._loop).result()
        else:
            handle = JobHandle(job, self, task=task, added=loop.create_task(run()))
        return handle

    @property
    def is_open(self) -> bool:
        """Whether jobs can be submitted, and asked about, now."""
        return self._stack is not None and self._pid == os.getpid()

    def owns_context(self) -> bool | None:
        """Whether the current app context is this app's; None without an app context."""
        app = self._framework.current_app()
        return None if app is None else app.extensions.get("jobs") is self

    # --- asking

    async def get(self, job_id: str | UUID) -> JobHandle[Any]:
        """The job with this id. Raises `JobNotFound`."""
        job = await self.get_job(JobId(str(job_id)))
        return JobHandle(job, self, task=self.registry.find(job.task))

    async def get_job(self, job_id: JobId) -> Job:
        """The job as it is now. Raises `JobNotFound`."""
        if (lane := current.lane()) is not None:
            return await lane.get_job(job_id)
        return await self._here(lambda: self.store.get(job_id))

    async def cancel(self, job_id: JobId) -> JobState:
        """Ask a job to stop; the state it was found in. Raises `JobNotFound`."""
        if (lane := current.lane()) is not None:
            return await lane.cancel(job_id)
        found = await self._here(lambda: self.store.cancel(job_id))
        self._operation.waiters.notify([job_id])
        return found

    async def retry(self, job_id: JobId) -> bool:
        """Run a job that failed or was revoked once more, as `JobHandle.retry`; whether it was one."""
        if (lane := current.lane()) is not None:
            return await lane.retry(job_id)
        job = await self.get_job(job_id)
        if job.state.ended:
            self._refuse_without_secrets(job.task)
        return bool(await self._here(lambda: self.store.retry([job_id])))

    def _refuse_without_secrets(self, name: str) -> None:
        task = self.registry.find(name)
        if task is not None and task.needs_secrets:
            raise SecretsGone(name)

    async def rerun(self, job_id: JobId, key: IdempotencyKey | None = None) -> Job:
        """Keep a new job like this one, as `JobHandle.rerun`. With a `key`, as `submit_once`."""
        if (lane := current.lane()) is not None:
            return await lane.rerun(job_id)
        again = same_again(await self.get_job(job_id), key)
        self.registry.get(again.task)
        self._refuse_without_secrets(again.task)
        return await self._here(lambda: self._added_once(again))

    async def attempts(self, job_id: JobId) -> Sequence[AttemptRecord]:
        """The attempts of a job that have ended, oldest first. Raises `JobNotFound`."""
        if (lane := current.lane()) is not None:
            return await lane.attempts(job_id)
        return await self._here(lambda: self.store.attempts(job_id))

    @property
    def roster(self) -> Roster:
        """The processes that share the jobs. Raises `NotRunning`."""
        self._refuse_unless_open()
        return self._operation.roster

    @property
    def streams(self) -> Streams:
        """Those who follow what happens to jobs, on the event loop that Jobs was opened on. Raises `NotRunning`."""
        self._refuse_unless_open()
        if asyncio.get_running_loop() is not self._loop:
            raise NotRunning("jobs can be followed only on the event loop that Jobs was opened on")
        return self._operation.streams

    async def ended(self, job_id: JobId, timeout: float | None) -> Job:
        """The job once it has ended. Raises `JobNotFound`, `ResultTimeout`, inside a job `WouldDeadlock`."""
        if current.job() is not None:
            raise WouldDeadlock(job_id)
        return await self._here(lambda: self._operation.waiters.ended(job_id, timeout))

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Do async work from code that has no event loop: `jobs.run(handle.result())`."""
        if current.lane() is not None:
            return asyncio.run(work)
        try:
            self._refuse_unless_open()
        except NotRunning:
            work.close()
            raise
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def check(self) -> None:
        """Raise `NotRunning` or `StoreError` if a job could not be kept and run now (readiness)."""
        self._refuse_unless_open()
        await self.store.check()
        if (trouble := self._operation.trouble) is not None:
            raise NotRunning(trouble)

    def _refuse_unless_open(self) -> None:
        if self._stack is None:
            raise NotRunning
        self._refuse_fork()

    def _refuse_fork(self) -> None:
        if self._pid != os.getpid():
            raise NotRunning(
                "Jobs was opened before this process was forked, and cannot be used in both: open it after the"
                " fork (before it, serve no request and do not enter `with jobs:`)"
            )

    async def _here(self, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Do the work on the loop that Jobs was opened on, whichever this is. Raises `NotRunning`."""
        self._refuse_unless_open()
        if asyncio.get_running_loop() is self._loop:
            return await work()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), self._loop))
