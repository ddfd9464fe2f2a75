"""Between rows and what they mean, for every store: by position, and what is stored as JSON text stays text."""

import json
from collections.abc import Sequence
from typing import Any

from jobs.keys import ApiKey, Scope
from jobs.model import (
    AttemptEnd,
    AttemptRecord,
    ErrorKind,
    Job,
    JobError,
    JobState,
    Outcome,
)

_STATES = {state.value: state for state in JobState}
_ENDS = {end.value: end for end in AttemptEnd}


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


def counted(error: JobError | None) -> tuple[int, int]:
    """How much an error adds to `crashes` and to `lost`."""
    if error is None:
        return 0, 0
    return int(error.kind is ErrorKind.CRASH), int(error.kind is ErrorKind.LOST)


def attempt_end(outcome: Outcome) -> str:
    """What the row of an attempt calls its end."""
    if outcome.error is not None:
        return outcome.error.kind
    return AttemptEnd.SUCCESS if outcome.state is JobState.SUCCESS else AttemptEnd.SHUTDOWN


def to_record(values: Sequence[Any]) -> AttemptRecord:
    """What is shown of a row whose columns are the fields of `AttemptRecord`, in their order."""
    number, end, error, *rest, log_bytes = values
    return AttemptRecord._make((number, _ENDS[end], error_from_text(error), *rest, log_bytes or 0))


def to_key(values: Sequence[Any]) -> ApiKey:
    """The key of a row of `keys`."""
    key_id, sha256, name, owner, scopes, created_at, expires_at, revoked_at = values
    return ApiKey(
        id=key_id,
        sha256=sha256,
        name=name,
        owner=owner,
        scopes=frozenset(map(Scope, json.loads(scopes))),
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
    )
