"""A store whose claims are what messages ask for."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.errors import StoreError
from jobs.model import Claim, Invocation, Job, JobId, JobState, Outcome, PutOff
from jobs.protocols import Store

log = logging.getLogger("jobs.celery")


@dataclass(slots=True, eq=False)
class Request:
    """A message under way: its attempt, and whom to tell what becomes of it.

    `claimed`: the attempt begins here. `ended`: with this outcome, or with None: it was not to be claimed."""

    job_id: JobId
    attempt: int
    claimed: Callable[[], None]
    ended: Callable[[Outcome | None], None]


class ClaimsByMessage:
    """Wraps a `Store`: `claim` takes the attempts that were asked for, and whoever asked hears of it once what
    became of an attempt is recorded. All else is the store's own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked: list[Request] = []
        self._claimed: dict[tuple[JobId, int], Request] = {}

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

    def ask(self, request: Request) -> None:
        """Have this attempt claimed with the next claim."""
        self._asked.append(request)

    async def claim(self, limit: int) -> Claim:
        """Take up to `limit` of the attempts that were asked for."""
        jobs: list[Job] = []
        while self._asked and len(jobs) < limit:
            room = limit - len(jobs)
            wanted, self._asked = self._asked[:room], self._asked[room:]
            try:
                claim = await self._store.claim_these([(one.job_id, one.attempt) for one in wanted])
            except StoreError:
                self._asked = wanted + self._asked
                if jobs:
                    break  # what is claimed is to run
                raise
            taken = {(job.id, job.attempt) for job in claim.jobs}
            jobs += claim.jobs
            await self._sort(wanted, taken)
        return Claim(jobs)

    async def _sort(self, wanted: Sequence[Request], taken: set[tuple[JobId, int]]) -> None:
        refused = []
        for request in wanted:
            key = request.job_id, request.attempt
            if key in taken and key not in self._claimed:
                self._claimed[key] = request
                request.claimed()
            else:
                refused.append(request)
                request.ended(None)
        with suppress(StoreError):
            await self._tell_of_unknown([request.job_id for request in refused])

    async def _tell_of_unknown(self, refused: Sequence[JobId]) -> None:
        known = await self._store.states(refused) if refused else {}
        for job_id in set(refused) - known.keys():
            log.error(
                "job %s is not in %s: do service and worker have the same JOBS_DATABASE?",
                job_id,
                self._store.location,
            )

    async def finish(self, outcomes: Sequence[Outcome]) -> set[JobId]:
        """See `Store.finish`."""
        counted = await self._store.finish(outcomes)
        for outcome in outcomes:
            self._end(outcome.job_id, outcome.attempt, outcome)
        return counted

    async def release(self, unspent: Sequence[Invocation | Outcome | PutOff]) -> None:
        """See `Store.release`."""
        await self._store.release(unspent)
        for one in unspent:
            self._end(one.job_id, one.attempt, Outcome(one.job_id, one.attempt, JobState.PENDING))

    def _end(self, job_id: JobId, attempt: int, outcome: Outcome | None) -> None:
        request = self._claimed.pop((job_id, attempt), None)
        if request is not None:
            request.ended(outcome)
