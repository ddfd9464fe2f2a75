"""What becomes of an invocation, from what its child said last or from how that child died."""

import signal

from jobs import wire
from jobs.child import LOST
from jobs.failures import interrupted
from jobs.model import ErrorKind, JobError, JobState, Outcome, now_ms
from jobs.protocols import Interrupt, Withdrawn

from .flights import Flight


def told(flight: Flight, kind: int, payload: bytes) -> tuple[Outcome | Withdrawn, float]:
    """By the child's last frame about it; and how many seconds the run took."""
    finished_at, took = wire.ENDED.unpack_from(payload)
    rest = payload[wire.ENDED.size :]
    if kind == wire.STOPPED:
        return Withdrawn((flight.invocation,)), took
    if kind == wire.SUCCESS:
        return _outcome(flight, JobState.SUCCESS, finished_at, result=rest.decode()), took
    error = wire.error_from_json(rest)
    state = JobState.REVOKED if error.kind is ErrorKind.CANCELLED else JobState.FAILURE
    return _outcome(flight, state, finished_at, error=error), took


def died_with(
    flight: Flight, code: int | None, *, killed: bool, because: str
) -> Outcome | Withdrawn:
    """By the death of its child: with that exit code, and `killed` by us, if not for the job's own sake
    then `because` of something else."""
    if flight.why is Interrupt.SHUTDOWN:
        return Withdrawn((flight.invocation,))
    if flight.why is not None:
        state = JobState.REVOKED if flight.why is Interrupt.CANCEL else JobState.FAILURE
        error = interrupted(flight.why, flight.invocation, killed=True)
        return _outcome(flight, state, now_ms(), error=error)
    if flight.spared:
        message = (
            "the process that all of the service's children come from was killed; it runs again"
        )
        error = JobError(ErrorKind.LOST, "Lost", message)
        return _outcome(flight, JobState.FAILURE, now_ms(), error=error).again(now_ms())
    how = because or exit_in_words(code)
    if code == -signal.SIGKILL and not killed:
        how += ", possibly because memory ran out,"
    error = JobError(ErrorKind.CRASH, "Crash", f"the job's process {how} while it ran the job")
    return _outcome(flight, JobState.FAILURE, now_ms(), error=error)


def exit_in_words(code: int | None) -> str:
    """How a process ended, from its exit code."""
    if code is None or code == 255:  # what multiprocessing says when the forkserver died
        return "ended, nobody saw how,"
    if code == LOST:
        return "lost its channel to the service (a job may close only what it has opened)"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _outcome(
    flight: Flight,
    state: JobState,
    finished_at: int,
    *,
    result: str | None = None,
    error: JobError | None = None,
) -> Outcome:
    of = flight.invocation
    return Outcome(of.job_id, of.attempt, state, result, error, flight.started_at, finished_at)
