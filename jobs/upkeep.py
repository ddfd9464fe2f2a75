"""Whether a child process is fit to run another job, asked after each."""

from collections.abc import Collection
from dataclasses import dataclass, field

from . import memory
from .hygiene import Habitat
from .model import Invocation, Outcome

THOROUGH_AFTER = 0.005  #: seconds; a job that ran longer is worth a close look
THOROUGH_EVERY = 256  #: jobs
MEMORY_EVERY = 64  #: jobs


@dataclass(frozen=True, slots=True)
class Retirement:
    """Why a child runs no more jobs: what a job of `task` has `left` in it (in words, by kind), or `because`
    of something that is nobody's fault."""

    task: str
    left: dict[str, str] = field(default_factory=dict)
    because: str = ""


class Upkeep:
    """Looks after this process.

    It is to be replaced after `jobs` jobs, and when it has grown by `grown` bytes; 0: never.
    """

    def __init__(self, habitat: Habitat, *, jobs: int = 0, grown: int = 0) -> None:
        self._habitat, self._most_jobs, self._most_grown = habitat, jobs, grown
        self._jobs = 0
        self._met: set[str] = set()
        self._began_with = memory.resident()

    def after(
        self, invocation: Invocation, outcome: Outcome, took: float, keeps: Collection[str]
    ) -> Retirement | None:
        """Why this process is not to run another job, if so, now that this one has run, for `took` seconds;
        `keeps` is what its task means to leave."""
        self._jobs += 1
        task = invocation.task
        if invocation.fresh:
            return Retirement(task, because="each job of its task has a process of its own")
        ran_out = outcome.error is not None and outcome.error.type == MemoryError.__name__
        if invocation.max_memory_mb and ran_out:
            return Retirement(task, because="it ran out of the memory that the job was allowed")
        thorough = took > THOROUGH_AFTER or task not in self._met or not self._jobs % THOROUGH_EVERY
        if thorough or not self._habitat.looks_clean():
            self._met.add(task)
            try:
                left = self._habitat.differences(keeps)
            except Exception as error:  # noqa: BLE001 - whatever the job has done to what looks
                left = {"unknown": f"what it left cannot be seen ({error!r})"}
            if left:
                return Retirement(task, left)
        return self._used_up(task, thorough or not self._jobs % MEMORY_EVERY)

    def _used_up(self, task: str, measure: bool) -> Retirement | None:
        if self._most_jobs and self._jobs >= self._most_jobs:
            return Retirement(task, because=f"it has run {self._jobs} jobs (recycle_after_jobs)")
        if self._most_grown and measure and memory.peak() - self._began_with > self._most_grown:
            grown = memory.resident() - self._began_with
            if grown > self._most_grown:
                mb = grown // memory.MIB
                return Retirement(task, because=f"it has grown by {mb} MiB (recycle_after_mb)")
        return None
