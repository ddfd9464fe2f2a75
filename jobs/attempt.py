"""One run of a job, as its runner sees it: how far it is, whether it is to stop, how it ended."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from .current import CurrentJob
from .failures import failure, interrupted, traceback
from .model import ErrorKind, Invocation, JobError, JobState, Outcome, now_ms
from .progress import ProgressNote
from .protocols import Interrupt
from .registry import Task
from .retry import ONCE, Reject, Retry
from .snapshot import RequestSnapshot


class Attempt:
    """The state of one run.

    `kind` is what a failure at this point would be. `why` is set when it is asked to stop, `delivered`
    when its code has been made to notice, `noticed` when it has asked; only then does a failure count as
    being stopped.
    """

    task: Task[..., Any]
    policy = ONCE
    args: str
    original: bytes | None = None
    snapshot: RequestSnapshot | None = None
    kind = ErrorKind.EXCEPTION
    error: JobError | None = None
    why: Interrupt | None = None
    delivered = False
    noticed = False
    final = False
    again_in: float | None = None
    in_sync_code = False
    loop_task: asyncio.Task[Outcome] | None = None
    cancellable = False

    def __init__(
        self, invocation: Invocation, told: Callable[[str, ProgressNote], None] | None = None
    ) -> None:
        self.invocation, self.args, self.told = invocation, invocation.args, told
        self.started_at = now_ms()

    @property
    def current(self) -> CurrentJob:
        """What `current_job` is while it runs."""
        of = self.invocation
        return CurrentJob(
            of.job_id, of.task, of.attempt, of.max_attempts, self.is_stopping, of.owner, self.told
        )

    def is_stopping(self) -> bool:
        """Tell the job's code, in whatever thread, whether it is to stop."""
        if self.why is None:
            return False
        self.noticed = True
        return True

    @property
    def stopped(self) -> Interrupt | None:
        """Why it is to stop, if its code knows."""
        return self.why if self.delivered or self.noticed else None

    def cancel(self) -> None:
        """Cancel async code, if that is where it is. Called on the loop of `loop_task`."""
        if self.cancellable and self.loop_task is not None and not self.delivered:
            self.delivered = True
            self.loop_task.cancel()

    def note(self, error: BaseException) -> None:
        """Remember why it fails: what came first counts."""
        if self.error is not None:
            return
        why = self.stopped
        if why is not None:
            self.error = interrupted(why, self.invocation, killed=False, trace=traceback(error))
        else:
            self.error = failure(error, self.kind)
        with contextlib.suppress(Exception):  # classes are user code, even in this
            self._judge(error, self.error.kind)

    def _judge(self, error: BaseException, kind: ErrorKind) -> None:
        """Whether it may be tried again: only here is the exception more than its name."""
        if isinstance(error, Retry):
            self.again_in = error.delay(self.policy.delay(self.invocation.attempt))
        elif isinstance(error, Reject):
            self.final = True
        elif kind is ErrorKind.EXCEPTION:
            self.final = not self.policy.covers(type(error))

    def succeeded(self, result: str) -> Outcome:
        """It ended with this result (JSON text)."""
        return self._outcome(JobState.SUCCESS, result=result)

    def failed(self, error: BaseException) -> Outcome:
        """It ended with this exception."""
        self.note(error)
        if self.stopped is Interrupt.SHUTDOWN:
            return self._outcome(JobState.PENDING)
        revoked = self.error is not None and self.error.kind is ErrorKind.CANCELLED
        ended = self._outcome(JobState.REVOKED if revoked else JobState.FAILURE, error=self.error)
        return ended._replace(final=self.final, again_in=self.again_in)

    def _outcome(
        self, state: JobState, *, result: str | None = None, error: JobError | None = None
    ) -> Outcome:
        of = self.invocation
        return Outcome(of.job_id, of.attempt, state, result, error, self.started_at, now_ms())


def caught(call: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """Make the call; what it returned or raised comes of calling the result."""
    try:
        value = call(*args)
    except BaseException as raised:  # noqa: BLE001 - it is only put off
        error = raised

        def fail() -> Any:
            raise error

        return fail
    return lambda: value


async def in_thread(call: Callable[[], Any]) -> Any:
    """Like `asyncio.to_thread`, but the process can exit while the thread still runs."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Callable[[], Any]] = loop.create_future()
    context = copy_context()

    def finish(ending: Callable[[], Any]) -> None:
        if not done.done():
            done.set_result(ending)

    def run() -> None:
        ending = caught(context.run, call)
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(finish, ending)

    threading.Thread(target=run, name="jobs inline", daemon=True).start()
    return (await done)()
