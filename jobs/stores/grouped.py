"""What a store does alike wherever its jobs are: writes go to the group commit, questions to the readers."""

from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import ClassVar, NamedTuple, Protocol

from jobs.events import EventId, EventMark, JobEvent, News
from jobs.keys import ApiKey
from jobs.model import (
    AttemptRecord,
    Claim,
    Invocation,
    Job,
    JobId,
    JobPage,
    JobQuery,
    JobState,
    Outcome,
    PutOff,
    Queued,
)
from jobs.peers import Peer, Peers
from jobs.protocols import Progress, Wake, Wrote

from .bell import Bell
from .group import GroupCommit
from .migrate import migrations
from .verbs import Verb


class Verbs(NamedTuple):
    """The writes of a store, each named after the method that asks for it."""

    add: Verb[Sequence[Job], tuple[JobId, ...]]
    claim: Verb[int, Claim]
    claim_these: Verb[Sequence[tuple[JobId, int]], Claim]
    publish: Verb[tuple[int, int], Claim]
    unpublish: Verb[tuple[str, int], None]
    finish: Verb[Sequence[Outcome], set[JobId]]
    say: Verb[Sequence[Progress | Wrote], None]
    release: Verb[Sequence[Invocation | Outcome | PutOff], None]
    cancel: Verb[JobId, JobState]
    cancel_many: Verb[Collection[JobId], set[JobId]]
    retry: Verb[Collection[JobId], set[JobId]]
    prune: Verb[tuple[int, int], int]
    add_key: Verb[ApiKey, None]
    revoke_key: Verb[str, bool]
    enter: Verb[Peer, None]


class Readers(Protocol):
    """Answers what is asked of a store; see there."""

    async def get(self, job_id: JobId) -> Job: ...
    async def attempts(self, job_id: JobId) -> Sequence[AttemptRecord]: ...
    async def log(self, job_id: JobId, attempt: int | None) -> bytes: ...
    async def events(self, job_id: JobId, after: EventId) -> tuple[Sequence[JobEvent], bool]: ...
    async def news(self, since: EventMark | None, job_ids: Collection[JobId] | None) -> News: ...
    async def states(self, job_ids: Collection[JobId]) -> dict[JobId, JobState]: ...
    async def queued(self) -> Mapping[str | None, Queued]: ...
    async def published(self) -> dict[str, int]: ...
    async def keys(self) -> Sequence[ApiKey]: ...
    async def peers(self) -> Peers: ...
    async def find(self, query: JobQuery) -> JobPage: ...


class Parts(Protocol):
    """What an open store consists of."""

    @property
    def writer(self) -> GroupCommit: ...
    @property
    def reads(self) -> Readers: ...


class GroupedStore:
    """The part of a `Store` that is the same for all that commit in groups."""

    _verbs: ClassVar[Verbs]
    _bell: Bell

    @property
    def schema_version(self) -> int:
        """See `Store.schema_version`; both kinds of store have the same."""
        return len(migrations())

    @property
    def _parts(self) -> Parts:
        """Raises `StoreError` unless the store is open."""
        raise NotImplementedError

    def add(self, jobs: Sequence[Job]) -> Awaitable[Collection[JobId]]:
        """See `Store.add`. Raises `StoreBusy` at once if too many jobs wait to be added."""
        return self._parts.writer.submit(self._verbs.add, jobs, rows=len(jobs))

    async def claim(self, limit: int) -> Claim:
        """See `Store.claim`. What was claimed for a caller that has gone is given back."""
        return await self._parts.writer.claim(self._verbs.claim, self._verbs.release, limit)

    async def claim_these(self, attempts: Sequence[tuple[JobId, int]]) -> Claim:
        """See `Store.claim_these`; and `claim`."""
        return await self._parts.writer.claim(
            self._verbs.claim_these, self._verbs.release, attempts
        )

    async def publish(self, limit: int, until: int) -> Claim:
        """See `Store.publish`."""
        return await self._parts.writer.submit(self._verbs.publish, (limit, until))

    async def unpublish(self, queue: str, until: int) -> None:
        """See `Store.unpublish`."""
        await self._parts.writer.submit(self._verbs.unpublish, (queue, until))

    async def published(self) -> dict[str, int]:
        """See `Store.published`."""
        return await self._parts.reads.published()

    async def finish(self, outcomes: Sequence[Outcome]) -> set[JobId]:
        """See `Store.finish`."""
        return await self._parts.writer.submit(self._verbs.finish, outcomes)

    async def say(self, said: Sequence[Progress | Wrote]) -> None:
        """See `Store.say`."""
        await self._parts.writer.submit(self._verbs.say, said)

    async def release(self, unspent: Sequence[Invocation | Outcome | PutOff]) -> None:
        """See `Store.release`."""
        await self._parts.writer.submit(self._verbs.release, unspent)

    async def cancel(self, job_id: JobId) -> JobState:
        """See `Store.cancel`. The state is the shown one: RETRY for a job that waits for its next attempt."""
        return await self._parts.writer.submit(self._verbs.cancel, job_id)

    async def cancel_many(self, job_ids: Collection[JobId]) -> set[JobId]:
        """See `Store.cancel_many`."""
        return await self._parts.writer.submit(self._verbs.cancel_many, job_ids)

    async def retry(self, job_ids: Collection[JobId]) -> set[JobId]:
        """See `Store.retry`."""
        return await self._parts.writer.submit(self._verbs.retry, job_ids)

    async def prune(self, ended_before: int, limit: int = 1000) -> int:
        """See `Store.prune`."""
        return await self._parts.writer.submit(self._verbs.prune, (ended_before, limit))

    async def add_key(self, key: ApiKey) -> None:
        """See `Store.add_key`."""
        await self._parts.writer.submit(self._verbs.add_key, key)

    async def revoke_key(self, key_id: str) -> bool:
        """See `Store.revoke_key`."""
        return await self._parts.writer.submit(self._verbs.revoke_key, key_id)

    async def keys(self) -> Sequence[ApiKey]:
        """See `Store.keys`."""
        return await self._parts.reads.keys()

    async def enter(self, me: Peer) -> None:
        """See `Store.enter`."""
        await self._parts.writer.submit(self._verbs.enter, me)

    async def peers(self) -> Peers:
        """See `Store.peers`."""
        return await self._parts.reads.peers()

    async def wait(self) -> Wake:
        """See `Store.wait`."""
        return await self._bell.wait()

    async def get(self, job_id: JobId) -> Job:
        """See `Store.get`."""
        return await self._parts.reads.get(job_id)

    async def attempts(self, job_id: JobId) -> Sequence[AttemptRecord]:
        """See `Store.attempts`."""
        return await self._parts.reads.attempts(job_id)

    async def log(self, job_id: JobId, attempt: int | None = None) -> bytes:
        """See `Store.log`."""
        return await self._parts.reads.log(job_id, attempt)

    async def events(self, job_id: JobId, after: EventId) -> tuple[Sequence[JobEvent], bool]:
        """See `Store.events`."""
        return await self._parts.reads.events(job_id, after)

    async def news(self, since: EventMark | None, job_ids: Collection[JobId] | None = None) -> News:
        """See `Store.news`."""
        return await self._parts.reads.news(since, job_ids)

    async def states(self, job_ids: Collection[JobId]) -> dict[JobId, JobState]:
        """See `Store.states`."""
        return await self._parts.reads.states(job_ids)

    async def queued(self) -> Mapping[str | None, Queued]:
        """See `Store.queued`."""
        return await self._parts.reads.queued()

    async def find(self, query: JobQuery) -> JobPage:
        """See `Store.find`."""
        return await self._parts.reads.find(query)
