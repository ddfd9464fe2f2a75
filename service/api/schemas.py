"""The shapes of what goes out, as `render` writes them; a test holds the two together."""

from typing import Annotated, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
)

from jobs.model import AttemptEnd, ErrorKind, JobState

Time = Annotated[AwareDatetime | None, Field(description="RFC 3339, UTC, with milliseconds.")]


class _Out(BaseModel):
    model_config = ConfigDict(extra="forbid")


class JobErrorObject(_Out):
    """Why a job did not succeed."""

    kind: ErrorKind
    type: str = Field(description="The exception's class.")
    message: str
    traceback: str | None = Field(description="The task's own, as its process printed it.")


class JobLinks(_Out):
    """Where to go on from a job."""

    self: str
    result: str
    attempts: str
    logs: str
    events: str
    cancel: str | None = Field(None, description="DELETE it; present until the job has ended.")


class ProgressObject(_Out):
    """How far a running job said it is, last."""

    done: float
    total: float | None = Field(description="What `done` will be at the end, if the job knows.")
    message: str | None


EXAMPLE_ID = "0199f2f0-7c3a-7000-8a61-3f1d2c9b5e77"

EXAMPLE_JOB: dict[str, JsonValue] = {
    "id": EXAMPLE_ID,
    "task": "text.stats",
    "queue": "default",
    "priority": 0,
    "state": "PENDING",
    "attempt": 0,
    "max_attempts": 1,
    "owner": None,
    "created_at": "2026-11-24T09:30:00.125Z",
    "run_at": None,
    "started_at": None,
    "finished_at": None,
    "progress": None,
    "error": None,
    "links": {
        "self": f"/jobs/{EXAMPLE_ID}",
        "result": f"/jobs/{EXAMPLE_ID}/result",
        "attempts": f"/jobs/{EXAMPLE_ID}/attempts",
        "logs": f"/jobs/{EXAMPLE_ID}/logs",
        "events": f"/jobs/{EXAMPLE_ID}/events",
        "cancel": f"/jobs/{EXAMPLE_ID}",
    },
}


class JobObject(_Out):
    """A job as it is now."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_JOB]})

    id: str
    task: str
    queue: str
    priority: int
    state: JobState
    attempt: int = Field(description="How often it has begun to run.")
    max_attempts: int
    owner: str | None = Field(description="Whose it is: the caller that submitted it, if known.")
    created_at: Annotated[AwareDatetime, Field(description="RFC 3339, UTC, with milliseconds.")]
    run_at: Time = Field(description="Not before then; null: as soon as possible.")
    started_at: Time
    finished_at: Time
    progress: ProgressObject | None
    error: JobErrorObject | None
    links: JobLinks


EXAMPLE_ATTEMPT: dict[str, JsonValue] = {
    "number": 1,
    "outcome": "exception",
    "error": {
        "kind": "exception",
        "type": "ConnectionError",
        "message": "the harbour office does not answer",
        "traceback": "Traceback (most recent call last):\n…",
    },
    "worker": "4711-8f14e45fceea167a",
    "pid": 4720,
    "started_at": "2026-11-24T09:30:00.140Z",
    "finished_at": "2026-11-24T09:30:02.310Z",
    "max_rss": 38_273_024,
    "cpu": 0.084,
    "signal": None,
    "log_bytes": 512,
}


class AttemptObject(_Out):
    """One run of a job that has ended. What its process could not say any more is null."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_ATTEMPT]})

    number: int = Field(
        description="From 1. After a shutdown, whose attempt is not spent, it comes again."
    )
    outcome: AttemptEnd
    error: JobErrorObject | None
    worker: str = Field(description="The service process that ran it.")
    pid: int | None = Field(description="Of the process it ran in.")
    started_at: Time
    finished_at: Annotated[AwareDatetime, Field(description="RFC 3339, UTC, with milliseconds.")]
    max_rss: int | None = Field(description="Bytes, the most that its process had in memory.")
    cpu: float | None = Field(description="Seconds of processor time.")
    signal: str | None = Field(description="That ended the process, such as SIGKILL.")
    log_bytes: int = Field(description="How much it wrote: see `/jobs/<id>/logs?attempt=<number>`.")


class AttemptList(_Out):
    """The attempts of a job that have ended, oldest first."""

    attempts: list[AttemptObject]


class LogObject(_Out):
    """What the attempts of one number wrote."""

    attempt: int
    text: str


class LogList(_Out):
    """What the attempts that have ended wrote, oldest first."""

    logs: list[LogObject]


EXAMPLE_EVENT: dict[str, JsonValue] = {
    "job": EXAMPLE_ID,
    "task": "text.stats",
    "queue": "default",
    "at": "2026-11-24T09:30:02.310Z",
    "attempt": 1,
    "progress": {"done": 3, "total": 10, "message": "chapter three"},
}


class EventObject(_Out):
    """The `data` of one event; which members there are depends on its kind."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_EVENT]})

    job: str = Field(description="The job's id.")
    task: str
    queue: str
    at: Annotated[AwareDatetime, Field(description="RFC 3339, UTC, with milliseconds.")]
    attempt: int | None = Field(None, description="Of started, progress, log and attempt_ended.")
    progress: ProgressObject | None = Field(None, description="Of progress.")
    text: str | None = Field(
        None, description="Of log: whole lines; at the end of an attempt, the rest."
    )
    outcome: AttemptEnd | None = Field(None, description="Of attempt_ended.")
    state: JobState | None = Field(None, description="Of finished.")
    error: JobErrorObject | None = Field(None, description="Of attempt_ended and finished.")


class ListLinks(_Out):
    """Where a list goes on."""

    next: str | None = Field(description="The page of older jobs; null at the end.")


class JobList(_Out):
    """A page of jobs, newest first."""

    jobs: list[JobObject]
    links: ListLinks


class JobBatch(_Out):
    """The jobs of a batch, in the order they were sent."""

    jobs: list[JobObject]


class JobAgain(JobObject):
    """A job that runs again."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**EXAMPLE_JOB, "context": "deleted"}]}
    )

    context: Literal["deleted"] | None = Field(
        description="`deleted`: it was first submitted with a request, whose headers and values are no longer kept;"
        " it runs without them. null: it never had any."
    )


class BulkResult(_Out):
    """What became of many jobs."""

    matched: int = Field(description="How many jobs were meant, up to `limit`.")
    changed: int = Field(
        description="How many of them were changed; the others had changed meanwhile, or had been asked before."
    )
    more: bool = Field(description="Whether more jobs match than `limit`.")
    dry_run: bool = Field(description="Whether nothing was changed because the request said so.")


class TaskLinks(_Out):
    """Where to go on from a task."""

    self: str
    submit: str = Field(description="POST the arguments there.")


class TaskObject(_Out):
    """A task that can be run."""

    name: str
    description: str
    queue: str
    priority: int
    timeout: float | None = Field(description="Seconds that one attempt may take.")
    max_attempts: int
    links: TaskLinks


class TaskList(_Out):
    """The tasks that can be run."""

    tasks: list[TaskObject]


class TaskDetail(TaskObject):
    """A task, with the JSON Schemas (2020-12) of its arguments and its result."""

    arguments: dict[str, JsonValue]
    result: dict[str, JsonValue]


class Health(_Out):
    """The service answers."""

    status: str = Field(examples=["ok"])


class WorkerObject(_Out):
    """A process that has the jobs open."""

    name: str = Field(description="As in the `worker` of an attempt.")
    release: str = Field(description="Of quart-jobs.")
    schema_version: int = Field(description="The newest that it knows.")
    engine: str
    lanes: int = Field(description="How many jobs it runs at one time; 0: it runs none.")
    host: str
    pid: int
    opened_at: Time
    tasks: list[str]


class WorkerList(_Out):
    """Who shares the jobs, and whether they fit together."""

    release: str = Field(description="Of the process that answers.")
    schema_version: int = Field(description="Of the database.")
    workers: list[WorkerObject]
    problems: list[str] = Field(description="What does not fit, in words; none: all is well.")


class ProblemItem(_Out):
    """One wrong value."""

    pointer: str = Field(description="A JSON pointer into the body, or /query/<name>.")
    detail: str


class ProblemObject(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="Which kind of problem; its address explains it.")
    title: str
    status: int
    detail: str
    instance: str = Field(description="The path that was asked for.")
    errors: list[ProblemItem] | None = Field(None, description="Each wrong value.")
    state: JobState | None = Field(None, description="The job's state, where that is the problem.")
    error: JobErrorObject | None = Field(None, description="Why the job has no result.")
