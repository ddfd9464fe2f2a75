"""A store at work with an engine or a broker: what goes between them, and the one doorbell."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Self

from .dispatcher import Dispatcher
from .intake import Intake
from .outbox import Outbox
from .protocols import Broker, Engine, Store, Wake
from .registry import Registry
from .roster import Roster
from .settings import Settings
from .streams import Streams
from .waiters import Waiters

log = logging.getLogger("jobs")

_LAST_WORDS = (
    2.0  #: seconds that a broker has, when the service is to stop, for what it is being told
)


class Operation:
    """Claims and runs the jobs of an open store until it is left, or announces them through a broker; with
    neither it only tells `waiters` what ends elsewhere. Leaving it lets running jobs finish within the grace."""

    def __init__(
        self,
        store: Store,
        intake: Intake,
        engine: Engine | None,
        registry: Registry,
        roster: Roster,
        settings: Settings,
        stopping: asyncio.Event,
        *,
        broker: Broker | None = None,
    ) -> None:
        self.waiters, self.roster = Waiters(store), roster
        self.streams = Streams(store, stopping, most=settings.max_streams)
        self._store, self._engine, self._grace = store, engine, settings.grace
        self._dispatcher: Dispatcher | None = None
        self._run: asyncio.Task[None] | None = None
        if engine is not None:
            self._dispatcher = Dispatcher(
                store,
                engine,
                registry,
                roster,
                add=intake.add,
                max_crashes=settings.max_crashes,
                retention=settings.retention,
                changed=self.waiters.notify,
                ended=self.waiters.deliver,
                happened=self.streams.nudge,
            )
        self._outbox: Outbox | None = None
        if broker is not None:
            self._outbox = Outbox(
                store, broker, roster, retention=settings.retention, changed=self.waiters.notify
            )
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self.roster.look()  # before a job is claimed that others have the task of
            await stack.enter_async_context(
                _beside(self.roster.run(lambda: self.wake(Wake.WORK)), "jobs roster")
            )
            if self._engine is not None and self._dispatcher is not None:
                await stack.enter_async_context(self._dispatching(self._engine, self._dispatcher))
            if self._outbox is not None:
                await stack.enter_async_context(self._announcing(self._outbox))
            await stack.enter_async_context(_beside(self._listen(), "jobs doorbell"))
            await stack.enter_async_context(_beside(self.streams.run(), "jobs streams"))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    @property
    def trouble(self) -> str | None:
        """Why no job can run here now, in words; None if jobs can, or are not to run here."""
        if self._run is not None and self._run.done():
            return "the dispatcher has stopped"
        if self.roster.trouble is not None:
            return self.roster.trouble
        if self._outbox is not None:
            return self._outbox.trouble
        return self._engine.trouble if self._engine is not None else None

    @asynccontextmanager
    async def _dispatching(self, engine: Engine, dispatcher: Dispatcher) -> AsyncIterator[None]:
        async with engine:
            self._run = run = asyncio.create_task(dispatcher.run(), name="jobs dispatcher")
            run.add_done_callback(_tell_of_failure)
            try:
                yield
            finally:
                dispatcher.stop_claiming()
        # The engine has ended: what it said last is still to be recorded.
        await asyncio.wait({run}, timeout=self._grace)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)

    @asynccontextmanager
    async def _announcing(self, outbox: Outbox) -> AsyncIterator[None]:
        self._run = run = asyncio.create_task(outbox.run(), name="jobs outbox")
        run.add_done_callback(_tell_of_failure)
        try:
            yield
        finally:
            outbox.stop()
            await asyncio.wait({run}, timeout=_LAST_WORDS)
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)

    def wake(self, wake: Wake) -> None:
        """Something may have changed that the dispatcher, or the outbox, is to look at."""
        if self._dispatcher is not None:
            self._dispatcher.wake(wake)
        if self._outbox is not None:
            self._outbox.wake(wake)

    async def _listen(self) -> None:
        while True:
            wake = await self._store.wait()
            self.streams.nudge()
            self.wake(wake)
            if Wake.ENDED in wake:
                await self.waiters.look()


def _tell_of_failure(run: asyncio.Task[None]) -> None:
    if not run.cancelled() and (error := run.exception()) is not None:
        log.critical("the dispatcher has failed: no more jobs run here", exc_info=error)


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Run a task beside the block and end it with the block."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
