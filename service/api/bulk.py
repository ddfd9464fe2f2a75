"""Routes that change all jobs which match a filter."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, NotRequired

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StrictBool,
    StrictInt,
    StrictStr,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import from_json, to_json
from quart import Response
from typing_extensions import TypedDict

from jobs import strict_json
from jobs.errors import InvalidArguments, InvalidJson, Problem
from jobs.keys import Scope
from jobs.model import JobId, JobQuery, JobState
from jobs.pointers import problems_of

from . import times
from .asking import refused
from .body import read_json
from .extension import running
from .job_request import TEXT, TIME, whole_number
from .principal import visible
from .problems import INVALID, MALFORMED, MEDIA_TYPE, SLOW_BODY, SUBMITTING, TOO_LARGE
from .render import json_response
from .routes import Answer, Routes
from .schemas import EXAMPLE_ID, BulkResult

routes = Routes("Jobs")

AT_ONCE = 1000  #: jobs that one transaction changes, so that others get their turn
PAGE = 10_000  #: jobs that are looked up at once: for each page, all that wait are sorted
MAX_IDS = 1000
MAX_LIMIT = 100_000
DEFAULT_LIMIT = 10_000

CANCELLABLE = (JobState.PENDING, JobState.RETRY, JobState.STARTED)
RETRIABLE = (JobState.FAILURE, JobState.REVOKED)


def _milliseconds(value: Any) -> int:
    if not isinstance(value, str):
        raise ValueError(f"must be {times.HOW}")
    return times.milliseconds(value)


_Text = Annotated[StrictStr, WithJsonSchema(TEXT)]
_Time = Annotated[int, PlainValidator(_milliseconds), WithJsonSchema(TIME)]


class _Filter(TypedDict):
    task: NotRequired[Annotated[_Text, Field(description="Only jobs of this task.")]]
    queue: NotRequired[Annotated[_Text, Field(description="Only jobs of this queue.")]]
    owner: NotRequired[
        Annotated[_Text, Field(description="Only jobs of this owner; another one's, for admins.")]
    ]
    created_after: NotRequired[Annotated[_Time, Field(description="Not created before then.")]]
    created_before: NotRequired[Annotated[_Time, Field(description="Created before then.")]]
    ids: NotRequired[
        Annotated[
            list[_Text],
            Field(min_length=1, max_length=MAX_IDS, description="Only jobs with one of these ids."),
        ]
    ]
    limit: NotRequired[
        Annotated[
            StrictInt,
            Field(ge=1, le=MAX_LIMIT),
            BeforeValidator(whole_number),  # last: pydantic forgets the schema of bounds around it
            Field(
                description=f"How many jobs at most, the newest of each state first; {DEFAULT_LIMIT} if left out.",
            ),
        ]
    ]
    dry_run: NotRequired[
        Annotated[StrictBool, Field(description="Only say how many: change nothing.")]
    ]


NARROWING = ("state", "task", "queue", "owner", "created_after", "created_before", "ids")

_CONFIG = ConfigDict(
    extra="forbid",
    json_schema_extra={"not": {"propertyNames": {"enum": ["limit", "dry_run"]}}},
)


class CancelFilter(_Filter):
    """Which jobs to cancel: those that all members fit. One member at least narrows them."""

    __pydantic_config__ = _CONFIG  # type: ignore[misc]

    state: NotRequired[
        Annotated[
            Literal["PENDING", "RETRY", "STARTED"],
            Field(description="As shown; any of the three if left out."),
        ]
    ]


class RetryFilter(_Filter):
    """Which jobs to retry: those that all members fit. One member at least narrows them."""

    __pydantic_config__ = _CONFIG  # type: ignore[misc]

    state: NotRequired[
        Annotated[
            Literal["FAILURE", "REVOKED"], Field(description="Either of the two if left out.")
        ]
    ]


EXAMPLES = {
    "of a task, to see how many": {"task": "text.stats", "dry_run": True},
    "by id": {"ids": [EXAMPLE_ID]},
}
PROBLEMS = (MALFORMED, SLOW_BODY, TOO_LARGE, MEDIA_TYPE, INVALID, *SUBMITTING)
ABOUT = (
    f"All the caller's jobs that the filter fits, {AT_ONCE} in a transaction; what comes while it is at work may"
    " not be among them."
)

_cancel: TypeAdapter[Any] = TypeAdapter(CancelFilter)
_retry: TypeAdapter[Any] = TypeAdapter(RetryFilter)


@routes.add(
    "POST",
    "/jobs/cancel",
    "Cancel many jobs",
    scope=Scope.CANCEL,
    description=f"{ABOUT} Jobs that have not begun are revoked; running ones are asked to stop, then made to.",
    body=CancelFilter,
    examples=EXAMPLES | {"all that wait": {"state": "PENDING"}},
    answers=(Answer(200, "How many.", BulkResult),),
    problems=PROBLEMS,
)
async def cancel_jobs() -> Response:
    return await _changed(_cancel, CANCELLABLE, running().store.cancel_many)


@routes.add(
    "POST",
    "/jobs/retry",
    "Retry many jobs",
    scope=Scope.SUBMIT,
    description=f"{ABOUT} They run again as by `POST /jobs/<id>/retry`.",
    body=RetryFilter,
    examples=EXAMPLES | {"all that failed": {"state": "FAILURE"}},
    answers=(Answer(200, "How many.", BulkResult),),
    problems=PROBLEMS,
)
async def retry_jobs() -> Response:
    return await _changed(_retry, RETRIABLE, running().store.retry)


async def _changed(
    adapter: TypeAdapter[Any],
    states: Sequence[JobState],
    change: Callable[[Collection[JobId]], Awaitable[Collection[JobId]]],
) -> Response:
    wanted = await _read(adapter)
    limit, dry_run = wanted.pop("limit", DEFAULT_LIMIT), wanted.pop("dry_run", False)
    if "state" in wanted:
        states = [JobState(wanted.pop("state"))]
    matched = changed = 0
    more = False
    query = visible(JobQuery(limit=min(limit + 1, PAGE), **wanted))
    async for page in _matching(query, states):
        meant = page[: limit - matched]
        matched += len(meant)
        for at in range(0, 0 if dry_run else len(meant), AT_ONCE):
            changed += len(await change(meant[at : at + AT_ONCE]))
        if more := len(meant) < len(page):
            break
    result = {"matched": matched, "changed": changed, "more": more, "dry_run": dry_run}
    return json_response(to_json(result))


async def _matching(query: JobQuery, states: Sequence[JobState]) -> AsyncIterator[list[JobId]]:
    """The jobs that fit the query and are in one of these states, page by page."""
    store = running().store
    for state in states:
        following = replace(query, state=state)
        while True:
            page = await store.find(following)
            yield [job.id for job in page.jobs]
            if page.next_seq is None:
                break
            following = replace(following, before_seq=page.next_seq)


async def _read(adapter: TypeAdapter[Any]) -> dict[str, Any]:
    raw = await read_json(running().settings.max_body_bytes)
    try:
        strict_json.check(raw, max_bytes=None)
    except InvalidJson as error:
        raise refused(error, raw) from None
    try:
        wanted: dict[str, Any] = adapter.validate_json(raw)
    except ValidationError as error:
        raise InvalidArguments(problems_of(error, from_json(raw))) from None
    if not any(name in wanted for name in NARROWING):
        detail = f"says of no job that it is meant: give one of {', '.join(NARROWING)}"
        raise InvalidArguments([Problem("", detail)])
    return wanted
