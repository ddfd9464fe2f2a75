"""The two contracts everything else is built on: a store keeps jobs, an engine runs them.

Both are async context managers. `tests/contract/` holds one suite for each, which every
implementation passes; what a suite does not check, a caller may not rely on.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Flag, StrEnum, auto
from typing import Literal, Protocol

from .events import EventId, EventMark, JobEvent, News
from .keys import ApiKey
from .model import (
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
from .peers import Peer, Peers


class Wake(Flag):
    """What may have changed since the last `Store.wait()`."""

    WORK = auto()  #: a job may be ready to claim
    CANCEL = auto()  #: a running job may have been asked to stop
    ENDED = auto()  #: a job may have ended, in another process
    TOLD = auto()  #: a job may have begun or said something, in another process


class Store(AbstractAsyncContextManager["Store"], Protocol):
    """Keeps jobs. Safe to use from any number of tasks of one event loop, and by several processes.

    Every write is one closed unit of work: a caller that is cancelled while it waits leaves no
    transaction open and loses nothing that it was promised. Writes raise `StoreBusy` or `StoreFull`.
    """

    claimant: str
    """This process's name in `claimed_by`; alive as long as the store is open."""
    location: str
    """Where the jobs are, in words for people; for a file, its path."""

    @property
    def schema_version(self) -> int:
        """The newest schema that this release knows."""

    def hold_fileno(self) -> int | None:
        """An open file whose lock says that the claimant is alive: a child that holds it too keeps its jobs
        from being put back while it runs. None where the store has no such file."""

    def add(self, jobs: Sequence[Job]) -> Awaitable[Collection[JobId]]:
        """Keep new jobs, all or none, in this order. It begins with the call, whether or not it is awaited;
        the jobs are durable when the awaitable is done. Adding an id that is already kept changes nothing,
        so an add may be repeated; these ids are returned.

        Several jobs with idempotency keys are one request: if the first of them is kept, none is added,
        and the ids of all are returned."""

    async def get(self, job_id: JobId) -> Job:
        """The whole job, without its sealed context. Raises `JobNotFound`."""

    async def attempts(self, job_id: JobId) -> Sequence[AttemptRecord]:
        """The attempts that have ended, oldest first; they go with their job. Raises `JobNotFound`."""

    async def log(self, job_id: JobId, attempt: int | None = None) -> bytes:
        """What the attempts that have ended wrote, oldest first, as UTF-8; only that number's, if given.
        Raises `JobNotFound`."""

    async def say(self, said: Sequence["Progress | Wrote"]) -> None:
        """Keep what running jobs say, in this order; their last progress becomes the job's. It counts only
        for jobs that are claimed by this process and on that attempt. To be called before `finish`; it need
        not survive a loss of power."""

    async def events(self, job_id: JobId, after: EventId) -> tuple[Sequence[JobEvent], bool]:
        """The next of a job's events, in order, and whether there are more already. Raises `JobNotFound`."""

    async def news(self, since: EventMark | None, job_ids: Collection[JobId] | None = None) -> News:
        """What has happened since then to these jobs, or to all. The start of an attempt under way is told
        each time. With None only the mark, to begin at."""

    async def find(self, query: JobQuery) -> JobPage:
        """A page of jobs, newest first."""

    async def states(self, job_ids: Collection[JobId]) -> dict[JobId, JobState]:
        """The shown state of each of these jobs that exists."""

    async def claim(self, limit: int) -> Claim:
        """Take up to `limit` jobs to run here: PENDING, due, not expired; by priority, then in the order
        they were added. Each becomes STARTED with `attempt` one higher, and comes whole."""

    async def publish(self, limit: int, until: int) -> Claim:
        """Take up to `limit` jobs, without what is long of them, for a broker to announce to its workers: those
        that a claim would take. They stay PENDING and are hidden from `claim` and `publish` until `until` (ms)."""

    async def claim_these(self, attempts: Sequence[tuple[JobId, int]]) -> Claim:
        """Take those of these jobs, hidden or not, whose next attempt is the one named, as `claim` does. The
        others are running elsewhere, have ended, have expired, or are not known."""

    async def published(self) -> dict[str, int]:
        """How many jobs are hidden, by queue; none is left out."""

    async def unpublish(self, queue: str, until: int) -> None:
        """Show a queue's jobs that would be hidden until some time before `until` (ms): the broker lost them."""

    async def finish(self, outcomes: Sequence[Outcome]) -> set[JobId]:
        """Record how attempts ended, and purge the context of jobs that are thereby over.

        An outcome counts only if the job is STARTED, claimed by this process, and on that attempt (the
        fence); the ids of those that counted are returned. PENDING with `run_at` puts the job back.
        A `crash` or `lost` error raises that count. A job that was to be put back but has been asked
        to stop becomes REVOKED. Every outcome that counted is kept as an attempt: SUCCESS, or what kind
        its error is of."""

    async def release(self, unspent: Sequence[Invocation | Outcome | PutOff]) -> None:
        """Give back claimed jobs: PENDING again, the attempt not spent. One that has been asked to stop
        becomes REVOKED. An `Invocation` or a `PutOff` never began; an `Outcome` says how an attempt was stopped by a
        shutdown, which is kept (`shutdown`)."""

    async def cancel(self, job_id: JobId) -> JobState:
        """Ask a job to stop; returns the state it was found in. PENDING becomes REVOKED at once; STARTED is
        marked, and its claimant told by `Wake.CANCEL`; an ended job stays as it is. Raises `JobNotFound`."""

    async def cancel_many(self, job_ids: Collection[JobId]) -> set[JobId]:
        """`cancel` for several jobs, all in one transaction. Returns the ids of those that this has changed:
        PENDING to REVOKED, or STARTED and not asked to stop before."""

    async def retry(self, job_ids: Collection[JobId]) -> set[JobId]:
        """Let ended jobs run once more: FAILURE and REVOKED become PENDING, due at once, with new budgets;
        attempts are numbered on. Their context is gone, and their `origin` says so. An expiry that has passed
        is forgotten. Returns the ids of the jobs that this has changed; others stay as they are."""

    async def queued(self) -> Mapping[str | None, Queued]:
        """What is PENDING now, by owner. The time it takes grows with the queue."""

    async def cancel_requests(self) -> Collection[JobId]:
        """The jobs claimed here that have been asked to stop."""

    async def reap(self) -> set[JobId]:
        """Put back the jobs of claimants that are dead (kind `lost`), or fail those lost too often, and
        revoke pending jobs that have expired. Returns the ids of the jobs that thereby ended. A lost
        attempt is kept as such."""

    async def prune(self, ended_before: int, limit: int = 1000) -> int:
        """Delete up to `limit` jobs that ended before then (ms); returns how many."""

    async def add_key(self, key: ApiKey) -> None:
        """Keep a new API key; it is durable on return."""

    async def revoke_key(self, key_id: str) -> bool:
        """Mark an API key as revoked now, if it is not already. False if none has this id."""

    async def keys(self) -> Sequence[ApiKey]:
        """Every API key there ever was, in the order they were made."""

    async def enter(self, me: Peer) -> None:
        """Tell the others what this process is. It is forgotten once the process is dead."""

    async def peers(self) -> Peers:
        """Which processes have the jobs open and have entered themselves, this one too; and the version of the
        database's schema."""

    async def wait(self) -> Wake:
        """Return as soon as something may have changed since the last call: the process's one doorbell.
        Rings for this process's own writes at once, for another's within 50 ms."""

    async def check(self) -> None:
        """Raise `StoreError` if the store cannot take a write now (readiness)."""


class Interrupt(StrEnum):
    """Why a running attempt is to stop."""

    CANCEL = "cancel"
    TIMEOUT = "timeout"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class Started:
    """The attempt has begun in the child with this pid."""

    job_id: JobId
    attempt: int
    pid: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running job says it is (JSON text)."""

    job_id: JobId
    attempt: int
    text: str


@dataclass(frozen=True, slots=True)
class Wrote:
    """Whole lines that a running job has written: the next of its log, as the outcome will have it."""

    job_id: JobId
    attempt: int
    text: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Invocations the engine took and gives back: they never began."""

    invocations: Sequence[Invocation]


@dataclass(frozen=True, slots=True)
class Call:
    """A running job asks something of the service: to add jobs (a JSON array of `wire` jobs), or to
    get, cancel or retry one, or which attempts it has had (its id, a JSON string). `reply` takes the JSON
    answer `{"ok": …}` or `{"error": [type, message]}`, once."""

    verb: Literal["add", "get", "cancel", "retry", "attempts"]
    body: bytes
    reply: Callable[[bytes], None]


Event = Started | Outcome | Progress | Wrote | Withdrawn | Call


class Engine(AbstractAsyncContextManager["Engine"], Protocol):
    """Runs invocations. Failure is a value: no method raises for what a job does.

    Every invocation taken by `start` comes back exactly once: as an `Outcome` if it began, PENDING where
    a shutdown stopped it, else in a `Withdrawn`.
    Leaving the context withdraws what has not begun, interrupts what has (soft, grace, kill), and
    ends `events()` after the last of them; no process of a job is left.
    """

    @property
    def free(self) -> int:
        """How many more invocations it takes now."""

    @property
    def trouble(self) -> str | None:
        """Why it can run nothing now, in words; None if it can, or will in a moment (readiness)."""

    def start(self, batch: Sequence[Invocation]) -> None:
        """Take invocations to run, at most `free` of them."""

    def interrupt(self, job_id: JobId, why: Interrupt) -> None:
        """Ask a running attempt to stop: softly, then, after the grace, by force. Its outcome follows:
        REVOKED (`cancelled`), FAILURE (`timeout`), or PENDING for SHUTDOWN. One that has not begun is
        withdrawn; an unknown id is ignored."""

    def events(self) -> AsyncIterator[Sequence[Event]]:
        """What happens, in order, as many events at a time as have gathered since the last step."""

    async def drain(self) -> None:
        """Withdraw what has not begun, and return when what has begun has ended."""


class Broker(Protocol):
    """Announces jobs to workers that share the store. What it says is a hint: a message that comes twice, late
    or never costs time, not a job.

    Its methods block, within a deadline of its own, and are called in one thread. They raise
    `BrokerUnreachable`."""

    @property
    def name(self) -> str:
        """Where it is, in words, without a password."""

    def publish(self, jobs: Sequence[Job]) -> None:
        """Announce the next attempt of each of these jobs."""

    def depths(self, queues: Collection[str]) -> dict[str, int]:
        """How many announcements wait in each of these queues."""

    def close(self) -> None:
        """End the connection."""
