"""One job for each key, however often its request is sent.

After https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header.
"""

import hashlib
from dataclasses import dataclass
from uuid import UUID

from .model import JobId

_LABEL = b"quart-jobs idempotency key 1"


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A client's name for one request. `owner` is the caller it belongs to, `fingerprint` tells one request
    from another."""

    text: str
    owner: str | None
    fingerprint: str

    def job_id(self) -> JobId:
        """The id of the only job with this key of this owner: a UUIDv8 (RFC 9562 §5.8)."""
        parts = (_LABEL, (self.owner or "").encode(), self.text.encode())
        digest = hashlib.sha256(b"\0".join(parts)).digest()[:16]
        bits = int.from_bytes(digest, "big")
        bits = bits & ~(0xF << 76) | 8 << 76
        bits = bits & ~(0x3 << 62) | 2 << 62
        return JobId(str(UUID(int=bits)))

    def of_item(self, number: int) -> "IdempotencyKey":
        """The key of one job of a batch with this key. No client can send it: there is a space in it."""
        return IdempotencyKey(f"{self.text} {number}", self.owner, self.fingerprint)


def fingerprint(*parts: bytes) -> str:
    """Tells requests made of these parts apart."""
    made = hashlib.sha256()
    for part in parts:
        made.update(len(part).to_bytes(8, "big"))
        made.update(part)
    return made.hexdigest()
