"""One lane: what its child process is doing, told by frames on the side channel."""

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from time import monotonic

from jobs import wire
from jobs.child import Boot
from jobs.model import Invocation, JobId, Usage
from jobs.protocols import Call, Event, Interrupt, Progress, Started, Withdrawn, Wrote

from . import endings
from .flights import Flight, Flights
from .lanes_channel import LaneChannel
from .lanes_output import LaneOutput
from .lanes_process import LaneProcess
from .oom import OomWatch
from .pace import BUDGET, Pace
from .retirements import Retirements

_SLOW = 0.05  #: seconds; who waits behind a job that runs longer is taken elsewhere
_UNRESPONSIVE = 10.0  #: seconds within which a child must begin a job that it has
_MANY = 5  #: jobs in the lane; with fewer, each is heard of at once
_BETWEEN_PROGRESS = 0.1  #: seconds, at least
_DYING = 1.0  #: seconds between the end of a child's channel and its own


class Lane:
    """One child process and the invocations it has, in the order they run.

    `report` takes every event, `ring` is called when some have been reported, `ended` when the process
    has died. `max_log_bytes` of what a job writes are kept; None: its output is not captured.
    """

    def __init__(
        self,
        boot: Boot,
        pace: Pace,
        *,
        stop_grace: float,
        max_log_bytes: int | None,
        report: Callable[[Event], None],
        ring: Callable[[], None],
        ended: Callable[["Lane"], None],
        oom: OomWatch,
        retirements: Retirements,
    ) -> None:
        self._boot, self._pace, self._stop_grace = boot, pace, stop_grace
        self._max_log_bytes = max_log_bytes
        self._report, self._ring, self._ended = report, ring, ended
        self._oom, self._retirements = oom, retirements
        self._loop = asyncio.get_running_loop()
        self._flights = Flights(pace)
        self._current: Flight | None = None
        self._why_killed = ""
        self._sign_of_life = monotonic()
        self._pidfd: int | None = None
        self.gone: asyncio.Future[None] | None = None  #: done when nothing of its process is left
        self.ready = False
        self.useful = False  #: has begun a job
        self._retiring = False
        self._reserved = False  # for the one job that it has
        self._unheard: tuple[int, float] | None = (
            None  # whose progress came when, until it may send more
        )

    async def open(self) -> None:
        """Start the process. Raises `AppNotImportable`, `OSError`."""
        cap = self._max_log_bytes
        self._process = LaneProcess(self._boot, capture=cap is not None)
        self._output = LaneOutput(
            self._process.output, self._process.mark, cap or 0, catch_up=self.catch_up
        )
        gone = self.gone = self._loop.create_future()
        try:
            await self._process.ready()
            if hasattr(os, "pidfd_open"):
                self._pidfd = os.pidfd_open(self._process.pid)
                self._loop.add_reader(self._pidfd, self._on_death)
        except BaseException:
            self._process.kill()
            self._process.close_channel()
            try:
                await self._process.bury()
            finally:
                self._close_output()
                gone.set_result(None)
            raise
        self._channel = LaneChannel(
            self._process.channel,
            wire.frame_limit(self._boot.max_result_bytes),
            take=self._take,
            taken=self._ring,
            lost=self._lost,
            busy=lambda: len(self._flights) >= _MANY,
        )
        self._output.settle()
        self.ready = True

    @property
    def notes(self) -> tuple[bool, str | None]:
        """Whether a guardian watches over its process, and why it starts slower than it could."""
        return self._process.guarded, self._process.note

    @property
    def guardian(self) -> int:
        """The process that its own was forked from."""
        return self._process.guardian

    @property
    def running(self) -> Flight | None:
        """What has begun and not ended."""
        return self._current

    @property
    def jobs(self) -> int:
        """How many invocations it has."""
        return len(self._flights)

    @property
    def expected(self) -> float:
        """Seconds of work that it has."""
        return self._flights.expected

    @property
    def takes(self) -> bool:
        """Whether a batch for it is worth its while."""
        return self._has_a_future and self._flights.may_follow

    @property
    def room(self) -> int:
        """How many more invocations of the usual kind it takes now."""
        return self._flights.room if self._has_a_future else 0

    @property
    def pristine(self) -> bool:
        """Whether it has run nothing, and has nothing."""
        return self.ready and not self.useful and not self._flights

    @property
    def busy(self) -> bool:
        """Whether it runs what takes longer than a job should make others wait."""
        return self._current is not None and monotonic() - self._current.began > _SLOW

    @property
    def _has_a_future(self) -> bool:
        return self.ready and not self._retiring and not (self._reserved and self._flights)

    # --- to the child

    def submit(self, invocations: Sequence[Invocation]) -> None:
        """Run these after those it has."""
        if not self._flights:
            self._sign_of_life = monotonic()
        self._reserved = invocations[0].fresh
        first = self._flights.add(invocations)
        self._process.run(wire.pack_batch(first, invocations))

    def interrupt(self, job_id: JobId, why: Interrupt) -> None:
        """Stop a job: softly, and by force once the grace is over; or withdraw it."""
        found = self._flights.find(job_id)
        if found is None:
            return
        serial, flight = found
        if flight is self._current:
            self._stop(serial, flight, why)
        elif flight.why is None:
            flight.why = why
            self._withdraw({serial: flight})

    def _stop(self, serial: int, flight: Flight, why: Interrupt) -> None:
        if flight.kill_at is not None:
            return
        flight.why = why
        flight.kill_at = monotonic() + self._stop_grace
        self._channel.send(wire.frame(wire.INTERRUPT, serial, why.encode()))

    def stop_current(self, why: Interrupt) -> None:
        """Stop what runs."""
        if self._current is not None:
            self.interrupt(self._current.invocation.job_id, why)

    def withdraw(self) -> None:
        """Take back what has not begun: the child says what it really drops."""
        self._withdraw(
            {
                serial: flight
                for serial, flight in self._flights.items()
                if flight is not self._current and not flight.withdrawing
            }
        )

    def _withdraw(self, flights: dict[int, Flight]) -> None:
        if flights and self.ready:
            for flight in flights.values():
                flight.withdrawing = True
            self._channel.send(wire.frame(wire.WITHDRAW, 0, json.dumps(list(flights)).encode()))

    def kill(self, why: str = "") -> None:
        """SIGKILL; what becomes of its jobs follows as soon as it is dead."""
        if self.ready:
            self._why_killed = self._why_killed or why
            self._retiring = True
            self._process.kill()

    # --- from the child

    def _lost(self, how: str) -> None:
        if self._pidfd is None:
            self.kill(how)
            self._on_death()
        else:  # most likely it is dying, and the pidfd will tell in a moment
            self._loop.call_later(_DYING, self.kill, how)

    def catch_up(self) -> None:
        """Hear all that the child has said."""
        if self.ready:
            self._channel.read()

    def _take(self, kind: int, serial: int, payload: bytes) -> None:
        self._sign_of_life = monotonic()
        if kind == wire.STARTED:
            flight = self._flights.get(serial)
            if flight is not None:
                self._begin(serial, flight, payload)
        elif kind in (wire.SUCCESS, wire.FAILURE, wire.STOPPED):
            self._end(kind, serial, payload)
        elif kind == wire.MARKING:
            self._output.mark_follows()
        elif kind == wire.DROPPED:
            self._give_back(json.loads(payload))
        elif kind == wire.RETIRE:
            self._retiring = True
            self._retirements.tell(payload)
        elif kind == wire.PROGRESS:
            self._progress(serial, payload)
        elif kind == wire.CALL:
            verb, _, body = payload.partition(b"\n")
            reply = partial(self._reply, serial)
            self._report(Call(json.loads(verb), body, reply))

    def _begin(self, serial: int, flight: Flight, payload: bytes) -> None:
        (flight.started_at,) = wire.WHEN.unpack(payload)
        flight.began = self._sign_of_life
        flight.pid = self._process.pid
        self._current = flight
        self._unheard = None
        self._output.begin()
        self.useful = True
        invocation = flight.invocation
        self._report(Started(invocation.job_id, invocation.attempt, flight.pid))
        if flight.why is not None:  # it began before its withdrawal came
            self._stop(serial, flight, flight.why)

    def _progress(self, serial: int, payload: bytes) -> None:
        flight = self._flights.get(serial)
        if flight is not None:
            self._unheard = serial, self._sign_of_life
            of = flight.invocation
            self._report(Progress(of.job_id, of.attempt, payload.decode()))

    def _end(self, kind: int, serial: int, payload: bytes) -> None:
        flight = self._flights.remove(serial)
        if flight is None:
            return
        if flight is self._current:
            self._current = None
        at, took, cpu, max_rss, marked = wire.ENDED.unpack_from(payload)
        flight.log = self._output.end(marked=marked)
        # Of jobs that need a process each, a lane never takes more than one.
        self._pace.learn(flight.invocation.task, BUDGET if flight.invocation.fresh else took)
        rest = payload[wire.ENDED.size :]
        self._report(endings.told(flight, kind, at, Usage(max_rss, cpu), rest))

    def _reply(self, call: int, answer: bytes) -> None:
        self._channel.send(wire.frame(wire.REPLY, call, answer))

    def _give_back(self, serials: Iterable[int]) -> None:
        flights = [self._flights.remove(serial) for serial in serials]
        invocations = tuple(flight.invocation for flight in flights if flight is not None)
        if invocations:
            self._report(Withdrawn(invocations))

    # --- time

    def tick(self, overslept: float) -> None:
        """Look at the clock, as happens every few hundredths of a second while there is work.

        `overslept`: seconds by which this came late: the service, or the machine, stood still."""
        if not self.ready or not self._flights:
            return
        self._channel.read()  # before any judgement: what has ended meanwhile was in time
        now, flight = monotonic(), self._current
        if flight is None:
            self._sign_of_life += overslept
            if self._flights and now - self._sign_of_life > _UNRESPONSIVE:
                self.kill(f"did not begin its next job for {_UNRESPONSIVE:g} s")
            return
        self._follow(flight, now)
        if overslept:
            flight.began += overslept
            if flight.kill_at is not None:
                flight.kill_at += overslept
        limit = flight.invocation.timeout
        if flight.kill_at is not None:
            if now >= flight.kill_at:
                self.kill()
        elif limit is not None and now - flight.began >= limit:
            self.stop_current(Interrupt.TIMEOUT)
        if flight.cap is not None and flight.cap.is_stuck(self._process.pid, now):
            mb = flight.invocation.max_memory_mb
            self.kill(f"was killed, stuck at its memory cap (max_memory_mb={mb}),")
        if now - flight.began > _SLOW:
            self._flights.is_slow(flight)
            self.withdraw()

    def _follow(self, flight: Flight, now: float) -> None:
        """Pass on what the job has written meanwhile, and let it send its progress again."""
        if text := self._output.fresh_lines():
            self._report(Wrote(flight.invocation.job_id, flight.invocation.attempt, text))
            self._ring()
        if self._unheard is not None and now - self._unheard[1] >= _BETWEEN_PROGRESS:
            self._channel.send(wire.frame(wire.HEARD, self._unheard[0]))
            self._unheard = None

    # --- the end

    def _on_death(self) -> None:
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        if not self.ready:
            return
        self.ready = False
        self._channel.read()  # all that it said before it died counts
        self._channel.close()
        self._process.close_channel()
        current = self._current
        self._give_back(
            [serial for serial, flight in self._flights.items() if flight is not current]
        )
        self._ring()
        self._ended(self)

    def shut(self) -> None:
        """Kill it as part of a shutdown: what it runs is given back."""
        if self._current is not None and self._current.why is None:
            self._current.why = Interrupt.SHUTDOWN
        self.kill()

    async def bury(self, judge: Callable[[], None]) -> None:
        """See to it that nothing is left of the process; then, after `judge`, say what became of the job
        it ran."""
        code = None
        try:
            code = await self._process.bury()
        finally:
            judge()
            log = self._close_output()
            if self.gone is not None:
                self.gone.set_result(None)
            for serial, flight in self._flights.items():
                self._flights.remove(serial)
                flight.log = log
                self._report(
                    endings.died_with(
                        flight,
                        code,
                        killed=self._process.killed,
                        because=self._why_killed,
                        starved=self._oom.struck_since(flight.began),
                    )
                )
            self._ring()

    def _close_output(self) -> str | None:
        """The rest of what the job wrote that ran last, if it has not ended."""
        log = self._output.close()
        self._process.close_output()
        return log
