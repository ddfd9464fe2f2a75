"""The written forms that clients may use."""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, NaiveDatetime, TypeAdapter, ValidationError

from jobs.forms import held_to_forms


class Trip(BaseModel):
    """Field names that core schemas also use."""

    type: datetime
    default: date | None = None
    metadata: list[UUID] = []
    stops: "dict[str, Trip]" = {}


def _read(annotation: Any, text: str) -> Any:
    validator = held_to_forms(TypeAdapter(annotation).core_schema)
    assert validator is not None
    return validator.validate_json(text, strict=True)


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (datetime, ["2026-11-24T09:30:00Z", "2026-11-24T09:30:00.123456+01:00"],
         ["2026-11-24T09:30:00", "1764000000", "2026-11-24 09:30:00Z", "2026-11-24T09:30Z", "2026-11-24T09:30:00Z\\n"]),
        (NaiveDatetime, ["2026-11-24T09:30:00"], ["2026-11-24T09:30:00Z", "0"]),
        (date, ["2026-11-24"], ["2026-02-30", "0", "2026-11-24T00:00:00"]),
        (time, ["09:30:00", "09:30:00.5+01:00"], ["09:30", "34200"]),
        (timedelta, ["P1D", "PT1.5S", "-P1DT2H3M4S", "P2W"], ["1 day", "P", "PT", "P1DT", "01:00:00"]),
        (UUID, ["0199f2f0-7c3a-7000-8a61-3f1d2c9b5e77"], ["0199f2f07c3a70008a613f1d2c9b5e77"]),
        (Decimal, ["1", "-1.50", "1e3"], [" 1", "1_0", "NaN", "", "٣"]),
        (Annotated[Decimal, Field(gt=1)], ["1.5"], ["0.5"]),
    ],
)  # fmt: skip
def test_only_the_published_form_is_read(annotation: Any, good: list[str], bad: list[str]) -> None:
    for text in good:
        expected = TypeAdapter(annotation).validate_strings(text)
        assert _read(annotation, f'"{text}"') == expected
    for text in bad:
        with pytest.raises(ValidationError):
            _read(annotation, f'"{text}"')


def test_a_number_is_a_decimal_but_no_time() -> None:
    assert _read(Decimal, "1.5") == Decimal("1.5")
    for annotation in (datetime, date, timedelta):
        with pytest.raises(ValidationError):
            _read(annotation, "1")


def test_types_within_models_are_held_to_their_forms() -> None:
    good = '{"type": "2026-11-24T09:30:00Z", "stops": {"a": {"type": "2026-11-24T09:30:00Z"}}}'
    assert isinstance(_read(Trip, good), Trip)
    for bad in (
        '{"type": "0"}',
        '{"type": "2026-11-24T09:30:00Z", "default": "0"}',
        '{"type": "2026-11-24T09:30:00Z", "metadata": ["0199f2f07c3a70008a613f1d2c9b5e77"]}',
        '{"type": "2026-11-24T09:30:00Z", "stops": {"a": {"type": "0"}}}',
    ):
        with pytest.raises(ValidationError):
            _read(Trip, bad)


def test_a_schema_without_such_types_needs_no_validator_of_its_own() -> None:
    assert held_to_forms(TypeAdapter(dict[str, int]).core_schema) is None
