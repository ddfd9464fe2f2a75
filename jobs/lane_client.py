"""How a job submits, asks for and cancels jobs: through its lane, as a child never opens the store."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from . import current, wire
from .channel import Channel
from .errors import WouldDeadlock
from .handle import JobHandle
from .model import AttemptRecord, Job, JobId, JobState
from .registry import Task
from .runner import Runner, original
from .sealing import Sealer
from .submission import NO_OPTIONS, Options, Submission, check_size, new_job, same_again


class LaneSubmitter:
    """`current.Submitter` of a child process, and the `Client` of its handles.

    Jobs submitted here carry the request snapshot that the running job came with.
    """

    def __init__(
        self, channel: Channel, runner: Runner, sealer: Sealer, max_args_bytes: int
    ) -> None:
        self._channel, self._runner, self._sealer = channel, runner, sealer
        self._max_args_bytes = max_args_bytes

    def submit(self, task: Task[..., Any], args: str, options: Options) -> JobHandle[Any]:
        """Keep a job: sent at once; on disk when the handle has been awaited, or, with no event loop
        running in this thread, on return. Raises `InvalidArguments`, `StoreError`."""
        job = self._new_job(task, args, options)
        adding = self._channel.call("add", wire.jobs_to_json([job]))
        if not _on_loop():
            wire.open_reply(adding.result())
            return JobHandle(job, self, task=task)

        async def added() -> None:
            wire.open_reply(await asyncio.wrap_future(adding))

        return JobHandle(job, self, task=task, added=asyncio.ensure_future(added()))

    def apply(self, task: Task[..., Any], args: str) -> JobHandle[Any]:
        """Run it here and now under the rules of a job, without keeping it."""
        job = self._new_job(task, args, NO_OPTIONS)
        if not _on_loop():
            return JobHandle(asyncio.run(self._runner.apply(job)), self, task=task)

        async def run() -> None:
            handle.job = await self._runner.apply(job)

        handle = JobHandle(job, self, task=task, added=asyncio.ensure_future(run()))
        return handle

    def owns_context(self) -> bool:
        """A child has one app."""
        return True

    async def get_job(self, job_id: JobId) -> Job:
        """The job as it is now. Raises `JobNotFound`."""
        found: Mapping[str, Any] = await self._ask("get", job_id)
        return wire.job_from_dict(found)

    async def cancel(self, job_id: JobId) -> JobState:
        """Ask the job to stop; the state it was found in. Raises `JobNotFound`."""
        return JobState(await self._ask("cancel", job_id))

    async def retry(self, job_id: JobId) -> bool:
        """Run a job that failed or was revoked once more; whether it was one. Raises `JobNotFound`."""
        await self.get_job(job_id)
        return bool(await self._ask("retry", job_id))

    async def rerun(self, job_id: JobId) -> Job:
        """Keep a new job like this one. Raises `JobNotFound`, `StoreError`."""
        job = same_again(await self.get_job(job_id))
        await self._added([job])
        return job

    async def submit_many(self, asked: Sequence[Submission]) -> list[Job]:
        """Keep a job for each, all or none. Raises `InvalidArguments`, `StoreError`."""
        jobs = [self._new_job(*each) for each in asked]
        await self._added(jobs)
        return jobs

    async def _added(self, jobs: Sequence[Job]) -> None:
        reply = self._channel.call("add", wire.jobs_to_json(jobs))
        wire.open_reply(await asyncio.wrap_future(reply))

    async def attempts(self, job_id: JobId) -> Sequence[AttemptRecord]:
        """The attempts that have ended, oldest first. Raises `JobNotFound`."""
        return [wire.attempt_from_list(each) for each in await self._ask("attempts", job_id)]

    async def ended(self, job_id: JobId, timeout: float | None) -> Job:
        """Raises `WouldDeadlock`."""
        raise WouldDeadlock(job_id)

    async def _ask(self, verb: Literal["get", "cancel", "retry", "attempts"], job_id: JobId) -> Any:
        reply = await asyncio.wrap_future(self._channel.call(verb, wire.id_to_json(job_id)))
        return wire.open_reply(reply)

    def _new_job(self, task: Task[..., Any], args: str, options: Options) -> Job:
        check_size(args, self._max_args_bytes)
        return new_job(
            task,
            args,
            options,
            snapshot=original.get(),
            origin=None,
            sealer=self._sealer,
            owner=current.owner(),
        )


def _on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
