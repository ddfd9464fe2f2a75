"""Those who wait for a job to end: one wake-up for each change, no polling."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping

from .errors import ResultTimeout
from .model import Job, JobId, Outcome
from .protocols import Store


class Waiters:
    """Who waits for which job in this process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: defaultdict[JobId, set[asyncio.Future[Job | None]]] = defaultdict(set)

    async def ended(self, job_id: JobId, timeout: float | None) -> Job:
        """The job once it has ended. Raises `JobNotFound`, `ResultTimeout` after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while (job := await self._news(job_id)) is None:
                    pass
                return job
        except TimeoutError:
            raise ResultTimeout(f"job {job_id} had not ended after {timeout} s") from None

    async def _news(self, job_id: JobId) -> Job | None:
        """The job if it has ended, or as soon as somebody brings it; None when it is worth a look."""
        brought: asyncio.Future[Job | None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting[job_id]
        waiting.add(brought)  # before the look, so that no end slips between
        try:
            job = await self._store.get(job_id)
            return job if job.state.ended else await brought
        finally:
            waiting.discard(brought)
            if not waiting:
                self._waiting.pop(job_id, None)

    def deliver(self, ended: Mapping[JobId, tuple[Job, Outcome]]) -> None:
        """These jobs have ended so: whoever waits need not look."""
        for job_id in self._waiting.keys() & ended.keys():
            job, outcome = ended[job_id]
            self._tell(job_id, job.after(outcome))

    def notify(self, job_ids: Iterable[JobId]) -> None:
        """These jobs may have ended."""
        for job_id in self._waiting.keys() & set(job_ids):
            self._tell(job_id, None)

    def _tell(self, job_id: JobId, job: Job | None) -> None:
        for brought in self._waiting[job_id]:
            if not brought.done():
                brought.set_result(job)

    async def look(self) -> None:
        """Some job may have ended elsewhere: find out which of those waited for have."""
        if self._waiting:
            states = await self._store.states(list(self._waiting))
            self.notify(job_id for job_id, state in states.items() if state.ended)
