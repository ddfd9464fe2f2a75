"""Where the running code is: in which job, and to whom a submission goes."""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast

from .errors import JobsError, NotRunning
from .handle import Client, JobHandle
from .model import Job
from .progress import ProgressNote
from .retry import Retry

if TYPE_CHECKING:
    from .registry import Task
    from .submission import Options, Submission


@dataclass(slots=True)
class CurrentJob:
    """The job that the calling code runs in. Not to be changed; freezing it would cost each job a microsecond."""

    id: str
    task: str
    attempt: int
    max_attempts: int
    stopping: Callable[[], bool] = field(repr=False, compare=False)
    owner: str | None = None  #: whose it is: the jobs that it submits are theirs too
    told: Callable[[str, ProgressNote], None] | None = field(
        default=None, repr=False, compare=False
    )

    def cancelled(self) -> bool:
        """Whether the job has been asked to stop: by a cancel, its timeout or a shutdown.

        From any thread that runs in the job's context. What the job raises once it has been told so
        counts as being stopped; what it returns is its result."""
        return self.stopping()

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far the job is: `done` of `total`, in any unit, and a `message` for people, of which 1,000
        characters are kept.

        Cheap: call it as often as you like, from any thread that runs in the job's context. A few times a
        second the latest is kept, and the last of all. It is the `progress` of the job, and an event. Raises
        ValueError for what is not a number from 0 to 2**53."""
        note = ProgressNote(done, total, message)
        note.check()
        if self.told is not None:
            self.told(self.id, note)

    def retry(
        self,
        reason: str = "the job asked to run once more",
        *,
        countdown: float | None = None,
        eta: datetime | None = None,
    ) -> NoReturn:
        """Raise `jobs.Retry`: end this attempt and make another, even where the policy has none left."""
        raise Retry(reason, countdown=countdown, eta=eta)


class Submitter(Protocol):
    """Takes submissions: a `Jobs` that is open, or the lane of a running job."""

    def submit(self, task: "Task[..., Any]", args: str, options: "Options") -> JobHandle[Any]:
        """Start adding a job; with no event loop running in this thread, return once it is committed."""

    def apply(self, task: "Task[..., Any]", args: str) -> JobHandle[Any]:
        """Run it here and now under the rules of a job, without keeping it."""

    def owns_context(self) -> bool | None:
        """Whether the current app context is this one's; None without an app context."""


class Lane(Submitter, Client, Protocol):
    """What a running job submits to, and asks."""

    async def submit_many(self, asked: "Sequence[Submission]") -> list[Job]:
        """Keep a job for each, all or none. Raises `InvalidArguments`, `StoreError`."""


_job: ContextVar[CurrentJob | None] = ContextVar("jobs_current_job", default=None)
_open: list[Submitter] = []
_installed: Lane | None = None

in_child = False
"""Whether this is a child process, which imports the app but must open nothing of it."""


def job() -> CurrentJob | None:
    """The job the calling code runs in, if any."""
    return _job.get()


def owner() -> str | None:
    """Whose the job is that the calling code runs in; None outside a job, or for nobody's."""
    running = _job.get()
    return None if running is None else running.owner


def enter(current: CurrentJob) -> None:
    """Make `current` the current job, for as long as this context (`contextvars`) lasts."""
    _job.set(current)


def install(lane: Lane) -> None:
    """Send every submission and question of this process to its lane."""
    global _installed  # noqa: PLW0603 - one lane a process
    _installed = lane


def lane() -> Lane | None:
    """The lane that this process is, if it is a child."""
    return _installed


def become_child() -> None:
    """This process runs jobs of another."""
    global in_child  # noqa: PLW0603 - the process is one, or is not
    in_child = True


def opened(submitter: Submitter) -> None:
    """`submitter` takes submissions from now on."""
    _open.append(submitter)


def closed(submitter: Submitter) -> None:
    """`submitter` takes no more submissions."""
    if submitter in _open:
        _open.remove(submitter)


def submitter() -> Submitter:
    """Who takes a submission made here: the lane, the current app's `Jobs`, or the only one open.

    Raises `NotRunning`."""
    if _installed is not None:
        return _installed
    if len(_open) == 1 and _open[0].owns_context() is not False:
        return _open[0]
    standing = [(candidate.owns_context(), candidate) for candidate in _open]
    mine = [candidate for owns, candidate in standing if owns]
    free = [candidate for owns, candidate in standing if owns is None]
    if len(mine) == 1:
        return mine[0]
    if len(free) == 1:
        return free[0]
    if len(free) > 1:
        raise NotRunning(
            "several Jobs are open in this process: submit inside an app context, so that it is clear whose job it is"
        )
    raise NotRunning


class _CurrentJobProxy:
    """The attributes of the `CurrentJob` the calling code runs in; false outside a job."""

    def __getattr__(self, name: str) -> Any:
        found = _job.get()
        if found is None:
            raise JobsError(f"current_job.{name} was asked for outside a job")
        return getattr(found, name)

    def __bool__(self) -> bool:
        return _job.get() is not None


current_job = cast("CurrentJob", _CurrentJobProxy())
