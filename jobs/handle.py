"""What a submission gives back."""

import json
from collections.abc import Awaitable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from .errors import JobFailed, JobRevoked
from .model import AttemptRecord, ErrorKind, Job, JobError, JobId, JobState

if TYPE_CHECKING:
    from .registry import Task

R = TypeVar("R")


class Client(Protocol):
    """Where a handle asks: a `Jobs`, or the lane of a running job."""

    async def get_job(self, job_id: JobId) -> Job:
        """The job as it is now. Raises `JobNotFound`."""

    async def cancel(self, job_id: JobId) -> JobState:
        """Ask the job to stop; the state it was found in. Raises `JobNotFound`."""

    async def retry(self, job_id: JobId) -> bool:
        """Run a job that failed or was revoked once more; whether it was one. Raises `JobNotFound`."""

    async def rerun(self, job_id: JobId) -> Job:
        """Keep a new job like this one. Raises `JobNotFound`, `UnknownTask`, `StoreError`."""

    async def attempts(self, job_id: JobId) -> Sequence[AttemptRecord]:
        """The attempts that have ended, oldest first. Raises `JobNotFound`."""

    async def ended(self, job_id: JobId, timeout: float | None) -> Job:
        """The job once it has ended. Raises `ResultTimeout`, `WouldDeadlock`."""


class JobHandle(Generic[R]):
    """A job as its submitter holds it.

    Awaiting it waits until the job is on disk (or raises why it is not); after that nothing loses it.
    `state` is what was last seen: `await refresh()` looks again.
    """

    def __init__(
        self,
        job: Job,
        client: Client,
        *,
        task: "Task[..., R] | None" = None,
        added: Awaitable[object] | None = None,
    ) -> None:
        self.job = job
        self._client = client
        self._task = task
        self._added = added

    @property
    def id(self) -> str:
        """The job's id."""
        return self.job.id

    @property
    def task(self) -> str:
        """The task's name."""
        return self.job.task

    @property
    def state(self) -> JobState:
        """The state last seen."""
        return self.job.state

    def __await__(self) -> Generator[Any, None, "JobHandle[R]"]:
        if self._added is not None:
            yield from self._added.__await__()
            self._added = None
        return self

    async def refresh(self) -> "JobHandle[R]":
        """Look again. Raises `JobNotFound` once the job has been pruned."""
        await self
        self.job = await self._client.get_job(self.job.id)
        return self

    async def cancel(self) -> JobState:
        """Ask the job to stop: revoked at once if it has not begun, else stopped softly, then by force.
        Returns the state it was found in; an ended job stays as it is."""
        await self
        return await self._client.cancel(self.job.id)

    async def retry(self) -> bool:
        """Run the job once more under its id, with all its attempts anew and without the request that it
        came with, which is no longer kept. False, and nothing is changed, unless it failed or was revoked.
        Raises `JobNotFound`."""
        await self
        again = await self._client.retry(self.job.id)
        self.job = await self._client.get_job(self.job.id)
        return again

    async def rerun(self) -> "JobHandle[R]":
        """Submit a new job with the same task, arguments and options, but without the request that this one
        came with. Raises `JobNotFound`, `UnknownTask`, `StoreError`."""
        await self
        return JobHandle(await self._client.rerun(self.job.id), self._client, task=self._task)

    async def attempts(self) -> Sequence[AttemptRecord]:
        """The attempts that have ended, oldest first: how, why, where, when. Raises `JobNotFound`."""
        await self
        return await self._client.attempts(self.job.id)

    async def result(self, timeout: float | None = None) -> R:
        """What the task returned, once it has; its type follows the task's return annotation.

        Waits up to `timeout` seconds (None: for ever). Raises `JobFailed` with the child's traceback,
        `JobRevoked` if it was cancelled or expired, `ResultTimeout`, and inside a job `WouldDeadlock`.
        """
        await self
        if not (self.job.state.ended and (self.job.result or self.job.error)):
            self.job = await self._client.ended(self.job.id, timeout)
        if self.job.state is not JobState.SUCCESS:
            error = self.job.error or JobError(ErrorKind.LOST, "Unknown", "no reason was recorded")
            kind = JobRevoked if self.job.state is JobState.REVOKED else JobFailed
            raise kind(self.job.id, self.job.task, error)
        text = self.job.result or "null"
        if self._task is None:
            return cast("R", json.loads(text))
        return cast("R", self._task.load_result(text))

    def __repr__(self) -> str:
        return f"<JobHandle {self.job.id} {self.job.task} {self.job.state}>"
