"""What becomes of an invocation, from what its child said last or from how that child died."""

from signal import SIGKILL, Signals

from jobs import wire
from jobs.child import LOST
from jobs.failures import interrupted
from jobs.model import ErrorKind, JobError, JobState, Outcome, Usage, now_ms
from jobs.protocols import Interrupt

from .flights import Flight


def told(flight: Flight, kind: int, at: int, usage: Usage, rest: bytes) -> Outcome:
    """By the child's last frame about it, which says `at` what time it ended (ms), and the `rest`."""
    if kind == wire.STOPPED:
        return _outcome(flight, JobState.PENDING, at, usage=usage)
    if kind == wire.SUCCESS:
        return _outcome(flight, JobState.SUCCESS, at, result=rest.decode(), usage=usage)
    error, final, again_in = wire.failure_from_json(rest)
    state = JobState.REVOKED if error.kind is ErrorKind.CANCELLED else JobState.FAILURE
    ended = _outcome(flight, state, at, error=error, usage=usage)
    return ended._replace(final=final, again_in=again_in)


def died_with(
    flight: Flight, code: int | None, *, killed: bool, because: str, starved: bool
) -> Outcome:
    """By the death of its child: with that exit code, and `killed` by us, if not for the job's own sake
    then `because` of something else; `starved`: the kernel has killed for want of memory meanwhile."""
    number = -code if code is not None and code < 0 else None
    if flight.why is Interrupt.SHUTDOWN:
        return _outcome(flight, JobState.PENDING, now_ms(), signal=number)
    if flight.why is not None:
        state = JobState.REVOKED if flight.why is Interrupt.CANCEL else JobState.FAILURE
        error = interrupted(flight.why, flight.invocation, killed=True)
        return _outcome(flight, state, now_ms(), error=error, signal=number)
    if flight.spared:
        message = (
            "the process that all of the service's children come from was killed; it runs again"
        )
        error = JobError(ErrorKind.LOST, "Lost", message)
        ended = _outcome(flight, JobState.FAILURE, now_ms(), error=error, signal=number)
        return ended.again(now_ms())
    how = because or exit_in_words(code)
    if number == SIGKILL and not killed:
        how += " because memory ran out" if starved else " (by whom is not known)"
    elif flight.cap is not None and not because:
        how += f", perhaps at its memory cap (max_memory_mb={flight.invocation.max_memory_mb}),"
    error = JobError(ErrorKind.CRASH, "Crash", f"the job's process {how} while it ran the job")
    return _outcome(flight, JobState.FAILURE, now_ms(), error=error, signal=number)


def exit_in_words(code: int | None) -> str:
    """How a process ended, from its exit code."""
    if code is None or code == 255:  # what multiprocessing says when the forkserver died
        return "ended, nobody saw how,"
    if code == LOST:
        return "lost its channel to the service (a job may close only what it has opened)"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _outcome(
    flight: Flight,
    state: JobState,
    finished_at: int,
    *,
    result: str | None = None,
    error: JobError | None = None,
    usage: Usage | None = None,
    signal: int | None = None,
) -> Outcome:
    of = flight.invocation
    return Outcome(
        of.job_id,
        of.attempt,
        state,
        result,
        error,
        flight.started_at,
        finished_at,
        pid=flight.pid,
        usage=usage,
        signal=signal,
        log=flight.log,
    )
