"""The worker's end: a pool for Celery's worker whose processes are our lanes.

Celery consumes, acknowledges, and answers `celery inspect` and Flower. What a message asks for is claimed in
the store and run in a lane, as `quart-jobs worker` does it: context, limits, log, cancel, and the death of
a child are the lanes' and the dispatcher's business, and none of it is written twice.
"""

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import Terminated
from celery.concurrency.base import BasePool, apply_target
from celery.exceptions import Ignore, Retry
from celery.utils.log import get_logger

from jobs.errors import JobsError
from jobs.extension import Jobs
from jobs.model import JobError, JobId, JobState, Outcome
from jobs.protocols import Store

from .app import HEADER, Announcement, BadMessage, read
from .claims import ClaimsByMessage, Request

log = get_logger("jobs.celery")


class AttemptFailed(Exception):
    """What Celery, and who watches it, is told of an attempt that did not succeed."""


class LanePool(BasePool):  # type: ignore[misc]
    """Celery's worker makes one, of `limit` lanes. The app's `jobs` attribute is the `Jobs` to open."""

    signal_safe = False
    body_can_be_buffer = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._jobs: Jobs = self.app.jobs
        self._claims: ClaimsByMessage | None = None
        # What ends is told to Celery in Celery's thread, woken by a reader: what one callback of its event loop
        # asks of it by `call_soon`, such as to acknowledge, waits for the next event.
        self._has_loop = False
        self._bell, self._rope = socket.socketpair()
        self._bell.setblocking(False)
        self._rope.setblocking(False)
        self._under_way: set[_UnderWay] = set()
        self._cancels: set[asyncio.Future[None]] = set()
        self._told: deque[Callable[[], None]] = deque()

    def on_start(self) -> None:
        """Open store and lanes. Raises `SystemExit` if they cannot be."""
        os.environ["JOBS_LANES"] = str(self.limit)
        self._jobs.claims = self._wrap
        try:
            self._jobs.__enter__()
        except JobsError as error:
            log.critical("quart-jobs: %s", error)  # anything else Celery logs with all its frames
            raise SystemExit(1) from error
        self.app.jobs_pool = self

    def _wrap(self, store: Store) -> Any:
        self._claims = ClaimsByMessage(store)
        return self._claims

    def on_stop(self) -> None:
        """Let running jobs finish within the grace, stop the others, and close."""
        if self._jobs.is_open:
            self._jobs.__exit__()
        self._tell_all()

    on_terminate = on_stop

    def register_with_event_loop(self, loop: Any) -> None:
        """Celery has connected, perhaps not for the first time."""
        self._has_loop = True
        loop.add_reader(self._bell, self._tell_all)
        self._tell_all()

    def on_apply(
        self,
        target: Callable[..., Any],
        args: Any = (),
        kwargs: Any = None,
        *,
        accept_callback: Callable[..., Any],
        callback: Callable[..., Any],
        **options: Any,
    ) -> Any:
        """Run what a message asks for; one of Celery's own tasks at once."""
        name, task_id, headers = args[:3]
        if HEADER not in headers:
            return apply_target(
                target, args, kwargs, callback=callback, accept_callback=accept_callback
            )
        accept_callback(os.getpid(), time.monotonic())
        try:
            wanted = read(headers[HEADER], headers.get("args"))
        except BadMessage as error:
            log.error("a message for task %s[%s] is not acted on: %s", name, task_id, error)
            return callback(_failed(Ignore(), 0.0))
        return self.take(wanted, name, callback)

    def take(self, wanted: Announcement, name: str, callback: Callable[[Any], None]) -> "_UnderWay":
        """Have an attempt claimed and run; the callback hears of its end in Celery's thread, in the form that
        its pools have for it."""
        under_way = _UnderWay(self, wanted, name, callback)
        self._under_way.add(under_way)
        self._jobs.call_soon(partial(self._ask, under_way))
        return under_way

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Nothing: what is under way is asked itself (`terminate`)."""

    def cancel(self, job_id: JobId) -> None:
        """Have a job stopped, wherever it is."""

        async def cancel() -> None:
            try:
                await self._jobs.cancel(job_id)
            except JobsError as error:
                log.error("job %s could not be cancelled: %s", job_id, error)

        def begin() -> None:
            task = asyncio.ensure_future(cancel())
            self._cancels.add(task)
            task.add_done_callback(self._cancels.discard)

        self._jobs.call_soon(begin)

    def _ask(self, under_way: "_UnderWay") -> None:
        assert self._claims is not None
        job_id, attempt = under_way.wanted
        self._claims.ask(Request(job_id, attempt, under_way.claimed, under_way.ended))
        self._jobs.wake()

    def over(self, under_way: "_UnderWay", tell: Callable[[], None]) -> None:
        """An attempt is over; called in the thread of `Jobs`."""
        self._under_way.discard(under_way)
        self._told.append(tell)
        if not self._has_loop:  # a transport without one: Celery takes it in any thread
            self._tell_all()
            return
        with suppress(OSError):  # it is rung already
            self._rope.send(b"\0")

    def _tell_all(self) -> None:
        with suppress(OSError):
            self._bell.recv(4096)
        while self._told:
            try:
                self._told.popleft()()
            except Exception:
                log.exception("Celery could not be told of an attempt's end")

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()
        return info | {"lanes": self.limit, "under-way": len(self._under_way)}


class _UnderWay:
    """One message, from its coming to the end of what it asks for; what Celery has of its attempt."""

    def __init__(
        self, pool: LanePool, wanted: Announcement, name: str, callback: Callable[[Any], None]
    ) -> None:
        self.wanted = wanted
        self._pool, self._name, self._callback = pool, name, callback
        self._began = time.monotonic()

    def claimed(self) -> None:
        self._began = time.monotonic()

    def ended(self, outcome: Outcome | None) -> None:
        took = time.monotonic() - self._began
        self._pool.over(self, partial(self._callback, self._as_celery_has_it(outcome, took)))

    def terminate(self, signum: int) -> None:
        """`celery control revoke --terminate`, and Flower's button."""
        self._pool.cancel(self.wanted.job_id)

    def _as_celery_has_it(self, outcome: Outcome | None, took: float) -> Any:
        if outcome is None:
            log.info("%s[%s] is not this worker's: nothing is run", self._name, self.wanted.job_id)
            return _failed(Ignore(), took)
        log.info(
            "%s[%s] attempt %d: %s in %.3f s",
            *(self._name, outcome.job_id, outcome.attempt, outcome.state, took),
        )
        if outcome.state is JobState.SUCCESS:
            return 0, outcome.state.value, took  # the result itself is the store's
        if outcome.error is None:
            return _failed(Ignore(), took)
        error: Exception = AttemptFailed(f"{outcome.error.type}: {outcome.error.message}")
        if outcome.state is JobState.PENDING:
            error = Retry(exc=error)
        elif outcome.state is JobState.REVOKED:
            error = Terminated(str(error))
        return _failed(error, took, outcome.error)


def _failed(error: Exception, took: float, why: JobError | None = None) -> Any:
    try:
        raise error
    except type(error):
        told = ExceptionInfo()
    if why is not None:
        told.traceback = why.traceback or ""
    return 1, told, took
