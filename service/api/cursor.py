"""The opaque cursor of a list: the sequence number it goes on from. Whatever has its form is a place in
the list, so that the published schema says all there is to say."""

import re

PATTERN = "^[0-7][0-9a-f]{15}$"

_form = re.compile(PATTERN.removesuffix("$"))


def pack(seq: int) -> str:
    """The cursor that goes on after the job with this `seq`."""
    return f"{seq:016x}"


def unpack(text: str) -> int:
    """What `pack` was given. Raises `ValueError`."""
    if not _form.fullmatch(text):
        raise ValueError(
            "is not a cursor from this list: take it from links.next, or leave it out to begin at the newest"
        )
    return int(text, 16)
