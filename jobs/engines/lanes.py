"""The engine that runs jobs in child processes, one executor of one worker each."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, Self

from jobs import processes
from jobs.child import Boot
from jobs.model import Invocation, JobId, Outcome
from jobs.protocols import Event, Interrupt, Withdrawn

from .blame import Blame
from .bookings import Bookings
from .lane import Lane
from .lanes_process import refuse_daemon
from .oom import OomWatch
from .pace import Pace
from .retirements import Retirements
from .spreading import spread

log = logging.getLogger("jobs.engines")

_TICK = 0.05  #: seconds between looks at the clock while anything runs
_STOOD_STILL = 1.0  #: a tick this late says that the process, or the machine, was suspended
_CLOSE_GRACE = 2.0  #: seconds, at most, between asking jobs to stop at shutdown and killing them
_END_SECONDS = 5.0  #: how long killed processes may take to go
_RETRY_PAUSE = 0.1  #: seconds before a lane that failed to start is tried again; doubles
_RETRY_PAUSE_MOST = 10.0


class LaneEngine:
    """`lanes` child processes, each told by `boot` what to import.

    `stop_grace` is the time in seconds between asking a job to stop (cancel, timeout) and killing its
    process; `grace`, how long running jobs have to finish when the engine closes. Of what a job writes
    to stdout and stderr `max_log_bytes` are kept; None: it goes where the service's own output does.
    """

    def __init__(
        self,
        lanes: int,
        boot: Boot,
        *,
        stop_grace: float,
        grace: float,
        max_log_bytes: int | None = 1_048_576,
    ) -> None:
        self._count, self._boot = lanes, boot
        self._stop_grace, self._grace = stop_grace, grace
        self._max_log_bytes = max_log_bytes
        self._pace = Pace()
        self._oom, self._retirements, self._blame = OomWatch(), Retirements(), Blame()
        self._lanes: list[Lane] = []
        self._bookings = Bookings()
        self._where: dict[JobId, Lane] = {}
        self._events: list[Event] = []
        self._bell = asyncio.Event()
        self._quiet = asyncio.Event()
        self._dying: list[Lane] = []
        self._openings: set[asyncio.Task[None]] = set()
        self._burials: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.TimerHandle | None = None
        self._tick_due = 0.0
        self._trouble: str | None = None
        self._closing = self._closed = False

    async def __aenter__(self) -> Self:
        """Open every lane. Raises `ConfigurationError` in a process that may not have children, and
        `AppNotImportable`."""
        refuse_daemon()
        self._lanes = [self._new_lane() for _ in range(self._count)]
        try:
            opened = await asyncio.gather(
                *(lane.open() for lane in self._lanes), return_exceptions=True
            )
            for error in opened:
                if error is not None:
                    raise error
        except BaseException:
            self._closing = True
            await self._kill_all()
            raise
        if self._lanes:
            self._say_what_is_amiss(self._lanes[0])
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing = True
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._grace):
                    await self.drain()
            for lane in self._lanes:
                lane.stop_current(Interrupt.SHUTDOWN)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(self._stop_grace, _CLOSE_GRACE)):
                    await self.drain()
        finally:
            await self._kill_all()

    @property
    def free(self) -> int:
        """How many more invocations it takes now."""
        if self._closing:
            return 0
        return sum(lane.room for at, lane in enumerate(self._lanes) if at not in self._bookings)

    @property
    def trouble(self) -> str | None:
        """Why it can run nothing now; None if it can, or will in a moment."""
        return None if any(lane.ready for lane in self._lanes) else self._trouble

    def start(self, batch: Sequence[Invocation]) -> None:
        """Spread invocations evenly over the lanes, a batch for each; what they cannot take comes back. One
        that is to have a fresh process gets a lane for itself, after what that has been given."""
        if self._closing:
            self._report(Withdrawn(tuple(batch)))
            self._ring()
            return
        shares, fresh, beyond = spread(batch, self._takers(), self._pace)
        for place, share in shares.items():
            for invocation in share:
                self._where[invocation.job_id] = self._lanes[place]
            self._lanes[place].submit(share)
        for place, invocation in fresh.items():
            self._book(place, invocation)
        if beyond:
            self._report(Withdrawn(tuple(beyond)))
            self._ring()
        self._keep_time()

    def _takers(self) -> dict[int, Lane]:
        return {
            place: lane
            for place, lane in enumerate(self._lanes)
            if lane.takes and place not in self._bookings
        }

    def _book(self, place: int, invocation: Invocation) -> None:
        lane = self._lanes[place]
        self._where[invocation.job_id] = lane
        if lane.pristine:
            lane.submit([invocation])
        else:
            self._bookings.add(place, invocation)
            self._renew_idle()

    def _renew_idle(self) -> None:
        """Replace lanes that have done what they had, and that somebody waits for."""
        for place in self._bookings:
            if not self._lanes[place].jobs:
                self._lanes[place].kill()

    def _unbook(self, invocation: Invocation | None) -> None:
        if invocation is not None:
            self._report(Withdrawn((invocation,)))
            self._ring()

    def _unbook_all(self) -> None:
        for place in self._bookings:
            self._unbook(self._bookings.take(place))

    def interrupt(self, job_id: JobId, why: Interrupt) -> None:
        """Stop or withdraw a job."""
        self._unbook(self._bookings.take_job(job_id))
        lane = self._where.get(job_id)
        if lane is not None:
            lane.interrupt(job_id, why)

    async def events(self) -> AsyncIterator[Sequence[Event]]:
        """What happens. An empty step says only that `free` may have risen."""
        while not (self._closed and not self._events):
            await self._bell.wait()
            self._bell.clear()
            events, self._events = self._events, []
            yield events

    async def drain(self) -> None:
        """Withdraw what has not begun; return when everything has ended."""
        while self._where:
            self._unbook_all()
            for lane in self._lanes:
                lane.withdraw()
            self._quiet.clear()
            await self._quiet.wait()

    # --- the lanes

    def _new_lane(self) -> Lane:
        return Lane(
            self._boot,
            self._pace,
            stop_grace=self._stop_grace,
            max_log_bytes=self._max_log_bytes,
            report=self._report,
            ring=self._ring,
            ended=self._replace,
            oom=self._oom,
            retirements=self._retirements,
        )

    def _replace(self, lane: Lane) -> None:
        """A lane's process has died: another takes its place, while the dead one is buried."""
        self._dying.append(lane)
        _keep(self._burials, self._bury(lane))
        if not self._closing:
            at = self._lanes.index(lane)
            self._lanes[at] = self._new_lane()
            _keep(self._openings, self._reopen(at, pause=0.0 if lane.useful else _RETRY_PAUSE))

    async def _bury(self, lane: Lane) -> None:
        try:
            await lane.bury(partial(self._judge, lane.guardian))
        finally:
            self._dying.remove(lane)

    def _judge(self, guardian: int) -> None:
        """Not at once when a lane has died: its end may be seen before that of the forkserver it died with."""
        if processes.LINUX and processes.has_ended(guardian):
            kin = [*self._dying, *(lane for lane in self._lanes if lane.ready)]
            for lane in kin:  # what killed it may have begun a moment ago
                lane.catch_up()
            self._blame.judge(guardian, kin)

    async def _reopen(self, at: int, pause: float) -> None:
        while not self._closing:
            await asyncio.sleep(pause)
            try:
                await self._lanes[at].open()
            except Exception as error:  # noqa: BLE001 - the next try may go well, and nobody else makes it
                pause = min(max(2 * pause, _RETRY_PAUSE), _RETRY_PAUSE_MOST)
                log.error("a lane could not be replaced, trying again in %.1f s: %r", pause, error)
                self._trouble = f"no child process can be started: {error!r}"
                self._lanes[at] = self._new_lane()
                self._unbook(self._bookings.take(at))
            else:
                self._trouble = None
                waiting = self._bookings.take(at)
                if waiting is not None:
                    self._book(at, waiting)
                self._bell.set()  # `free` has risen
                return

    def _say_what_is_amiss(self, lane: Lane) -> None:
        guarded, note = lane.notes
        if note is not None:
            log.warning("each child process imports the app's modules itself: %s", note)
        if processes.LINUX and not guarded:
            log.warning(
                "this program had started multiprocessing's forkserver before Jobs was opened: a job that"
                " keeps the interpreter busy may outlive the service if that is killed"
            )

    async def _kill_all(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        for task in self._openings:
            task.cancel()
        self._unbook_all()
        for lane in self._lanes:
            lane.shut()
        try:
            ends = [lane.gone for lane in self._lanes if lane.gone is not None]
            if ends or self._openings:
                await asyncio.wait([*ends, *self._openings], timeout=_END_SECONDS)
            if self._burials:
                await asyncio.wait(self._burials, timeout=_END_SECONDS)
        finally:
            self._closed = True
            self._bell.set()

    # --- events and time

    def _report(self, event: Event) -> None:
        self._events.append(event)
        if isinstance(event, Outcome):
            self._where.pop(event.job_id, None)
            if event.state.ended:
                self._blame.forget(event.job_id)
        elif isinstance(event, Withdrawn):
            for invocation in event.invocations:
                self._where.pop(invocation.job_id, None)

    def _ring(self) -> None:
        if self._bookings:
            self._renew_idle()
        if self._events:
            self._bell.set()
        if not self._where:
            self._quiet.set()

    def _keep_time(self) -> None:
        if self._ticker is None and self._where and not self._closed:
            self._oom.look()
            self._tick_due = monotonic() + _TICK
            self._ticker = asyncio.get_running_loop().call_later(_TICK, self._tick)

    def _tick(self) -> None:
        late = monotonic() - self._tick_due
        self._ticker = None
        for lane in self._lanes:
            lane.tick(late if late > _STOOD_STILL else 0.0)
        for place in self._bookings:
            if self._lanes[place].busy:
                self._unbook(self._bookings.take(place))
        self._keep_time()


def _keep(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    """Run it in the background, held by `tasks` until it is done."""
    task = asyncio.ensure_future(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
