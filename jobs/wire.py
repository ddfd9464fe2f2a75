"""What crosses between the service and a child process, as bytes.

A batch of invocations goes down in one piece: a JSON head, then arguments and sealed contexts as they
lie in the store, so that nobody parses what he only passes on. Everything else is a frame: kind,
serial number, length, payload. A lane numbers its invocations from 1, in the order they run.
"""

import json
import struct
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final

from . import errors
from .model import (
    AttemptEnd,
    AttemptRecord,
    ErrorKind,
    Invocation,
    Job,
    JobError,
    JobId,
    JobState,
)

# From the child. Payloads:
STARTED: Final = 1  #: `WHEN`
SUCCESS: Final = 2  #: `ENDED`, then the result's JSON
FAILURE: Final = 3  #: `ENDED`, then the JSON of the error and of whether it is tried again
STOPPED: Final = 4  #: `ENDED`: stopped by a shutdown, to be given back
DROPPED: Final = 5  #: JSON list of the serials that will not run
CALL: Final = 6  #: JSON of the verb's name, a line feed, the body; the serial is the call's own
MARKING: Final = 7  #: the job is over, and the mark about to be written behind its output
RETIRE: Final = (
    8  #: JSON of a `Retirement`: it ends here, and what it has not begun is to run elsewhere
)
PROGRESS: Final = 9  #: JSON text; the next one only after `HEARD`
# To the child.
INTERRUPT: Final = 16  #: why, as `Interrupt` spells it
WITHDRAW: Final = 17  #: JSON list of serials to drop if they have not begun
REPLY: Final = 18  #: the answer to the call of that serial

HEARD: Final = 19  #: the progress of the job with that serial

WHEN: Final = struct.Struct("!Q")  #: wall clock, ms
ENDED: Final = struct.Struct("!QddQ?")
"""Wall clock, ms; seconds the run took; its CPU seconds; its peak of memory, bytes; whether there is
output that may not have been read yet, and the mark behind it."""

_HEAD = struct.Struct("!BII")
_LENGTH = struct.Struct("!I")
_SLACK = 16_777_216  #: above the largest result: room for calls, tracebacks and JSON's escapes


class BrokenFrame(errors.JobsError):
    """The other side of a channel sent what no lane sends."""


def frame_limit(max_result_bytes: int) -> int:
    """The longest payload either side takes, in bytes."""
    return max_result_bytes + _SLACK


def frame(kind: int, serial: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return _HEAD.pack(kind, serial, len(payload)) + payload


class FrameReader:
    """Cuts a byte stream into frames."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._have = 0
        self._need = _HEAD.size

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """The frames that `data` completes, as (kind, serial, payload). Raises `BrokenFrame`."""
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []  # a large frame arrives in many pieces, to be joined once
            data = b"".join(self._parts)
            self._parts = []
        found = []
        at, end, size = 0, len(data), _HEAD.size
        self._need = size
        while end - at >= size:
            kind, serial, length = _HEAD.unpack_from(data, at)
            if length > self._limit:
                raise BrokenFrame(f"a frame of {length} bytes; at most {self._limit} are allowed")
            stop = at + size + length
            if stop > end:
                self._need = size + length
                break
            found.append((kind, serial, data[at + size : stop]))
            at = stop
        if at < end:
            self._parts = [data[at:]]
            self._have = end - at
        return found


def pack_batch(first: int, invocations: Sequence[Invocation]) -> bytes:
    """Invocations with the serial numbers from `first` on."""
    head: list[Any] = [first]
    blobs = []
    for each in invocations:
        args = each.args.encode()
        blobs.append(args)
        context = -1
        if each.context is not None:
            blobs.append(each.context)
            context = len(each.context)
        head.append(
            [
                each.job_id,
                each.attempt,
                each.task,
                each.timeout,
                each.max_attempts,
                each.fresh,
                each.max_memory_mb,
                each.owner,
                len(args),
                context,
            ]
        )
    written = json.dumps(head, separators=(",", ":")).encode()
    return b"".join([_LENGTH.pack(len(written)), written, *blobs])


def unpack_batch(data: bytes) -> list[tuple[int, Invocation]]:
    """What `pack_batch` packed, each with its serial number."""
    at = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    serial, *rows = json.loads(data[_LENGTH.size : at])
    batch = []
    for *row, args_length, context_length in rows:
        job_id, attempt, task, timeout, max_attempts, fresh, max_memory_mb, owner = row
        args = data[at : at + args_length].decode()
        at += args_length
        context = None
        if context_length >= 0:
            context = data[at : at + context_length]
            at += context_length
        invocation = Invocation(
            job_id, attempt, task, args, context, timeout, max_attempts, fresh, max_memory_mb, owner
        )
        batch.append((serial, invocation))
        serial += 1
    return batch


def failure_to_json(error: JobError, final: bool, again_in: float | None) -> bytes:
    """An error, and what the child makes of it: see `Outcome.final` and `Outcome.again_in`."""
    return json.dumps([_error_to_list(error), final, again_in]).encode()


def failure_from_json(text: bytes) -> tuple[JobError, bool, float | None]:
    """What `failure_to_json` wrote."""
    error, final, again_in = json.loads(text)
    return _error_from_list(error), final, again_in


def error_to_json(error: JobError) -> bytes:
    """An error as JSON."""
    return json.dumps(_error_to_list(error)).encode()


def error_from_json(text: bytes) -> JobError:
    """What `error_to_json` wrote."""
    return _error_from_list(json.loads(text))


def _error_to_list(error: JobError) -> list[str | None]:
    return [error.kind, error.type, error.message, error.traceback]


def _error_from_list(values: Sequence[Any]) -> JobError:
    kind, name, message, traceback = values
    return JobError(ErrorKind(kind), name, message, traceback)


# --- calls: a running job asks its service


def jobs_to_json(jobs: Sequence[Job]) -> bytes:
    """Jobs as a JSON array."""
    return json.dumps([job_to_dict(job) for job in jobs]).encode()


def jobs_from_json(text: bytes) -> list[Job]:
    """What `jobs_to_json` wrote."""
    return [job_from_dict(each) for each in json.loads(text)]


def job_to_dict(job: Job) -> dict[str, Any]:
    """A job as JSON values; what is None is left out."""
    values = {name: value for name, value in job._asdict().items() if value is not None}
    if job.context is not None:
        values["context"] = b64encode(job.context).decode()
    if job.error is not None:
        values["error"] = error_to_json(job.error).decode()
    return values


def job_from_dict(values: Mapping[str, Any]) -> Job:
    """What `job_to_dict` wrote."""
    made = dict(values)
    made["stored_state"] = JobState(made["stored_state"])
    if "context" in made:
        made["context"] = b64decode(made["context"])
    if "error" in made:
        made["error"] = error_from_json(made["error"].encode())
    return Job(**made)


def attempt_to_list(attempt: AttemptRecord) -> list[Any]:
    """An attempt as JSON values."""
    number, end, error, *rest = attempt
    return [number, end, None if error is None else _error_to_list(error), *rest]


def attempt_from_list(values: Sequence[Any]) -> AttemptRecord:
    """What `attempt_to_list` wrote."""
    number, end, error, *rest = values
    return AttemptRecord._make(
        (number, AttemptEnd(end), None if error is None else _error_from_list(error), *rest)
    )


def id_to_json(job_id: JobId) -> bytes:
    """A job's id as a JSON string."""
    return json.dumps(job_id).encode()


def id_from_json(text: bytes) -> JobId:
    """What `id_to_json` wrote."""
    return JobId(json.loads(text))


def answer(value: Any) -> bytes:
    """The reply to a call that went well."""
    return json.dumps({"ok": value}).encode()


def refusal(error: BaseException) -> bytes:
    """The reply to a call that failed."""
    about = error.job_id if isinstance(error, errors.JobNotFound) else str(error)
    return json.dumps({"error": [type(error).__name__, about]}).encode()


def open_reply(reply: bytes) -> Any:
    """The value of an `answer`; raises what a `refusal` tells of, as the class it had if that is one of
    this package's."""
    content = json.loads(reply)
    if "error" not in content:
        return content["ok"]
    name, about = content["error"]
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, errors.StoreError | errors.JobNotFound):
        raise kind(about)
    raise errors.JobsError(f"{name}: {about}")
