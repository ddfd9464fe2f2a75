"""The one written form that a client may use for a time, a duration, a UUID or a decimal number.

Pydantic also reads "1764000000" as a datetime, "1 day" as a timedelta and " 1_0" as a Decimal, which no
published JSON Schema says. What clients send is held to these patterns, and the schemas publish them.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic_core import CoreSchema, SchemaValidator, core_schema

_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK = r"[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
_OFFSET = r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
_SECONDS = r"[0-9]{1,9}(\.[0-9]{1,6})?S"
_TIME_PART = f"T([0-9]{{1,6}}H([0-9]{{1,6}}M)?({_SECONDS})?|[0-9]{{1,6}}M({_SECONDS})?|{_SECONDS})"

DATETIME = f"^{_DATE}[Tt]{_CLOCK}{_OFFSET}$"
NAIVE_DATETIME = f"^{_DATE}[Tt]{_CLOCK}$"
DATE = f"^{_DATE}$"
TIME = f"^{_CLOCK}{_OFFSET}?$"
DURATION = f"^-?P([0-9]{{1,6}}W|[0-9]{{1,8}}D({_TIME_PART})?|{_TIME_PART})$"
UUID = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"
DECIMAL = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([Ee][+-]?[0-9]{1,3})?$"

_FORMS: Mapping[str, tuple[str, str]] = {
    "datetime": (DATETIME, "a time with its UTC offset, such as 2026-11-24T09:30:00Z"),
    "naive datetime": (NAIVE_DATETIME, "a time without UTC offset, such as 2026-11-24T09:30:00"),
    "date": (DATE, "a date, such as 2026-11-24"),
    "time": (TIME, "a time of day, such as 09:30:00"),
    "timedelta": (DURATION, "an ISO 8601 duration, such as P1DT2H or PT1.5S"),
    "uuid": (UUID, "a UUID, such as 0199f2f0-7c3a-7000-8a61-3f1d2c9b5e77"),
    "decimal": (DECIMAL, "a decimal number, such as 12.50"),
}

_DATA = frozenset(
    {"metadata", "serialization", "default"}
)  #: of a core schema, no schemas themselves


def held_to_forms(schema: CoreSchema) -> SchemaValidator | None:
    """A validator as `schema` says that admits only these forms; None if it has none of these types."""
    found: list[str] = []
    held = _held(schema, found)
    return SchemaValidator(held, _use_prebuilt=False) if found else None


def _held(part: Any, found: list[str]) -> Any:
    if isinstance(part, list | tuple):
        return type(part)(_held(item, found) for item in part)
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    if not isinstance(kind, str):  # the fields of a model, by name
        return {key: _held(value, found) for key, value in part.items()}
    copy = {key: value if key in _DATA else _held(value, found) for key, value in part.items()}
    if kind == "datetime" and part.get("tz_constraint") == "naive":
        kind = "naive datetime"
    if kind not in _FORMS:
        return copy
    found.append(kind)
    return core_schema.no_info_plain_validator_function(_reader(copy, kind))


def _reader(schema: Any, kind: str) -> Callable[[Any], Any]:
    pattern, name = _FORMS[kind]
    form = re.compile(pattern.removesuffix("$"))
    inner = SchemaValidator(schema)

    def read(value: Any) -> Any:
        if isinstance(value, str):
            if form.fullmatch(value):
                return inner.validate_python(value)
        elif kind == "decimal" and isinstance(value, int | float) and not isinstance(value, bool):
            return inner.validate_python(str(value))
        raise ValueError(f"must be {name}")

    return read
