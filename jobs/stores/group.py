"""Group commit: whoever waits while a commit is under way forms the next one.

One task, one connection, one transaction at a time, which is one function on the connection's thread
from BEGIN to COMMIT; nobody awaits inside it, so a caller that goes away leaves nothing open.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar

from jobs.errors import StoreBusy, StoreError
from jobs.model import Claim, Invocation, Outcome, PutOff
from jobs.protocols import Wake

from .background import unheeded
from .verbs import Committed, Request, Verb

P = TypeVar("P")
R = TypeVar("R")


@dataclass(slots=True)
class _Waiting(Request):
    future: "asyncio.Future[Any]"


class GroupCommit:
    """Takes writes from any number of tasks of one event loop. A store says how a batch is committed.

    `busy_timeout`: seconds from a call until it is refused because others write."""

    def __init__(
        self, *, busy_timeout: float, queue_limit: int, ring: Callable[[Wake], None]
    ) -> None:
        self._busy_timeout, self._queue_limit = busy_timeout, queue_limit
        self._ring = ring
        self._waiting: list[_Waiting] = []
        self._since = 0.0  #: when the first of them came
        self._rows = 0  #: of the waiting requests
        self._awake = asyncio.Event()
        self._closing = False
        self._writing = False
        self._task = asyncio.create_task(self._run(), name="jobs: store writer")

    async def _commit(self, batch: Sequence[Request], deadline: float) -> Committed:
        """Commit requests, which are sorted by their verb's order. Raises what all of them fail with."""
        raise NotImplementedError

    def _translated(self, error: Exception) -> Exception:
        """What a caller is told of an error."""
        raise NotImplementedError

    def submit(self, verb: Verb[P, R], payload: P, *, rows: int = 0) -> "asyncio.Future[R]":
        """Put a write into the next transaction. Its future is done after the commit; cancelling the
        future does not take the write back.

        `rows` count against the limit of the queue. Raises `StoreBusy` if too much is waiting."""
        if self._closing or self._task.done():
            raise StoreError("the store is closed")
        if rows and self._rows >= self._queue_limit:
            raise StoreBusy(f"{self._rows} jobs are waiting to be stored: try again")
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        if not self._waiting:
            self._since = time.monotonic()
            self._awake.set()
        self._waiting.append(_Waiting(verb, payload, future))
        self._rows += rows
        return future

    async def claim(
        self,
        claim: Verb[P, Claim],
        release: Verb[Sequence[Invocation | Outcome | PutOff], None],
        payload: P,
    ) -> Claim:
        """Claim jobs; those that were claimed for a caller that has gone are given back."""
        claiming = self.submit(claim, payload)
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            claiming.add_done_callback(partial(self._give_back, release))
            raise

    def _give_back(
        self,
        release: Verb[Sequence[Invocation | Outcome | PutOff], None],
        claiming: "asyncio.Future[Claim]",
    ) -> None:
        if claiming.cancelled() or claiming.exception() or not claiming.result().jobs:
            return
        invocations = [Invocation.of(job) for job in claiming.result().jobs]
        # If the store is closed, its jobs are those of a dead claimant.
        with suppress(StoreError):
            self.submit(release, invocations).add_done_callback(unheeded)

    async def close(self) -> None:
        """Finish what is waiting, and end."""
        self._closing = True
        self._awake.set()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        batch: list[_Waiting] = []
        try:
            while True:
                await self._awake.wait()
                self._awake.clear()
                batch, self._waiting, self._rows = self._waiting, [], 0
                if batch:
                    await self._write(batch, self._since + self._busy_timeout)
                    batch = []
                elif self._closing:
                    break
                if self._closing:
                    await asyncio.sleep(0)  # a claim that nobody waited for is given back now
                    self._awake.set()
        finally:
            for request in batch + self._waiting:
                request.future.cancel()

    async def _write(self, batch: list[_Waiting], deadline: float) -> None:
        batch.sort(key=attrgetter("verb.order"))
        self._writing = True
        try:
            committed = await self._commit(batch, deadline)
        except Exception as error:  # noqa: BLE001 - it is raised to the callers
            results: Sequence[Any] = [self._translated(error) for _ in batch]
        else:
            results = committed.results
            self._ring(committed.wake)
        finally:
            self._writing = False
        for request, result in zip(batch, results, strict=True):
            if request.future.done():
                continue
            if isinstance(result, Exception):
                request.future.set_exception(result)
            else:
                request.future.set_result(result)
