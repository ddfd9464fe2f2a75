"""From a task, its arguments and the caller's wishes to the job that will be kept."""

import json
import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import InvalidArguments, Problem
from .idempotency import IdempotencyKey
from .model import Job, new_job_id, now_ms, size_of
from .sealed import pack

if TYPE_CHECKING:
    from .registry import Task
    from .sealing import Sealer

QUEUE_PATTERN = r"^[A-Za-z0-9_.-]{1,64}$"
MAX_PRIORITY = 1000  #: and the least is its negative
MAX_ATTEMPTS = 100
MAX_SECONDS = 10 * 366 * 86_400.0  #: ten years: what any delay, expiry or timeout may be

_queue = re.compile(QUEUE_PATTERN, re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a caller may wish for one job; None leaves it to the task.

    `countdown` and `timeout` are seconds, `eta` an aware datetime, `expires` either.
    Raises `InvalidArguments` whose pointers name the option.
    """

    queue: str | None = None
    priority: int | None = None
    countdown: float | None = None
    eta: datetime | None = None
    expires: float | datetime | None = None
    timeout: float | None = None
    max_attempts: int | None = None

    def __post_init__(self) -> None:
        problems = [
            Problem(f"/{name}", wrong)
            for name, check in _CHECKS.items()
            if (value := getattr(self, name)) is not None and (wrong := check(value))
        ]
        if self.countdown is not None and self.eta is not None:
            problems.append(Problem("/eta", "give either countdown or eta, not both"))
        if problems:
            raise InvalidArguments(problems)


def seconds(value: Any) -> str:
    """What is wrong with a number of seconds; empty if nothing is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "must be a number of seconds"
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a number of seconds"
    if not 0 <= value <= MAX_SECONDS:
        return f"must be from 0 to {MAX_SECONDS:.0f} seconds"
    return ""


def _moment(value: Any) -> str:
    if not isinstance(value, datetime):
        return "must be a datetime"
    if value.utcoffset() is None:
        return "must say its UTC offset (a naive datetime could mean any moment)"
    return ""


def _whole(low: int, high: int) -> Any:
    def check(value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            return f"must be a whole number from {low} to {high}"
        return ""

    return check


whole_attempts = _whole(1, MAX_ATTEMPTS)
"""What is wrong with a number of attempts; empty if nothing is."""

_CHECKS = {
    "queue": lambda value: (
        "" if isinstance(value, str) and _queue.fullmatch(value) else f"must match {QUEUE_PATTERN}"
    ),
    "priority": _whole(-MAX_PRIORITY, MAX_PRIORITY),
    "countdown": seconds,
    "eta": _moment,
    "expires": lambda value: _moment(value) if isinstance(value, datetime) else seconds(value),
    "timeout": lambda value: seconds(value) or ("" if value > 0 else "must be more than 0"),
    "max_attempts": whole_attempts,
}

NO_OPTIONS = Options()


def check_size(args: str, most: int) -> None:
    """Raise `InvalidArguments` if the JSON is more than `most` bytes."""
    if (size := size_of(args)) > most:
        raise InvalidArguments(
            [Problem("", f"is {size} bytes of JSON; at most {most} fit (setting: max_args_bytes)")]
        )


def new_job(
    task: "Task[..., Any]",
    args: str,
    options: Options,
    *,
    snapshot: bytes | None,
    origin: str | None,
    sealer: "Sealer",
    key: IdempotencyKey | None = None,
    owner: str | None = None,
) -> Job:
    """The job to keep. `args` is the task's canonical JSON, `snapshot` the request snapshot's JSON; that
    and the secret arguments are sealed here, for this job's id alone. With a `key` the id is made of that."""
    job_id, now = new_job_id() if key is None else key.job_id(), now_ms()
    if task.has_secrets:
        args, secrets = task.split(args)
        snapshot = pack(snapshot, secrets)
    context = None if snapshot is None else sealer.seal(job_id, snapshot)
    if options is NO_OPTIONS and key is None:
        return Job(
            id=job_id,
            task=task.name,
            args=args,
            queue=task.queue,
            priority=task.priority,
            max_attempts=task.retry.max_attempts,
            timeout=task.timeout,
            created_at=now,
            context=context,
            origin=origin,
            owner=owner,
        )
    return Job(
        id=job_id,
        task=task.name,
        args=args,
        queue=_first(options.queue, task.queue),
        priority=_first(options.priority, task.priority),
        max_attempts=_first(options.max_attempts, task.retry.max_attempts),
        timeout=_first(options.timeout, task.timeout),
        created_at=now,
        run_at=_at(_first(options.eta, options.countdown), now),
        expires_at=_at(options.expires, now),
        context=context,
        origin=origin,
        owner=owner,
        idempotency_key=None if key is None else key.text,
        fingerprint=None if key is None else key.fingerprint,
    )


class Submission(NamedTuple):
    """What is asked for: a task, its arguments as canonical JSON, and wishes."""

    task: "Task[..., Any]"
    args: str
    options: Options = NO_OPTIONS


def same_again(job: Job, key: IdempotencyKey | None = None) -> Job:
    """A new job with the task, arguments and options of this one; when it was to run is not repeated. The
    request that `job` came with is not kept for as long, so there is none: `origin` says so."""
    origin = {"rerun_of": job.id}
    if job.origin is not None:
        origin |= json.loads(job.origin) | {"context": "deleted"} | origin
    return Job(
        id=new_job_id() if key is None else key.job_id(),
        task=job.task,
        args=job.args,
        queue=job.queue,
        priority=job.priority,
        max_attempts=job.max_attempts,
        timeout=job.timeout,
        created_at=now_ms(),
        origin=json.dumps(origin),
        owner=job.owner,
        idempotency_key=None if key is None else key.text,
        fingerprint=None if key is None else key.fingerprint,
    )


def _first(wish: Any, default: Any) -> Any:
    return default if wish is None else wish


def _at(moment: datetime | float | None, now: int) -> int | None:
    """Milliseconds since the epoch; a moment that has already come still counts as one."""
    if moment is None:
        return None
    if isinstance(moment, datetime):
        return round(moment.timestamp() * 1000)
    return now + round(moment * 1000)
