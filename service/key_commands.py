"""What `quart-jobs keys` does."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from jobs.errors import ConfigurationError
from jobs.key_ring import KeyRing
from jobs.keys import ApiKey, Scope, parts
from jobs.model import now_ms
from jobs.settings import Settings
from jobs.stores import open_store

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LONGEST = 100 * 366 * 86_400
_HEAD = ("id", "name", "owner", "scopes", "created", "expires", "state")


def scopes(text: str) -> frozenset[Scope]:
    """Those of a comma-separated list. Raises `ConfigurationError`."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [name for name in names if name not in list(Scope)]
    if unknown or not names:
        raise ConfigurationError(
            f"--scopes {text!r}: expected one or more of {', '.join(Scope)}, comma-separated"
        )
    return frozenset(map(Scope, names))


def seconds(duration: str | None) -> int | None:
    """How long `90d` is. Raises `ConfigurationError`."""
    if duration is None:
        return None
    match = re.fullmatch(r"(\d{1,10})([smhdw])", duration, re.ASCII)
    long = 0 if match is None else int(match[1]) * _UNITS[match[2]]
    if not 0 < long <= _LONGEST:
        raise ConfigurationError(
            f"--expires {duration!r}: expected a number of s, m, h, d or w, such as 90d"
        )
    return long


async def add(settings: Settings, key: ApiKey) -> None:
    """Keep a key in the database that the settings name, creating that if need be. Raises `StoreError`."""
    async with open_store(settings) as store:
        await KeyRing(store).add(key)


async def known(settings: Settings) -> Sequence[ApiKey]:
    """All keys there ever were. Raises `StoreError`."""
    async with open_store(settings) as store:
        return await store.keys()


async def revoke(settings: Settings, key_id: str) -> None:
    """End a key. Raises `StoreError`, and `ConfigurationError` if there is none with this id."""
    whole = parts(key_id)
    key_id = whole[0] if whole else key_id  # who pastes a key that leaked wants it gone
    async with open_store(settings) as store:
        if not await KeyRing(store).revoke(key_id):
            raise ConfigurationError(
                f"no API key has that id in {store.location}: `quart-jobs keys list` shows them"
            )


def table(keys: Sequence[ApiKey]) -> Iterator[str]:
    """The keys in lines of aligned columns."""
    now = now_ms()
    rows = [_HEAD, *(_row(key, now) for key in keys)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def _row(key: ApiKey, now: int) -> tuple[str, ...]:
    state = "good" if key.holds(now) else "revoked" if key.revoked_at is not None else "expired"
    given = ",".join(sorted(key.scopes))
    return key.id, key.name, key.owner, given, _day(key.created_at), _day(key.expires_at), state


def _day(moment: int | None) -> str:
    if moment is None:
        return "never"
    return datetime.fromtimestamp(moment / 1000, UTC).strftime("%Y-%m-%d %H:%M")
