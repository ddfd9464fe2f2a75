"""Routes of a job's attempts: how each ended, and what they wrote."""

import signal
from typing import Any

from pydantic_core import to_json
from quart import Response, request

from jobs.errors import InvalidArguments, Problem
from jobs.events import EventKind, JobEvent
from jobs.keys import Scope
from jobs.model import AttemptRecord

from . import sse, times
from .extension import running
from .jobs import JOB_ID
from .listing import pointer
from .principal import visible_job
from .problems import INVALID, TOO_MANY_STREAMS, UNAVAILABLE, UNKNOWN_JOB
from .render import error_object, json_response
from .routes import Answer, Parameter, Routes, current_request
from .schemas import AttemptList, EventObject, LogList
from .sse import LAST_EVENT_ID, NOTHING_MORE

routes = Routes("Jobs")

_MOST = 2**31 - 1
_TEXT, _JSON = "text/plain", "application/json"
_HEADERS = ("Vary", "X-Content-Type-Options")

NUMBER = Parameter(
    "attempt",
    "Only attempts of this number; it comes again if a shutdown stopped the attempt.",
    {"type": "integer", "minimum": 1, "maximum": _MOST},
)


@routes.add(
    "GET",
    "/jobs/<job_id>/attempts",
    "List a job's attempts, oldest first",
    scope=Scope.READ,
    description="Those that have ended; the one under way is not among them.",
    parameters=(JOB_ID,),
    answers=(Answer(200, "How each attempt ended.", AttemptList),),
    problems=(UNKNOWN_JOB, UNAVAILABLE),
)
async def get_attempts(job_id: str) -> Response:
    job = await visible_job(job_id)
    records = await running().store.attempts(job.id)
    return json_response(to_json({"attempts": [_attempt_object(record) for record in records]}))


@routes.add(
    "GET",
    "/jobs/<job_id>/logs",
    "Read what a job's attempts wrote",
    scope=Scope.READ,
    description="Standard output, standard error and logging of the attempts that have ended, oldest first. With"
    " `Accept: text/event-stream` what they write from now on too: `log` events, and `finished`.",
    parameters=(JOB_ID, NUMBER, LAST_EVENT_ID),
    answers=(
        Answer(200, "What they wrote, in UTF-8.", media_type=_TEXT, headers=_HEADERS),
        Answer(200, "The same by attempt.", LogList, headers=_HEADERS),
        Answer(
            200,
            "The same, and on.",
            EventObject,
            media_type=sse.MEDIA_TYPE,
            headers=(*_HEADERS, *sse.HEADERS),
        ),
        NOTHING_MORE,
    ),
    problems=(UNKNOWN_JOB, INVALID, TOO_MANY_STREAMS, UNAVAILABLE),
)
async def get_logs(job_id: str) -> Response:
    number = _number()
    sse.last_event_id()  # what is wrong is told, whatever the form of the answer
    job = await visible_job(job_id)
    store = running().store
    form = current_request().accept_mimetypes.best_match((_TEXT, _JSON, sse.MEDIA_TYPE), _TEXT)
    if form == sse.MEDIA_TYPE:
        response = sse.job_stream(job, lambda event: _is_of_log(event, number))
    elif form == _JSON:
        records = await store.attempts(job.id)
        numbers = sorted({each.number for each in records if each.log_bytes})
        logs = [
            {"attempt": each, "text": (await store.log(job.id, each)).decode()}
            for each in numbers
            if number in (None, each)
        ]
        response = json_response(to_json({"logs": logs}))
    else:
        response = Response(await store.log(job.id, number), content_type=f"{_TEXT}; charset=utf-8")
    response.headers["Vary"] = "Accept"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _is_of_log(event: JobEvent, number: int | None) -> bool:
    wanted = event.kind is EventKind.LOG and number in (None, event.attempt)
    return wanted or event.kind is EventKind.FINISHED


def _number() -> int | None:
    """The attempt that the query asks for. Raises `InvalidArguments`."""
    problems = [
        Problem(pointer(name), f"is not known; known is {NUMBER.name}")
        for name in request.args
        if name != NUMBER.name
    ]
    texts = request.args.getlist(NUMBER.name)
    if len(texts) > 1:
        problems.append(Problem(pointer(NUMBER.name), "is given more than once"))
    elif texts and not (
        texts[0].isascii() and texts[0].isdigit() and 1 <= int(texts[0][:11]) <= _MOST
    ):
        problems.append(Problem(pointer(NUMBER.name), f"must be a whole number from 1 to {_MOST}"))
    if problems:
        raise InvalidArguments(problems)
    return int(texts[0]) if texts else None


def _attempt_object(record: AttemptRecord) -> dict[str, Any]:
    return {
        "number": record.number,
        "outcome": record.outcome,
        "error": None if record.error is None else error_object(record.error),
        "worker": record.worker,
        "pid": record.pid,
        "started_at": times.show(record.started_at),
        "finished_at": times.show(record.finished_at),
        "max_rss": record.max_rss,
        "cpu": record.cpu,
        "signal": None if record.signal is None else _signal_name(record.signal),
        "log_bytes": record.log_bytes,
    }


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
