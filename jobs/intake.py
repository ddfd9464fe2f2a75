"""The way in: new jobs go to the store unless too many wait there already."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Collection, Sequence
from time import monotonic

from .errors import OwnerQueueFull, QueueFull, StoreError
from .model import Job, JobId, size_of
from .protocols import Store

COUNT_EVERY = 1.0  #: seconds after which a count is too old
COUNT_PAUSE = 0.05  #: seconds between counts, at least
COUNT_SHARE = 50  #: counting takes at most one part in so many of the time


class Intake:
    """Adds jobs to a store within the limits of its queue; None sets none.

    The queue is not counted for each job, as that would take the longer the more there is in it. What is
    known is a count of a moment ago and what this process has added since, which is never less than what
    waits of its own. A new count is made when that one is old, when a tenth of the room that it left has
    been taken (so that processes that share a store do not overfill it by much), and when a job had to be
    refused."""

    def __init__(
        self,
        store: Store,
        *,
        max_jobs: int,
        max_jobs_per_owner: int | None = None,
        max_bytes: int | None = None,
        max_bytes_per_owner: int | None = None,
    ) -> None:
        self._store = store
        self._max_jobs, self._max_bytes = max_jobs, max_bytes
        self._max_jobs_per_owner = max_jobs_per_owner
        self._max_bytes_per_owner = max_bytes_per_owner
        self._jobs = self._bytes = 0
        self._owners: Counter[str] = Counter()
        self._owners_bytes: Counter[str] = Counter()
        self._fresh_until = 0.0  #: monotonic seconds
        self._enough = 0  #: jobs with which a new count is made
        self._pause_until = 0.0
        self._counting: asyncio.Task[None] | None = None

    def add(self, jobs: Sequence[Job]) -> Awaitable[Collection[JobId]]:
        """`Store.add`; all or none. Raises `QueueFull` at once."""
        if self._jobs >= self._enough or monotonic() >= self._fresh_until:
            self._count_soon()
        try:
            self._take(jobs)
        except QueueFull:
            self._count_soon()
            raise
        return self._store.add(jobs)

    def _take(self, jobs: Sequence[Job]) -> None:
        """Count these in, if there is room for all of them. Raises `QueueFull`."""
        if self._jobs + len(jobs) > self._max_jobs:
            raise QueueFull(
                f"{self._jobs} jobs wait to run, of at most {self._max_jobs} (setting: max_queued)"
            )
        size, owners, owners_bytes = 0, None, None
        if self._max_bytes is not None:
            size = sum(map(_size, jobs))
            if self._bytes + size > self._max_bytes:
                raise QueueFull(
                    f"the jobs that wait to run have {self._bytes} bytes, of at most {self._max_bytes}"
                    " (setting: max_queued_bytes)"
                )
        if self._max_jobs_per_owner is not None:
            owners = Counter(job.owner for job in jobs if job.owner is not None)
            owner = _one_over(self._max_jobs_per_owner, self._owners, owners)
            if owner is not None:
                raise OwnerQueueFull(
                    f"{self._owners[owner]} jobs of {owner!r} wait to run, of at most {self._max_jobs_per_owner}"
                    " (setting: max_queued_per_owner)"
                )
        if self._max_bytes_per_owner is not None:
            owners_bytes = Counter[str]()
            for job in jobs:
                if job.owner is not None:
                    owners_bytes[job.owner] += _size(job)
            owner = _one_over(self._max_bytes_per_owner, self._owners_bytes, owners_bytes)
            if owner is not None:
                raise OwnerQueueFull(
                    f"the jobs of {owner!r} that wait to run have {self._owners_bytes[owner]} bytes, of at most"
                    f" {self._max_bytes_per_owner} (setting: max_queued_bytes_per_owner)"
                )
        # Only now that none is refused.
        self._jobs += len(jobs)
        self._bytes += size
        if owners:
            self._owners.update(owners)
        if owners_bytes:
            self._owners_bytes.update(owners_bytes)

    async def count(self) -> None:
        """Count the queue now; or later, if the store cannot do it."""
        began = monotonic()
        try:
            await self._count()
        except StoreError:
            self._pause_until = monotonic() + COUNT_EVERY  # who adds is told what is wrong
        else:
            now = monotonic()
            self._fresh_until = now + COUNT_EVERY
            self._pause_until = now + max(COUNT_PAUSE, COUNT_SHARE * (now - began))
            self._enough = self._jobs + max((self._max_jobs - self._jobs) // 10, 1)

    async def _count(self) -> None:
        known, size = self._jobs, self._bytes
        owners, owners_bytes = self._owners.copy(), self._owners_bytes.copy()
        if known:
            await self._store.add([])  # what has been added so far is on disk then, and is counted
        queued = await self._store.queued()
        # What was added meanwhile may be in the count or not: it counts once more.
        self._jobs += sum(each.jobs for each in queued.values()) - known
        self._bytes += sum(each.size for each in queued.values()) - size
        self._owners -= owners
        self._owners.update({owner: each.jobs for owner, each in queued.items() if owner})
        self._owners_bytes -= owners_bytes
        self._owners_bytes.update({owner: each.size for owner, each in queued.items() if owner})

    def _count_soon(self) -> None:
        if monotonic() >= self._pause_until and (self._counting is None or self._counting.done()):
            self._counting = asyncio.create_task(self.count(), name="jobs: count of the queue")

    async def close(self) -> None:
        """End what it does in the background."""
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.wait({self._counting})


def _size(job: Job) -> int:
    """Bytes, as the store counts them."""
    return size_of(job.args) + len(job.context or b"")


def _one_over(most: int, known: Counter[str], new: Counter[str]) -> str | None:
    """An owner who would have more than may be."""
    return next((owner for owner, count in new.items() if known[owner] + count > most), None)
