"""What of a job is sealed at rest, in one piece: its request's snapshot, and its secret arguments.

Two JSON texts, each on a line of its own; written compactly, neither has a line feed in it.
"""


def pack(snapshot: bytes | None, secrets: str | None) -> bytes | None:
    """Both in one; None where there is neither."""
    if secrets is None:
        return snapshot
    return (snapshot or b"") + b"\n" + secrets.encode()


def unpack(packed: bytes) -> tuple[bytes | None, str | None]:
    """What `pack` has packed."""
    snapshot, line_feed, secrets = packed.partition(b"\n")
    return snapshot or None, secrets.decode() if line_feed else None
