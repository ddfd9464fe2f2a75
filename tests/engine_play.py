"""An engine under test, with its events gathered."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from jobs.child import Boot
from jobs.engines.inline import InlineEngine
from jobs.engines.lanes import LaneEngine
from jobs.model import Invocation, JobId, JobState, Outcome, new_job_id
from jobs.protocols import Call, Engine, Event, Interrupt, Started, Withdrawn
from jobs.registry import default_registry
from jobs.runner import Runner
from jobs.sealing import Sealer

KEYS = ("a key for tests, and only for those",)
MODULE = "tests.tasks_for_engines"
PATIENCE = 20.0  #: seconds until a test gives up


class Play:
    """Starts invocations on an engine and remembers all that it says."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.events: list[Event] = []
        self.over = False
        self._changed = asyncio.Condition()
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for events in self.engine.events():
            async with self._changed:
                self.events += events
                self._changed.notify_all()
        async with self._changed:
            self.over = True
            self._changed.notify_all()

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until the condition, looked at after each event, is true; return what it returned."""
        async with asyncio.timeout(PATIENCE), self._changed:
            return await self._changed.wait_for(condition)

    def start(self, task: str, /, timeout: float | None = None, **args: Any) -> Invocation:
        """Start one invocation of a task of the tests' module."""
        invocation = invoke(task, timeout=timeout, **args)
        self.engine.start([invocation])
        return invocation

    async def run(self, task: str, /, timeout: float | None = None, **args: Any) -> Outcome:
        """Start one, and wait for its outcome."""
        await self.has_room()
        return await self.outcome(self.start(task, timeout, **args))

    async def has_room(self, room: int = 1) -> None:
        await self.until(lambda: self.engine.free >= room)

    async def outcome(self, invocation: Invocation) -> Outcome:
        return await self.until(lambda: self.find(Outcome, invocation))

    async def began(self, invocation: Invocation) -> Started:
        return await self.until(lambda: self.find(Started, invocation))

    async def withdrawn(self, invocation: Invocation) -> bool:
        return await self.until(lambda: invocation in self.given_back)

    async def call(self) -> Call:
        """The first call not yet taken."""

        def find() -> Call | None:
            return next((e for e in self.events if isinstance(e, Call)), None)

        call = await self.until(find)
        self.events.remove(call)
        return call

    def find(self, kind: type[Any], invocation: Invocation) -> Any:
        for event in self.events:
            if isinstance(event, kind) and event.job_id == invocation.job_id:
                return event
        return None

    @property
    def outcomes(self) -> list[Outcome]:
        return [e for e in self.events if isinstance(e, Outcome) and e.state.ended]

    @property
    def stopped(self) -> list[JobId]:
        """The jobs whose attempt a shutdown stopped."""
        return [
            e.job_id for e in self.events if isinstance(e, Outcome) and e.state is JobState.PENDING
        ]

    @property
    def given_back(self) -> list[Invocation]:
        return [
            invocation
            for event in self.events
            if isinstance(event, Withdrawn)
            for invocation in event.invocations
        ]

    async def run_all(self, batch: list[Invocation]) -> None:
        """Start all of them, as there is room, what comes back again, until each has an outcome."""
        waiting, returned = list(batch), 0
        while len(self.outcomes) < len(batch):
            room, seen = self.engine.free, len(self.events)
            if waiting and room:
                self.engine.start(waiting[:room])
                del waiting[:room]
            await self._news(seen, bool(waiting))
            waiting += self.given_back[returned:]
            returned = len(self.given_back)

    async def _news(self, seen: int, waiting: bool) -> None:
        await self.until(lambda: len(self.events) > seen or (waiting and self.engine.free))


def invoke(task: str, /, timeout: float | None = None, **args: Any) -> Invocation:
    """An invocation of a task of the tests' module."""
    return Invocation(new_job_id(), 1, f"{MODULE}.{task}", json.dumps(args), None, timeout)


def boot(**changes: Any) -> Boot:
    return Boot(**{"modules": (MODULE,), "keys": KEYS, "max_result_bytes": 100_000} | changes)


@asynccontextmanager
async def playing(
    kind: str = "lanes",
    *,
    slots: int = 2,
    stop_grace: float = 5.0,
    grace: float = 0.0,
    max_log_bytes: int | None = 1_048_576,
    **changes: Any,
) -> AsyncIterator[Play]:
    """An open engine of that kind."""
    engine: Any
    if kind == "inline":
        runner = Runner(None, default_registry, Sealer(KEYS), {}, max_result_bytes=100_000)
        engine = InlineEngine(runner, slots=slots, grace=grace)
    else:
        engine = LaneEngine(
            slots,
            boot(**changes),
            stop_grace=stop_grace,
            grace=grace,
            max_log_bytes=max_log_bytes,
        )
    async with engine:
        play = Play(engine)
        yield play
    await play.until(lambda: play.over)


async def says(file: Path, text: str) -> None:
    """Wait until the file has this content."""
    async with asyncio.timeout(PATIENCE):
        while not file.exists() or file.read_text() != text:
            await asyncio.sleep(0.005)


def alive(pid: int) -> bool:
    """Whether a process still runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def gone(*pids: int, within: float = 2.0) -> bool:
    """Whether all of them are gone before that many seconds are over."""
    deadline = time.monotonic() + within
    while any(alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


__all__ = ["Interrupt", "Play", "alive", "boot", "gone", "invoke", "playing", "says"]
