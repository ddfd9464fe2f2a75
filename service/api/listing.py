"""The query of `GET /jobs`."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from werkzeug.datastructures import MultiDict

from jobs.errors import InvalidArguments, Problem
from jobs.model import JobQuery, JobState

from . import cursor, times
from .job_request import TEXT, TIME
from .routes import Parameter

MAX_LIMIT = 1000
DEFAULT_LIMIT = 100

PARAMETERS = (
    Parameter("state", "As shown: RETRY jobs wait for another attempt.", {"enum": list(JobState)}),
    Parameter("task", "Only jobs of this task.", TEXT),
    Parameter("queue", "Only jobs of this queue.", TEXT),
    Parameter("owner", "Only jobs of this owner; another one's, for admins.", TEXT),
    Parameter("created_after", "Not created before then.", TIME, example="2026-11-24T09:30:00Z"),
    Parameter("created_before", "Created before then.", TIME, example="2026-11-25T00:00:00Z"),
    Parameter(
        "limit",
        f"How many; {DEFAULT_LIMIT} if left out.",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT},
    ),
    Parameter(
        "cursor",
        "From `links.next`: goes on after that page.",
        {"type": "string", "pattern": cursor.PATTERN},
    ),
)


def read(args: MultiDict[str, str]) -> JobQuery:
    """The query that a query string asks for. Raises `InvalidArguments` with a problem per wrong name
    or value."""
    values: dict[str, Any] = {}
    problems = []
    for name, texts in args.lists():
        if name not in _READERS:
            problems.append(
                Problem(pointer(name), f"is not known; known are {', '.join(_READERS)}")
            )
        elif len(texts) > 1:
            problems.append(Problem(pointer(name), "is given more than once"))
        else:
            field, reader = _READERS[name]
            try:
                values[field] = reader(texts[0])
            except ValueError as error:
                problems.append(Problem(pointer(name), str(error)))
    if problems:
        raise InvalidArguments(problems)
    return JobQuery(**{"limit": DEFAULT_LIMIT, **values})


def link(path: str, args: MultiDict[str, str], following: str) -> str:
    """The same list, from the cursor on."""
    kept = [(name, value) for name, value in args.items() if name != "cursor"]
    return f"{path}?{urlencode([*kept, ('cursor', following)])}"


def _state(text: str) -> JobState:
    if text not in JobState.__members__:
        raise ValueError(f"must be one of {', '.join(JobState)}")
    return JobState(text)


def _text(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character")
    return text


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= MAX_LIMIT):
        raise ValueError(f"must be a whole number from 1 to {MAX_LIMIT}")
    return int(text)


_READERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "state": ("state", _state),
    "task": ("task", _text),
    "queue": ("queue", _text),
    "owner": ("owner", _text),
    "created_after": ("created_after", times.milliseconds),
    "created_before": ("created_before", times.milliseconds),
    "limit": ("limit", _limit),
    "cursor": ("before_seq", cursor.unpack),
}


def pointer(name: str) -> str:
    """Where in the query, as problems say it."""
    return f"/query/{name.replace('~', '~0').replace('/', '~1')}"
