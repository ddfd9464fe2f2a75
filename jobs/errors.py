"""Every error this package raises on purpose, as one tree.

JobsError
├── ConfigurationError          the set-up is wrong; the app does not start
│   ├── DuplicateTask
│   ├── UnsupportedAnnotation
│   ├── ShadowedModule
│   └── AppNotImportable
├── NotRunning                  a job was submitted where nothing is open
├── UnknownTask
├── InvalidArguments            carries one `Problem` per wrong value
│   └── InvalidJson
│       └── JsonTooLarge
├── KeyReused                   an Idempotency-Key came with another request than before
├── SecretsGone                 a job cannot run again without its secret arguments
├── ContextError
│   ├── NotCarriable            a value of `g` cannot travel
│   ├── BadContext              a stored snapshot cannot be opened or restored
│   └── BodyNotCarried
├── JobNotFound
├── JobFailed                   what `result()` raises
│   └── JobRevoked
├── ResultTimeout               also a TimeoutError
├── WouldDeadlock               a job waits for a job
├── BrokerUnreachable           jobs are kept, and cannot be announced now
└── StoreError
    ├── StoreBusy               try again: locked, or too much is queued
    │   └── QueueFull           as many jobs wait to run as may
    │       └── OwnerQueueFull  ... of this owner
    ├── StoreFull               no disk space
    └── DatabaseUnusable        garbage, read-only, newer, missing folder, network file system
        └── DatabaseMoved       its jobs are, or are about to be, in another

JobInterrupted (BaseException)  raised inside a task to stop it
"""

from collections.abc import Sequence
from typing import NamedTuple

from .model import JobError


class JobsError(Exception):
    """Base of every error of this package."""


class ConfigurationError(JobsError):
    """The set-up is wrong, and the app does not start before it is put right."""


class DuplicateTask(ConfigurationError):
    """Two functions are registered under one task name."""


class UnsupportedAnnotation(ConfigurationError):
    """A task's parameter or return type cannot be read from, or written as, JSON."""


class ShadowedModule(ConfigurationError):
    """A module of the user's hides one of this package's own."""


class AppNotImportable(ConfigurationError):
    """The child processes cannot import the app, or a task module fails to import."""


class NotRunning(JobsError):
    """A job was submitted, or asked for, where no `Jobs` is open."""

    def __init__(
        self,
        message: str = "Jobs is not open here, so no job could be kept or found. A server opens it with the app"
        " (a Flask app's with the first request); in a test, use `async with app.test_app() as running:` and"
        " `running.test_client()`; in a script, or with Flask's test client, `async with jobs:` or `with jobs:`",
    ) -> None:
        super().__init__(message)


class UnknownTask(JobsError):
    """No task has this name. `matches` are the names nearest to it."""

    def __init__(self, name: str, matches: Sequence[str] = ()) -> None:
        self.name, self.matches = name, tuple(matches)
        hint = f"; did you mean {' or '.join(self.matches)}?" if self.matches else ""
        super().__init__(f"no task is named {name!r}{hint}")


class Problem(NamedTuple):
    """One wrong value: where (an RFC 6901 JSON pointer into the arguments) and what is wrong."""

    pointer: str
    detail: str


class InvalidArguments(JobsError):
    """Arguments that do not fit the task's signature; nothing was stored."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            "; ".join(f"{p.pointer}: {p.detail}" if p.pointer else p.detail for p in self.problems)
        )


class InvalidJson(InvalidArguments):
    """A value that JSON, or one of the stores, cannot hold: NUL, lone surrogate, NaN, too deep, too large."""


class JsonTooLarge(InvalidJson):
    """JSON of more bytes than a setting allows."""


class KeyReused(JobsError):
    """An earlier request with the same idempotency key asked for something else; nothing was stored."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"the idempotency key {key!r} was used for another request: send that one again, or take a new key"
        )


class SecretsGone(JobsError):
    """A job's secret arguments were forgotten when it ended, and without them it cannot run again."""

    def __init__(self, task: str) -> None:
        super().__init__(
            f"the task {task} takes secret arguments, which are sealed for one job and forgotten when it ends:"
            " submit it anew"
        )


class ContextError(JobsError):
    """Something is wrong with a request snapshot."""


class NotCarriable(ContextError):
    """A value of `g` that is to travel is not JSON and has no carrier."""


class BadContext(ContextError):
    """A stored snapshot cannot be opened or restored."""


class BodyNotCarried(ContextError):
    """The request's body does not travel with a job: pass what the task needs as an argument."""

    def __init__(self) -> None:
        super().__init__(
            "a job's request carries no body: pass what the task needs of it as an argument"
        )


class JobNotFound(JobsError):
    """No job has this id (or it was pruned)."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"no job has the id {job_id!r}")


class JobFailed(JobsError):
    """The job ended without a result; `error` says why, with the child's traceback."""

    def __init__(self, job_id: str, task: str, error: JobError) -> None:
        self.job_id, self.task, self.error = job_id, task, error
        lines = f"job {job_id} ({task}) ended without a result: {error.type}: {error.message}"
        if error.traceback:
            lines += f"\n\nIn the job:\n{error.traceback}"
        super().__init__(lines)


class JobRevoked(JobFailed):
    """The job was cancelled, or expired before it started."""


class ResultTimeout(JobsError, TimeoutError):
    """The job had not ended when the caller's patience had."""


class WouldDeadlock(JobsError):
    """A job waits for another job's result: with every lane doing so, nothing would run."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"a job may not wait for another (here {job_id}): if every lane did, nothing would run."
            " Return, and let the other job go on where this one ends"
        )


class BrokerUnreachable(JobsError):
    """The message broker did not take what was to be announced; the jobs are kept, and it is tried again."""


class StoreError(JobsError):
    """The store could not do what was asked; nothing was changed."""


class StoreBusy(StoreError):
    """Locked by another process for too long, or too much is waiting: worth trying again."""


class QueueFull(StoreBusy):
    """As many jobs wait to run as may: worth trying again when some have run."""


class OwnerQueueFull(QueueFull):
    """As many jobs of one owner wait to run as may."""


class StoreFull(StoreError):
    """The disk is full."""


class DatabaseUnusable(StoreError, ConfigurationError):
    """The database is garbage, read-only, newer than this code, in a missing folder or on a network file system."""


class DatabaseMoved(DatabaseUnusable):
    """Its jobs are, or are about to be, in another database, which the message names."""


class JobInterrupted(BaseException):
    """Raised inside a sync task to stop it (cancel, timeout, shutdown); `finally` blocks run.

    A BaseException, so that a task's `except Exception` does not swallow it.
    """
