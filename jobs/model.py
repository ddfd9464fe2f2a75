"""The words of this house as types: a job, its states, and what crosses between store and engine.

Times are integer milliseconds since the Unix epoch (UTC), so that every store and every process
writes the same value; durations are float seconds, as Python's own APIs have them.
"""

import os
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, NewType

JobId = NewType("JobId", str)
"""A UUIDv7 in its canonical text form: a name, unique; the order of jobs is `Job.seq`."""


class JobState(StrEnum):
    """Where a job is. Celery's names. `RETRY` is shown, never stored: pending after an attempt."""

    PENDING = "PENDING"
    RETRY = "RETRY"
    STARTED = "STARTED"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    REVOKED = "REVOKED"

    @property
    def ended(self) -> bool:
        """Whether this state is final."""
        return self in ENDED


ENDED = frozenset({JobState.SUCCESS, JobState.FAILURE, JobState.REVOKED})

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.PENDING: frozenset({JobState.STARTED, JobState.REVOKED}),
    JobState.STARTED: frozenset({JobState.PENDING, *ENDED}),
    JobState.SUCCESS: frozenset(),
    JobState.FAILURE: frozenset({JobState.PENDING}),
    JobState.REVOKED: frozenset({JobState.PENDING}),
}
"""Which stored state may follow which: what has ended changes by an explicit retry only. The SQL's
CHECKs and guarded updates say the same again, and `tests/contract` holds the two against each other."""


class ErrorKind(StrEnum):
    """Why an attempt, or a job, did not succeed."""

    EXCEPTION = "exception"
    TIMEOUT = "timeout"
    CRASH = "crash"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    LOST = "lost"
    BAD_CONTEXT = "bad_context"
    BAD_RESULT = "bad_result"


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed, in words; the traceback is the task's own, never the service's."""

    kind: ErrorKind
    type: str
    message: str
    traceback: str | None = None


class Job(NamedTuple):
    """One submission of a task: the row, as every store returns it.

    `args` and `result` are JSON text, never parsed by a process that only passes them on.
    `context` is the sealed request snapshot; `origin` is the little of it that stays readable (JSON
    text: method, route, trace id). Thousands are made each second: hence a tuple.
    """

    id: JobId
    task: str
    created_at: int
    args: str = "{}"
    queue: str = "default"
    priority: int = 0  #: higher runs first
    max_attempts: int = 1
    timeout: float | None = None  #: seconds one attempt may take
    run_at: int | None = None  #: not before; None: as soon as a lane is free
    expires_at: int | None = None  #: not started by then: revoked
    context: bytes | None = None
    origin: str | None = None
    seq: int = 0  #: order of commit, given by the store
    stored_state: JobState = JobState.PENDING
    attempt: int = 0  #: rises at each claim: with `claimed_by` the fence
    crashes: int = 0  #: attempts that killed their child: a budget of its own
    lost: int = 0  #: attempts whose whole service died: likewise
    started_at: int | None = None
    finished_at: int | None = None
    claimed_by: str | None = None
    cancel_requested_at: int | None = None
    result: str | None = None
    error: JobError | None = None
    progress: str | None = None  #: JSON text
    owner: str | None = None  #: whose it is; None: nobody's in particular
    idempotency_key: str | None = None
    fingerprint: str | None = None  #: of the request that came with that key
    forgiven: int = 0  #: attempts before the last explicit retry, which count against no budget

    @property
    def state(self) -> JobState:
        """The state as users see it."""
        if self.stored_state is JobState.PENDING and self.attempt:
            return JobState.RETRY
        return self.stored_state

    @property
    def attempts_spent(self) -> int:
        """Attempts that count against `max_attempts`: crashes and losses have budgets of their own."""
        return self.attempt - self.forgiven - self.crashes - self.lost

    def after(self, outcome: "Outcome") -> "Job":
        """The job as an outcome that ends it leaves it."""
        return self._replace(
            stored_state=outcome.state,
            result=outcome.result,
            error=outcome.error,
            started_at=outcome.started_at or self.started_at,
            finished_at=outcome.finished_at,
            context=None,
            claimed_by=None,
        )


class Invocation(NamedTuple):
    """One attempt, on its way to a child."""

    job_id: JobId
    attempt: int
    task: str
    args: str
    context: bytes | None = None
    timeout: float | None = None
    max_attempts: int = 1
    fresh: bool = (
        False  #: it is to have a process that has run nothing before and runs nothing after
    )
    max_memory_mb: int | None = (
        None  #: MiB that it may have more than its process had when it began
    )
    owner: str | None = None

    @classmethod
    def of(cls, job: Job) -> "Invocation":
        """The attempt that claiming `job` has begun."""
        return cls(
            job.id,
            job.attempt,
            job.task,
            job.args,
            job.context,
            job.timeout,
            job.max_attempts,
            owner=job.owner,
        )


class PutOff(NamedTuple):
    """A claimed attempt that never began and is for another process: given back, but hidden until then (ms)."""

    job_id: JobId
    attempt: int
    until: int


class Usage(NamedTuple):
    """What an attempt took of its machine."""

    max_rss: int  #: bytes, the most that its process had in memory
    cpu: float  #: seconds, with those of the processes that it started and waited for


class Outcome(NamedTuple):
    """How one attempt ended, and what its job becomes.

    An engine says `SUCCESS`, `FAILURE` or `REVOKED`; the dispatcher, which knows the budgets, may turn
    that into `PENDING` with a `run_at`: once more.
    """

    job_id: JobId
    attempt: int
    state: JobState
    result: str | None = None  #: JSON text
    error: JobError | None = None
    started_at: int | None = None
    finished_at: int | None = None
    run_at: int | None = None
    pid: int | None = None  #: of the process it ran in
    usage: Usage | None = None
    signal: int | None = None  #: that ended the process
    log: str | None = None  #: what the attempt wrote, capped
    final: bool = False  #: the job is not to run again, whatever its policy
    again_in: float | None = None  #: seconds after which the job itself asks to run again

    def again(self, run_at: int) -> "Outcome":
        """The same ending, but the job runs once more, not before `run_at`."""
        return self._replace(state=JobState.PENDING, run_at=run_at)


class AttemptEnd(StrEnum):
    """How an attempt ended, as its row says."""

    SUCCESS = "success"
    EXCEPTION = "exception"
    TIMEOUT = "timeout"
    CRASH = "crash"
    CANCELLED = "cancelled"
    LOST = "lost"
    SHUTDOWN = "shutdown"  #: stopped with the service; the attempt is not spent, and its number comes again
    BAD_RESULT = "bad_result"
    BAD_CONTEXT = "bad_context"


class AttemptRecord(NamedTuple):
    """One attempt that has ended. What its process could not say any more is None."""

    number: int
    outcome: AttemptEnd
    error: JobError | None
    worker: str  #: the claimant
    pid: int | None
    started_at: int | None  #: ms
    finished_at: int  #: ms
    max_rss: int | None  #: bytes
    cpu: float | None  #: seconds
    signal: int | None
    log_bytes: int  #: of `Store.log`


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """Which jobs to list, newest first; every field narrows."""

    state: JobState | None = None  #: as shown: PENDING means never attempted, RETRY the others
    task: str | None = None
    queue: str | None = None
    owner: str | None = None
    created_after: int | None = None  #: inclusive, ms
    created_before: int | None = None  #: exclusive, ms
    limit: int = 100
    before_seq: int | None = None  #: the page that follows the job with this `seq`
    ids: Collection[JobId] | None = None  #: only of these


@dataclass(frozen=True, slots=True)
class JobPage:
    """Jobs without args, context and result; `next_seq` continues the list, None at its end."""

    jobs: Sequence[Job]
    next_seq: int | None


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim brought, and when the next job that is not yet due will be (ms)."""

    jobs: Sequence[Job]
    next_due: int | None = None


class Queued(NamedTuple):
    """What waits to run, of one owner or of all."""

    jobs: int
    size: int  #: bytes of their arguments and contexts, as they were submitted


def size_of(args: str) -> int:
    """How many bytes a JSON text has."""
    return len(args) if args.isascii() else len(args.encode())


def now_ms() -> int:
    """Wall clock, for what is shown and stored; deadlines inside a process use the monotonic clock."""
    return time.time_ns() // 1_000_000


_ids = threading.Lock()
_last = 0


def new_job_id() -> JobId:
    """A UUIDv7 (RFC 9562 §5.7): 48 bits of milliseconds, then 12 that count up within one, then 62
    random ones, so ids from one process sort in the order they were made."""
    global _last  # noqa: PLW0603 - the counter is the process's
    with _ids:
        _last = max(_last + 1, now_ms() << 12)
        stamp = _last
    made, rest = f"{stamp:015x}", os.urandom(8).hex()
    variant = "89ab"[int(rest[0], 16) & 3]
    return JobId(f"{made[:8]}-{made[8:12]}-7{made[12:]}-{variant}{rest[1:4]}-{rest[4:]}")
