"""Routes that tell what happens, as it happens."""

from collections.abc import Callable

from quart import Response, request

from jobs.errors import InvalidArguments, Problem
from jobs.events import EventKind, JobEvent
from jobs.keys import Scope

from . import sse
from .job_request import TEXT
from .jobs import JOB_ID
from .listing import pointer
from .principal import principal, visible_job
from .problems import INVALID, TOO_MANY_STREAMS, UNAVAILABLE, UNKNOWN_JOB
from .routes import Answer, Parameter, Routes
from .schemas import EventObject
from .sse import LAST_EVENT_ID, NOTHING_MORE

routes = Routes("Events")

_KINDS = "`submitted`, `started`, `progress`, `log`, `attempt_ended`, `finished` and, before it starts again, `retried`"

STREAM = Answer(
    200,
    "What happens, as it happens.",
    EventObject,
    media_type=sse.MEDIA_TYPE,
    headers=tuple(sse.HEADERS),
)

FILTERS = (
    Parameter("task", "Only of jobs of this task.", TEXT),
    Parameter("queue", "Only of jobs of this queue.", TEXT),
    Parameter(
        "event",
        "Only of this kind; if left out, of all kinds but log.",
        {"enum": list(EventKind)},
    ),
)


@routes.add(
    "GET",
    "/jobs/<job_id>/events",
    "Follow a job",
    scope=Scope.READ,
    description=f"Server-sent events, from the first or from the one after `Last-Event-ID`: {_KINDS}. Each comes"
    " once and in order, and the answer ends after `finished`; if it ends before, come again with the last id.",
    parameters=(JOB_ID, LAST_EVENT_ID),
    answers=(
        STREAM,
        NOTHING_MORE,
    ),
    problems=(UNKNOWN_JOB, INVALID, TOO_MANY_STREAMS, UNAVAILABLE),
)
async def follow_job(job_id: str) -> Response:
    return sse.job_stream(await visible_job(job_id), lambda _: True)


@routes.add(
    "GET",
    "/events",
    "Follow all jobs",
    scope=Scope.READ,
    description="The events of the jobs that the caller may see, from now on. They have no ids, as those of different"
    " jobs have no lasting order: what was missed, the jobs' own streams and `GET /jobs` tell.",
    parameters=FILTERS,
    answers=(STREAM,),
    problems=(INVALID, TOO_MANY_STREAMS, UNAVAILABLE),
)
async def follow_all() -> Response:
    return sse.stream_of_all(_wanted())


def _wanted() -> Callable[[JobEvent], bool]:
    """What the query asks for, of what the caller may see. Raises `InvalidArguments`."""
    known = [each.name for each in FILTERS]
    problems = []
    for name, texts in request.args.lists():
        if name not in known:
            problems.append(Problem(pointer(name), f"is not known; known are {', '.join(known)}"))
        elif len(texts) > 1:
            problems.append(Problem(pointer(name), "is given more than once"))
        elif "\0" in texts[0]:
            problems.append(Problem(pointer(name), "holds a NUL character"))
        elif name == "event" and texts[0] not in list(EventKind):
            problems.append(Problem(pointer(name), f"must be one of {', '.join(EventKind)}"))
    if problems:
        raise InvalidArguments(problems)
    asker = principal()
    task, queue, kind = (request.args.get(name) for name in known)

    def wants(event: JobEvent) -> bool:
        return (
            (event.kind == kind if kind else event.kind is not EventKind.LOG)
            and task in (None, event.task)
            and queue in (None, event.queue)
            and asker.sees_jobs_of(event.owner)
        )

    return wants
