"""The case of one job: what was promised of it, and whether that is what happened."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from jobs.model import JobState

from .effects import Run
from .history import Fault, Sighting, Start
from .observer import Row


@dataclass(frozen=True, slots=True)
class Limits:
    """What the service promises (reliability.md, P2 and P4). Seconds; `patience` is how many times as
    long it may take on a busy machine before that counts as a violation."""

    back_after_death: float = 2.0
    back_after_restart: float = 5.0
    survivors: float = 2.0
    patience: float = 3.0
    lease: float = 16.0  #: until a host that is cut off, or has lost its power, is given up
    together_again: float = 5.0  #: until one that is back has stopped what others took
    max_crashes: int = 3
    max_lost: int = 3

    @property
    def noticed(self) -> float:
        """Until one that is back has surely stopped what others took."""
        return self.together_again * self.patience


class Finding(NamedTuple):
    """A promise not kept: lost, duplicated, overlapping, impossible or late."""

    kind: str
    what: str


class Delay(NamedTuple):
    """How long something took, and how long it may take, in seconds."""

    name: str
    took: float
    limit: float


@dataclass(frozen=True, slots=True)
class Case:
    """A job that is kept, and all that is known of it."""

    row: Row
    runs: Sequence[Run] = ()  #: in the order they began
    sightings: Sequence[Sighting] = ()  #: in the order of time
    faults: Sequence[Fault] = ()
    starts: Sequence[Start] = ()
    cancelled: bool = False  #: somebody asked for it

    def findings(self, limits: Limits) -> Iterator[Finding]:
        """What is wrong, if anything."""
        yield from self._unfinished()
        yield from self._repeated(limits)
        yield from self._ending()
        yield from self._path()
        yield from self._counts(limits)
        for delay in self.delays(limits):
            if delay.took > delay.limit * limits.patience:
                yield Finding("late", f"{delay.name} took {delay.took:.2f} s")

    # --- whether it came to its end

    def _unfinished(self) -> Iterator[Finding]:
        row = self.row
        if not row.state.ended:
            yield Finding("lost", f"it is {row.state} and never reached its end")
        elif row.state is JobState.FAILURE and not self.runs and not self._excused:
            yield Finding("lost", "it failed without having run")

    @property
    def _excused(self) -> int:
        """How many attempts may have ended before the job's own code began: a machine that is slow enough
        reaches a timeout before the function."""
        row = self.row
        return row.crashes + row.lost + (row.kind == "timeout")

    # --- whether it ran once too often

    def _repeated(self, limits: Limits) -> Iterator[Finding]:
        for one, next_ in pairwise(self.runs):
            pair = f"attempt {one.attempt} in {one.member}, {next_.attempt} in {next_.member}"
            if one.last > next_.began and not self._allowed(one, next_, limits):
                late = one.last - next_.began
                yield Finding("overlapping", f"two runs at once for at least {late:.3f} s: {pair}")
            if not self._explained(one, next_, limits):
                yield Finding("duplicated", f"it ran again for no reason: {pair}")
            if one.attempt == next_.attempt and not self._hit(one, next_, "terminate"):
                yield Finding("impossible", f"one attempt ran twice: {pair}")
            if one.attempt > next_.attempt:
                yield Finding("impossible", f"the attempts ran in disorder: {pair}")

    def _allowed(self, one: Run, next_: Run, limits: Limits) -> bool:
        """Whether nobody could tell the first of two runs to stop."""
        cut = self._cut(one, next_, limits)
        return cut is not None and one.last <= cut.ended + limits.noticed

    def _cut(self, one: Run, next_: Run, limits: Limits) -> Fault | None:
        """The last fault that kept one run's host apart while another began; one that begins a moment later was
        claimed before, and the host has yet to hear that others have taken it."""
        for fault in reversed(self.faults):
            if (
                fault.apart
                and fault.lethal
                and fault.hits(one.member, one.pid)
                and one.began <= fault.ended + limits.noticed
                and fault.began <= next_.began
            ):
                return fault
        return None

    def _explained(self, one: Run, next_: Run, limits: Limits) -> bool:
        return (
            one.how == "raised"
            or one.died is not None
            or bool(self._hit(one, next_))
            or bool(self._cut(one, next_, limits))
        )

    def _hit(self, one: Run, next_: Run | None = None, kind: str | None = None) -> Fault | None:
        """The lethal fault that hit the process of a run between its begin and that of the next."""
        for fault in self.faults:
            if (
                fault.lethal
                and kind in (None, fault.kind)
                and fault.hits(one.member, one.pid)
                and fault.ended >= one.began
                and (next_ is None or fault.began <= next_.began)
            ):
                return fault
        return None

    # --- whether its end is what its runs make of it

    def _ending(self) -> Iterator[Finding]:
        row = self.row
        last = self.runs[-1] if self.runs else None
        if row.state is JobState.SUCCESS and (last is None or last.how != "ok"):
            yield Finding("impossible", "it is a success, but no run came to a good end")
        raised = last is not None and last.how == "raised"
        if row.state is JobState.FAILURE and row.kind == "exception" and not raised:
            yield Finding("impossible", "it failed with an exception that no run raised")
        if row.state is JobState.REVOKED and not self.cancelled:
            yield Finding("impossible", "it was revoked, and nobody had asked for that")
        for run in self.runs:
            if (
                run.ended is None
                and run.died is None
                and self._hit(run) is None
                and row.timeout is None
                and not self.cancelled
                and row.state.ended
            ):
                yield Finding("impossible", f"attempt {run.attempt} vanished, and nothing hit it")

    # --- whether it was seen to go ways that there are

    def _path(self) -> Iterator[Finding]:
        for one, next_ in pairwise(self.sightings):
            if one.state is None:
                continue
            if next_.state is None:
                yield Finding("lost", f"it was {one.state}, and then there was no such job")
            elif one.state.ended and next_.state is not one.state:
                yield Finding("impossible", f"it was {one.state}, and then {next_.state}")
            elif next_.attempt < one.attempt - 1:
                yield Finding("impossible", f"attempt {one.attempt} became {next_.attempt}")
        for seen in self.sightings[-1:]:
            if seen.state is not None and seen.state.ended and seen.state is not self.row.state:
                yield Finding("impossible", f"it was {seen.state}, and is {self.row.state}")

    # --- whether its counts add up

    def _counts(self, limits: Limits) -> Iterator[Finding]:
        row = self.row
        spent = row.attempt - row.crashes - row.lost
        if row.crashes > limits.max_crashes or row.lost > limits.max_lost:
            yield Finding("impossible", f"{row.crashes} crashes and {row.lost} losses")
        if spent > row.max_attempts or spent < 0:
            yield Finding("impossible", f"{spent} attempts spent of {row.max_attempts}")
        suicides = [run for run in self.runs if run.died is not None and not self._hit(run)]
        if len(suicides) > limits.max_crashes:
            yield Finding("impossible", f"it killed its process {len(suicides)} times")
        recorded = row.attempts
        if recorded is not None and row.state.ended and [*recorded] != [*range(1, row.attempt + 1)]:
            yield Finding("impossible", f"of {row.attempt} attempts, {recorded} are recorded")
        begun = Counter(run.attempt for run in self.runs)
        if self.runs and max(begun) > row.attempt:
            yield Finding("impossible", f"attempt {max(begun)} ran, of {row.attempt}")
        never = set(range(1, row.attempt + 1)) - begun.keys()
        if len(never) > self._excused and not self.cancelled:
            yield Finding("impossible", f"attempts {sorted(never)} are spent and never began")

    # --- whether it took no longer than it may

    def delays(self, limits: Limits) -> Iterator[Delay]:
        """What can be measured of it."""
        for run in self.runs:
            if run.ended is not None and run.last > run.ended:
                yield Delay("the end of what it left", run.last - run.ended, limits.survivors)
            if run.ended is not None:
                continue
            fault = self._killed(run)
            died = run.died if run.died is not None else fault and fault.began
            if died is None:
                continue
            if run.last > died and run.died is None:
                yield Delay("the end of a survivor", run.last - died, limits.survivors)
            yield from self._back(run, died, limits)
        for one, next_ in pairwise(self.runs):
            if one.last > next_.began and (cut := self._cut(one, next_, limits)):
                took = max(one.last - cut.ended, 0.0)
                yield Delay("the end of what others took", took, limits.together_again)

    def _killed(self, run: Run) -> Fault | None:
        """The fault that its process died of."""
        for fault in self.faults:
            if fault.kills and fault.hits(run.member, run.pid) and fault.ended >= run.began:
                return fault
        return None

    def _together(self, since: float, until: float, limits: Limits) -> float:
        """From when on, between the two, nothing kept those apart who had something to do."""
        ends = [
            fault.ended + limits.together_again
            for fault in self.faults
            if fault.apart and fault.began < until and fault.ended + limits.together_again > since
        ]
        return min(max([since, *ends]), until)

    def _back(self, run: Run, died: float, limits: Limits) -> Iterator[Delay]:
        """How long until a lost attempt's job was in the queue again."""
        seen = self._left(run.attempt, died)
        if seen is None:
            return
        whole = [
            fault
            for fault in self.faults
            if fault.whole
            and fault.hits(run.member, run.pid)
            and run.began <= fault.ended
            and fault.began < seen.time
        ]
        calm = self._together(died, seen.time, limits)
        if not whole:
            yield Delay("back after a death", seen.time - calm, limits.back_after_death)
        elif whole[0].kind == "power_off":  # nobody hears that its connections have ended
            yield Delay("back after a power cut", seen.time - calm, limits.lease)
        elif whole[0].kind != "terminate":  # which puts its jobs back itself
            gone = whole[0]
            starts = [start.began for start in self.starts if gone.began < start.began < seen.time]
            if starts:
                took = seen.time - max(starts[0], calm)
                yield Delay("back after a restart", took, limits.back_after_restart)
            else:
                # The last to go may not have run a job.
                took = max(seen.time - max(gone.ended, calm), 0.0)
                yield Delay("back by a neighbour", took, limits.back_after_death)

    def _left(self, attempt: int, died: float) -> Sighting | None:
        """The first sight of the job when it was no longer in an attempt that had died."""
        for seen in self.sightings:
            if seen.time > died and (seen.state is not JobState.STARTED or seen.attempt != attempt):
                return seen
        return None
