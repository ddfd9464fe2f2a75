"""Answers that go on: server-sent events (WHATWG HTML, 9.2)."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import lru_cache
from time import monotonic
from typing import Any

from pydantic_core import from_json, to_json
from quart import Response

from jobs import events
from jobs.errors import InvalidArguments, Problem
from jobs.events import EVENT_ID, EventId, EventKind, JobEvent
from jobs.model import Job

from . import times
from .extension import running
from .principal import still_good
from .problems import TOO_MANY_STREAMS, Refusal
from .render import error_object
from .routes import Answer, Parameter, current_request, field

Steps = AsyncGenerator[Sequence[JobEvent], None]

MEDIA_TYPE = "text/event-stream"
_RETRY = (
    b"retry: 2000\n\n"  #: milliseconds after which a client that has lost its stream comes again
)
_BEAT = b": still here\n\n"
_SHORT = 16_384  #: characters; what is longer is not remembered for the next reader

HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # or nginx would gather them
    "X-Content-Type-Options": "nosniff",
}

LAST_EVENT_ID = Parameter(
    "Last-Event-ID",
    "The id of the last event that came: go on after it. Browsers send it when they come again.",
    {"type": "string", "pattern": f"^({EVENT_ID[1:-1]})?$"},
    place="header",
)
NOTHING_MORE = Answer(
    204, "The last event had come already: a browser that gets this asks no more.", media_type=""
)


def job_stream(job: Job, wants: Callable[[JobEvent], bool]) -> Response:
    """The events of a job that are wanted, after that in `Last-Event-ID`, if any. Raises `InvalidArguments`,
    `Refusal`."""
    last = last_event_id()
    if job.state.ended and last.step == events.FINISHED:
        return Response(b"", 204)
    steps = running().streams.of_job(job.id, last, patience=running().settings.heartbeat)
    return _response(steps, lambda step: b"".join(_frame(each) for each in step if wants(each)))


def stream_of_all(wants: Callable[[JobEvent], bool]) -> Response:
    """The events of all jobs that are wanted, from now on. They have no ids: those of different jobs have no
    order that would outlive this process. Raises `Refusal`."""
    steps = running().streams.of_all(wants, patience=running().settings.heartbeat)
    return _response(steps, lambda step: b"".join(map(_frame_without_id, step)))


async def _body(
    steps: Steps,
    written: Callable[[Sequence[JobEvent]], bytes],
    good: Callable[[], Awaitable[bool]] | None,
    every: float,
) -> AsyncIterator[bytes]:
    async with aclosing(steps):
        head = _RETRY
        asked = monotonic()
        async for step in steps:
            if good is not None and monotonic() - asked >= every:
                if not await good():
                    return
                asked = monotonic()
            yield head + (written(step) or _BEAT)
            head = b""


def _response(steps: Steps, written: Callable[[Sequence[JobEvent]], bytes]) -> Response:
    streams = running().streams
    if streams.full:
        raise Refusal(
            TOO_MANY_STREAMS,
            "the service is stopping"
            if running().stopping.is_set()
            else f"{streams.open} event streams are open (setting: max_streams)",
            headers={"Retry-After": "5"},
        )
    head = current_request().method == "HEAD"
    body = b"" if head else _body(steps, written, still_good(), running().settings.heartbeat)
    response = Response(body, 200, content_type=MEDIA_TYPE)
    response.timeout = None
    response.headers.update(HEADERS)
    return response


def last_event_id() -> EventId:
    """What came last to whoever sent the request at hand. Raises `InvalidArguments`."""
    given = field(current_request(), LAST_EVENT_ID.name)
    if not given or given == [""]:
        return events.START
    try:
        return EventId.read(given[0])
    except ValueError as error:
        raise InvalidArguments([Problem(f"/header/{LAST_EVENT_ID.name}", str(error))]) from None


def _frame(event: JobEvent) -> bytes:
    return b"id: %b\n%b" % (str(event.id).encode(), _frame_without_id(event))


def _frame_without_id(event: JobEvent) -> bytes:
    return _written(event) if len(event.detail or "") <= _SHORT else _write(event)


def _write(event: JobEvent) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.kind.encode(), to_json(event_object(event)))


_written = lru_cache(maxsize=128)(_write)  # many may follow one job


def event_object(event: JobEvent) -> dict[str, Any]:
    """The data of an event on the wire."""
    made: dict[str, Any] = {
        "job": event.job_id,
        "task": event.task,
        "queue": event.queue,
        "at": times.show(event.at),
    }
    if event.attempt is not None:
        made["attempt"] = event.attempt
    if event.kind is EventKind.PROGRESS:
        made["progress"] = from_json(event.detail or "null")
    elif event.kind is EventKind.LOG:
        made["text"] = event.detail
    elif event.kind in _ENDS:
        made[_ENDS[event.kind]] = event.detail
        made["error"] = None if event.error is None else error_object(event.error)
    return made


_ENDS = {EventKind.ATTEMPT_ENDED: "outcome", EventKind.FINISHED: "state"}
