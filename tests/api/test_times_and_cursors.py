"""What the wire's small forms read and write."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from service.api import cursor, times


def test_a_time_is_shown_in_utc_with_milliseconds() -> None:
    assert times.show(1_764_000_000_007) == "2025-11-24T16:00:00.007Z"
    assert times.show(None) is None


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-24T09:30:00Z", datetime(2026, 11, 24, 9, 30, tzinfo=UTC)),
        ("2026-11-24t09:30:00.5z", datetime(2026, 11, 24, 9, 30, 0, 500_000, tzinfo=UTC)),
        (
            "2026-11-24T09:30:00.1234567+02:00",
            datetime(2026, 11, 24, 7, 30, 0, 123_456, tzinfo=UTC),
        ),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("1900-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
        ("0001-01-01T00:00:00+10:00", datetime(1970, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59-10:00", datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)),
    ],
)
def test_an_rfc_3339_time_is_read(text: str, moment: datetime) -> None:
    assert times.read(text) == moment
    assert times.show(times.milliseconds(text))


@pytest.mark.parametrize(
    "text",
    ["", "now", "2026-11-24", "2026-11-24T09:30:00", "2026-13-24T09:30:00Z", "2026-11-24T25:00:00Z",
     "2026-11-24T09:30Z", "1764000000", "2026-11-24T09:30:00+25:00", "２026-11-24T09:30:00Z"],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        times.read(text)


def test_a_plus_that_the_query_string_ate_is_explained() -> None:
    with pytest.raises(ValueError, match="%2B"):
        times.read("2026-11-24T09:30:00 02:00")


def test_reading_and_showing_agree() -> None:
    zone = timezone(timedelta(hours=-3))
    text = datetime(2026, 11, 24, 9, 30, 0, 7_000, tzinfo=zone).isoformat()
    assert times.show(times.milliseconds(text)) == "2026-11-24T12:30:00.007Z"


@pytest.mark.parametrize("seq", [0, 1, 2**40, 2**63 - 1])
def test_a_cursor_comes_back_as_it_was(seq: int) -> None:
    assert cursor.unpack(cursor.pack(seq)) == seq


@pytest.mark.parametrize(
    "junk", ["", "1", "A" * 16, "8" + "0" * 15, "0" * 15 + "\n", "0" * 17, "٣" * 16, "\0" * 16]
)
def test_a_cursor_that_was_not_made_here_is_refused(junk: str) -> None:
    with pytest.raises(ValueError, match="not a cursor"):
        cursor.unpack(junk)
