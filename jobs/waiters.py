"""Those who wait for a job to end: one wake-up for each change, no polling."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable

from .errors import ResultTimeout
from .model import Job, JobId
from .protocols import Store


class Waiters:
    """Who waits for which job in this process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._events: defaultdict[JobId, set[asyncio.Event]] = defaultdict(set)

    async def ended(self, job_id: JobId, timeout: float | None) -> Job:
        """The job once it has ended. Raises `JobNotFound`, `ResultTimeout` after `timeout` seconds."""
        event = asyncio.Event()
        self._events[job_id].add(event)  # before the first look, so that no end slips between
        try:
            async with asyncio.timeout(timeout):
                while not (job := await self._store.get(job_id)).state.ended:
                    await event.wait()
                    event.clear()
                return job
        except TimeoutError:
            raise ResultTimeout(f"job {job_id} had not ended after {timeout} s") from None
        finally:
            self._events[job_id].discard(event)
            if not self._events[job_id]:
                del self._events[job_id]

    def notify(self, job_ids: Iterable[JobId]) -> None:
        """These jobs may have ended."""
        for job_id in self._events.keys() & set(job_ids):
            for event in self._events[job_id]:
                event.set()

    async def look(self) -> None:
        """Some job may have ended elsewhere: find out which of those waited for have."""
        if self._events:
            states = await self._store.states(list(self._events))
            self.notify(job_id for job_id, state in states.items() if state.ended)
