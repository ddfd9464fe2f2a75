"""RFC 3339 on the wire, integer milliseconds inside."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:(\d\d)(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)",
    re.ASCII | re.IGNORECASE,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)

HOW = "an RFC 3339 time with its UTC offset, such as 2026-11-24T09:30:00Z"


def show(ms: int | None) -> str | None:
    """`2026-11-24T09:30:00.125Z`."""
    if ms is None:
        return None
    return f"{_second(ms // 1000)}.{ms % 1000:03d}Z"


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def read(text: str) -> datetime:
    """The moment an RFC 3339 text names; before 1970 or past the calendar's end is brought inside.

    Raises `ValueError`, also without an offset: a naive time could mean any moment."""
    found = _RFC3339.fullmatch(text)
    if found is None:
        if _RFC3339.fullmatch(text.replace(" ", "+")):
            raise ValueError(f"must be {HOW}; in a query string + is written %2B")
        raise ValueError(f"must be {HOW}")
    leap = found[1] == "60"
    try:
        moment = datetime.fromisoformat(text[:17] + "59" + text[19:] if leap else text.upper())
    except ValueError as error:
        raise ValueError(f"must be {HOW}: {error}") from None
    try:
        moment = moment.astimezone(UTC) + timedelta(seconds=leap)
    except OverflowError:
        return _EPOCH if moment.year < 2 else _LAST
    return min(max(moment, _EPOCH), _LAST)


def milliseconds(text: str) -> int:
    """The same, in milliseconds since the epoch."""
    return int((read(text) - _EPOCH) / timedelta(milliseconds=1))
