"""Those who follow what happens to jobs: for each change one look into the store, whoever many they are.

A follower of one job first reads what has happened to it, then hears what happens; in between nothing is
missed, because no look is made while it joins, and nothing is told twice, because events have an order.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from time import monotonic

from .errors import JobNotFound, StoreError
from .events import START, EventId, EventKind, EventMark, JobEvent
from .model import JobId
from .protocols import Store

log = logging.getLogger("jobs.streams")

MOST_WAITING = 1000  #: events that wait for one reader; a slower one is dropped
_PAUSE = 0.01  #: seconds between two looks, at least
_SHARE = 0.2  #: of the time that looks may take, and telling what they have found
_AT_ONCE = 20  #: readers that are told before others of this process get their turn
_STORE_PAUSE = 0.5  #: seconds after a look that failed


class Follower:
    """One reader: what waits for it. When it is `over` it hears no more."""

    __slots__ = ("_bell", "_task", "_timer", "_waiting", "over", "wants")

    def __init__(self, wants: Callable[[JobEvent], bool]) -> None:
        self.wants = wants
        self.over = False
        self._waiting: list[JobEvent] = []
        self._bell: asyncio.Future[None] | None = None
        self._task = asyncio.current_task()

    def hear(self, events: Sequence[JobEvent]) -> None:
        """Something has happened. Who has not taken what happened long ago is dropped: what it is busy with,
        most likely a write to a client that does not read, is cancelled."""
        if len(self._waiting) > MOST_WAITING:
            self.end()
            if self._task is not None:
                self._task.cancel()
            return
        self._waiting += events
        self._ring()

    def end(self) -> None:
        """Tell it that it is over."""
        self.over = True
        self._ring()

    def _ring(self) -> None:
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    async def next(self, patience: float) -> list[JobEvent]:
        """What has happened since the last call, as soon as anything has; nothing after `patience` seconds, and
        when it is over."""
        if not self._waiting and not self.over:
            loop = asyncio.get_running_loop()
            self._bell = loop.create_future()
            timer = loop.call_later(patience, self._ring)
            try:
                await self._bell
            finally:
                timer.cancel()
                self._bell = None
        waiting, self._waiting = self._waiting, []
        return waiting


class Streams:
    """Who follows what in this process; `most` may do so at one time. Once `stopping` is set, all of it ends."""

    def __init__(self, store: Store, stopping: asyncio.Event, *, most: int) -> None:
        self._store, self._stopping, self.most = store, stopping, most
        self._of_job: dict[JobId, set[Follower]] = {}
        self._of_all: set[Follower] = set()
        self._bell = asyncio.Event()
        self._joining = asyncio.Lock()  # and looking: one at a time
        self._mark: EventMark | None = None
        self._started: dict[JobId, EventId] = {}  # told of, and not ended yet: looks repeat them
        self.open = 0
        """How many there are."""

    @property
    def full(self) -> bool:
        """Whether there may be no more."""
        return self.open >= self.most

    def nudge(self) -> None:
        """Something may have happened."""
        if self.open:
            self._bell.set()

    async def of_job(
        self, job_id: JobId, last: EventId = START, *, patience: float
    ) -> AsyncGenerator[Sequence[JobEvent], None]:
        """The events of a job after `last`, from the first to the final one; an empty step after `patience`
        seconds without any. Ends early when this process stops, when its reader is slow, or when the store
        fails: it can be followed further from its last event on."""
        follower = Follower(lambda _: True)
        self.open += 1
        try:
            async with self._joining:
                await self._begin(follower)
                self._of_job.setdefault(job_id, set()).add(follower)
                events, more = await self._store.events(job_id, last)
            while True:
                due = []
                for event in events:
                    if event.follows(last):
                        due.append(event)
                        last = event.id
                if due or not more:
                    yield due
                if due and due[-1].kind is EventKind.FINISHED:
                    return
                if more:
                    events, more = await self._store.events(job_id, last)
                else:
                    events = await follower.next(patience)
                if follower.over:
                    return
        except (JobNotFound, StoreError):
            return
        finally:
            followers = self._of_job.get(job_id, set())
            followers.discard(follower)
            if not followers:
                self._of_job.pop(job_id, None)
                if not self._of_all:
                    self._started.pop(job_id, None)
            self._leave()

    async def of_all(
        self, wants: Callable[[JobEvent], bool], *, patience: float
    ) -> AsyncGenerator[Sequence[JobEvent], None]:
        """The events of all jobs that the reader wants, from now on; else as `of_job`, but without an end."""
        follower = Follower(wants)
        self.open += 1
        try:
            async with self._joining:
                await self._begin(follower)
                await self._look(at_all=True)  # what has happened before is not told
                self._of_all.add(follower)
            yield ()
            while True:
                events = await follower.next(patience)
                if follower.over:
                    return
                yield events
        except StoreError:
            return
        finally:
            self._of_all.discard(follower)
            self._leave()

    def _leave(self) -> None:
        self.open -= 1
        if not self.open:
            self._forget()

    def _forget(self) -> None:
        """Who follows from now on begins anew."""
        self._mark = None
        self._started.clear()

    # --- looking

    async def _begin(self, follower: Follower) -> None:
        """From here on, what happens is heard."""
        follower.over = self._stopping.is_set()
        if self._mark is None:
            self._mark = (await self._store.news(None)).mark

    async def run(self) -> None:
        """Look whenever something may have happened, until cancelled or `stopping`."""
        try:
            stopping = asyncio.ensure_future(self._end_all())
            try:
                await self._look_again_and_again()
            finally:
                stopping.cancel()
        finally:
            self._drop_all()

    async def _end_all(self) -> None:
        await self._stopping.wait()
        self.most = 0
        self._drop_all()

    async def _look_again_and_again(self) -> None:
        while True:
            await self._bell.wait()
            self._bell.clear()
            began = monotonic()
            pause = 0.0
            try:
                async with self._joining:
                    await self._look()
            except Exception as error:
                ours = not isinstance(error, StoreError)
                log.warning("those who follow jobs hear nothing now: %s", error, exc_info=ours)
                self._bell.set()
                pause = _STORE_PAUSE
            await asyncio.sleep(max(pause, _PAUSE, (monotonic() - began) / _SHARE))

    async def _look(self, *, at_all: bool = False) -> None:
        if self._mark is None:
            return
        followed = None if at_all or self._of_all else list(self._of_job)
        news = await self._store.news(self._mark, followed)
        if not self.open:
            self._forget()
            return
        self._mark = news.mark
        if news.missed:
            log.warning("more has happened than can be told: all event streams are ended")
            self._drop_all()
            return
        await self._tell([event for event in news.events if self._is_new(event)])

    async def _tell(self, happened: Sequence[JobEvent]) -> None:
        by_job: dict[JobId, list[JobEvent]] = {}
        for event in happened:
            by_job.setdefault(event.job_id, []).append(event)
        theirs = [
            (follower, by_job[job_id])
            for job_id in by_job.keys() & self._of_job.keys()
            for follower in self._of_job[job_id]
        ]
        everyones = [
            (follower, list(filter(follower.wants, happened))) for follower in self._of_all
        ]
        for at, (follower, events) in enumerate(theirs + everyones, 1):
            if events:
                follower.hear(events)
            if not at % _AT_ONCE:
                await asyncio.sleep(0)

    def _is_new(self, event: JobEvent) -> bool:
        if event.kind is EventKind.STARTED:
            if self._started.get(event.job_id) == event.id:
                return False
            self._started[event.job_id] = event.id
        elif event.kind in (EventKind.ATTEMPT_ENDED, EventKind.FINISHED):
            self._started.pop(event.job_id, None)
        return True

    def _drop_all(self) -> None:
        self._forget()
        for follower in [*self._of_all, *(each for of in self._of_job.values() for each in of)]:
            follower.end()
