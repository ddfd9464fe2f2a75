"""The body of `POST /jobs`: how it is read, and its JSON Schema."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, PlainValidator, WithJsonSchema
from typing_extensions import TypedDict

from jobs.submission import MAX_ATTEMPTS, MAX_PRIORITY, MAX_SECONDS, QUEUE_PATTERN

from . import times

TIME: dict[str, Any] = {"type": "string", "format": "date-time"}
SECONDS: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": MAX_SECONDS}
TEXT: dict[str, Any] = {"type": "string", "pattern": "^[^\\u0000]*$"}


def _given(read: Callable[[Any], Any]) -> PlainValidator:
    """Reads a member that may be left out but not be null."""

    def validate(value: Any) -> Any:
        if value is None:
            raise ValueError("must not be null: leave it out")
        return read(value)

    return PlainValidator(validate)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    return value


def _moment(value: Any) -> datetime:
    if not isinstance(value, str):
        raise ValueError(f"must be {times.HOW}")
    return times.read(value)


def whole_number(value: Any) -> Any:
    """JSON Schema counts 3.0 as an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _collection(value: Any) -> Any:
    if not isinstance(value, dict | list):
        raise ValueError("must be an object (arguments by name) or an array (in order)")
    return value


_same = _given(lambda value: value)


class JobRequest(TypedDict):
    """A job to run. All but `task` may be left out; what the options may be is judged by
    `jobs.submission.Options`, from whose bounds the schemas here are made."""

    __pydantic_config__ = ConfigDict(  # type: ignore[misc]
        extra="forbid",
        json_schema_extra={
            "not": {"required": ["countdown", "eta"]},
            "description": "A job to run. All but `task` may be left out; `countdown` excludes `eta`.",
        },
    )

    task: Annotated[
        str, _given(_text), WithJsonSchema(TEXT), Field(description="The name of the task.")
    ]
    args: NotRequired[
        Annotated[
            Any,
            _given(_collection),
            WithJsonSchema({"type": ["object", "array"]}),
            Field(description="Its arguments: an object by name, or an array in order."),
        ]
    ]
    queue: NotRequired[
        Annotated[
            Any,
            _same,
            WithJsonSchema({"type": "string", "pattern": QUEUE_PATTERN}),
            Field(description="Instead of the task's own queue."),
        ]
    ]
    priority: NotRequired[
        Annotated[
            Any,
            _given(whole_number),
            WithJsonSchema({"type": "integer", "minimum": -MAX_PRIORITY, "maximum": MAX_PRIORITY}),
            Field(description="Higher runs first. Instead of the task's own."),
        ]
    ]
    countdown: NotRequired[
        Annotated[Any, _same, WithJsonSchema(SECONDS), Field(description="Seconds to wait first.")]
    ]
    eta: NotRequired[
        Annotated[Any, _given(_moment), WithJsonSchema(TIME), Field(description="Not before then.")]
    ]
    expires: NotRequired[
        Annotated[
            Any,
            _given(lambda value: _moment(value) if isinstance(value, str) else value),
            WithJsonSchema({"anyOf": [SECONDS, TIME]}),
            Field(
                description="If it has not begun by then (seconds from now, or a time): REVOKED."
            ),
        ]
    ]
    timeout: NotRequired[
        Annotated[
            Any,
            _same,
            WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": MAX_SECONDS}),
            Field(description="Seconds that one attempt may take."),
        ]
    ]
    max_attempts: NotRequired[
        Annotated[
            Any,
            _given(whole_number),
            WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_ATTEMPTS}),
            Field(description="How often it may be tried in all."),
        ]
    ]
