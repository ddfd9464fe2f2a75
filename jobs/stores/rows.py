"""Between rows and jobs: by position, and what is stored as JSON text stays text."""

import json
from collections.abc import Sequence
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


def error_from_text(text: str | None) -> JobError | None:
    """What `error_to_text` wrote."""
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


_STATE, _ERROR = Job._fields.index("stored_state"), Job._fields.index("error")


def to_job(row: Sequence[Any]) -> Job:
    """A job from a row whose columns are the fields of `Job`, in their order."""
    values = list(row)
    values[_STATE] = _STATES[values[_STATE]]
    values[_ERROR] = error_from_text(values[_ERROR])
    return Job._make(values)
