"""Starting and stopping an app, apart from the server that serves it."""

import asyncio
import logging
from typing import Any

from quart import Quart
from quart.signals import got_serving_exception

from jobs import Jobs, JobsError

from .asgi import Message


class AppFailed(JobsError):
    """The app's own start-up or shutdown raised."""


class Lifespan:
    """Runs the app's lifespan over ASGI, so that middleware takes part in it.

    The server does not, because it waits for connections that it cannot end before it lets the app
    stop, and the jobs would wait with it.
    """

    def __init__(self, app: Quart, jobs: Jobs) -> None:
        self._app, self._jobs = app, jobs
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._error: Exception | None = None

    async def startup(self) -> None:
        """Raises the `JobsError` that kept the app from starting, or `AppFailed`."""
        scope: Any = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}
        run: Any = self._app(scope, self._to_app.get, self._from_app.put)
        self._task = asyncio.create_task(run, name="lifespan")
        try:
            await self._pass("startup")
        except BaseException:
            # What had been opened before the failure is not closed by the app.
            await self._jobs.__aexit__(None, None, None)
            raise

    async def shutdown(self) -> None:
        """Raises `AppFailed`; the jobs have been stopped all the same."""
        try:
            await self._pass("shutdown")
        finally:
            await self._jobs.__aexit__(None, None, None)

    async def _pass(self, stage: str) -> None:
        assert self._task is not None
        got_serving_exception.connect(self._failed, self._app)
        self._app.logger.addFilter(_not_ours)
        try:
            await self._to_app.put({"type": f"lifespan.{stage}"})
            answer = asyncio.create_task(self._from_app.get())
            await asyncio.wait({answer, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._app.logger.removeFilter(_not_ours)
            got_serving_exception.disconnect(self._failed, self._app)
        if isinstance(self._error, JobsError):
            raise self._error
        if answer.done() and answer.result()["type"] == f"lifespan.{stage}.complete":
            return
        answer.cancel()
        why = self._error or (self._task.exception() if self._task.done() else None)
        reason = f"{type(why).__name__}: {why}" if why else "it does not answer lifespan events"
        raise AppFailed(f"the app's {stage} failed: {reason}")

    def _failed(self, _app: Quart, exception: Exception, **_: Any) -> None:
        self._error = exception


def _not_ours(record: logging.LogRecord) -> bool:
    """Our own errors are one sentence, said once; a traceback of them helps nobody."""
    return not (record.exc_info and isinstance(record.exc_info[1], JobsError))
