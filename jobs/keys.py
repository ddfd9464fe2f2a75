"""API keys: what one is, how one is made, and what of it is kept."""

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from .errors import ConfigurationError
from .model import now_ms

MAX_NAME = 255  #: characters of a key's name, and of an owner


class Scope(StrEnum):
    """What a caller of the API may do. `admin` is all of it, to everyone's jobs."""

    SUBMIT = "submit"
    READ = "read"
    CANCEL = "cancel"
    ADMIN = "admin"


DEFAULT_SCOPES = frozenset({Scope.SUBMIT, Scope.READ, Scope.CANCEL})


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What is kept of a key. Its text is not."""

    id: str
    sha256: bytes  #: of the secret part
    name: str
    owner: str  #: whose jobs it submits and sees
    scopes: frozenset[Scope]
    created_at: int  #: ms, as all times here
    expires_at: int | None = None
    revoked_at: int | None = None

    def holds(self, now: int) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


# 43 characters of base64url are 256 bits.
_TEXT = re.compile(r"qj_([0-9a-f]{12})_([A-Za-z0-9_-]{43})", re.ASCII)


def parts(text: str) -> tuple[str, bytes] | None:
    """The id of a key and the hash of its secret; None if the text is no key."""
    match = _TEXT.fullmatch(text)
    return None if match is None else (match[1], _hash(match[2]))


def holds_key(text: str) -> bool:
    """Whether there is a key somewhere in the text."""
    return _TEXT.search(text) is not None


def new_key(
    name: str,
    *,
    owner: str | None = None,
    scopes: Iterable[Scope] = DEFAULT_SCOPES,
    lasts: float | None = None,
) -> tuple[ApiKey, str]:
    """A key, and its text, which cannot be had again: `qj_<id>_<secret>`.

    Args:
        owner: by default the name. Keys with one owner see the same jobs.
        lasts: seconds after which it expires.

    Raises `ConfigurationError`.
    """
    owner = name if owner is None else owner
    for what, value in (("name", name), ("owner", owner)):
        if not value or len(value) > MAX_NAME or not value.isprintable():
            raise ConfigurationError(
                f"the {what} of a key is 1 to {MAX_NAME} printable characters, not {value!r}"
            )
    now, key_id, secret = now_ms(), secrets.token_hex(6), secrets.token_urlsafe(32)
    key = ApiKey(
        id=key_id,
        sha256=_hash(secret),
        name=name,
        owner=owner,
        scopes=frozenset(scopes),
        created_at=now,
        expires_at=None if lasts is None else now + round(lasts * 1000),
    )
    return key, f"qj_{key_id}_{secret}"


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
