"""Between rows and jobs: by position, and what is stored as JSON text stays text."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any

from jobs.model import ErrorKind, Job, JobError, JobState

_STATES = {state.value: state for state in JobState}


def error_to_text(error: JobError | None) -> str | None:
    """As stored: ASCII, so that whatever an exception said can be kept."""
    if error is None:
        return None
    return json.dumps(
        {
            "kind": error.kind,
            "type": error.type,
            "message": error.message,
            "traceback": error.traceback,
        }
    )


def _error(text: str | None) -> JobError | None:
    if text is None:
        return None
    stored = json.loads(text)
    return JobError(
        ErrorKind(stored["kind"]), stored["type"], stored["message"], stored["traceback"]
    )


def shown(state: str, attempt: int) -> JobState:
    """The state as users see it."""
    if attempt and state == "PENDING":
        return JobState.RETRY
    return _STATES[state]


def _builder(*names: str) -> Callable[[Iterable[Any]], Job]:
    """Makes jobs of these fields' values, in this order; the others have their defaults.

    Past `Job.__init__`, which a frozen class pays for dearly: a claim builds hundreds."""
    given = [getattr(Job, name).__set__ for name in names]
    rest = [(getattr(Job, f.name).__set__, f.default) for f in fields(Job) if f.name not in names]

    def build(values: Iterable[Any]) -> Job:
        job = object.__new__(Job)
        for put, value in zip(given, values, strict=True):
            put(job, value)
        for put, value in rest:
            put(job, value)
        return job

    return build


_SUBMITTED = (
    *("seq", "id", "task", "queue", "priority", "max_attempts", "timeout", "created_at", "run_at"),
    *("expires_at", "origin", "attempt", "crashes", "lost", "progress"),
)
_HAPPENED = ("started_at", "finished_at", "claimed_by", "cancel_requested_at")

_build_listed = _builder(*_SUBMITTED, *_HAPPENED, "stored_state", "error")
_build_whole = _builder(*_SUBMITTED, *_HAPPENED, "args", "result", "stored_state", "error")
_build_claimed = _builder(
    *_SUBMITTED, "args", "context", "error", "stored_state", "claimed_by", "started_at"
)


def listed(row: Sequence[Any]) -> Job:
    """A job from a row of `find`."""
    *values, state, error = row
    return _build_listed((*values, _STATES[state], _error(error)))


def whole(row: Sequence[Any]) -> Job:
    """A job from a row of `get`."""
    *values, state, error = row
    return _build_whole((*values, _STATES[state], _error(error)))


def claimed(row: Sequence[Any], claimant: str, now: int) -> Job:
    """A job from a row of `claimable`, as `claim` then leaves it."""
    *values, error = row
    return _build_claimed((*values, _error(error), JobState.STARTED, claimant, now))
