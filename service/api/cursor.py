"""The opaque cursor of a list: the sequence number it goes on from, with a check that it is ours."""

import base64
import binascii
import re
import struct
import zlib

_FORM = re.compile(r"[A-Za-z0-9_-]{16}", re.ASCII)
_SALT = b"quart-jobs list 1"


def pack(seq: int) -> str:
    """The cursor that goes on after the job with this `seq`."""
    raw = struct.pack(">q", seq)
    return base64.urlsafe_b64encode(
        raw + struct.pack(">I", zlib.crc32(raw, zlib.crc32(_SALT)))
    ).decode()


def unpack(text: str) -> int:
    """What `pack` was given. Raises `ValueError` for anything it did not make."""
    if not _FORM.fullmatch(text):
        raise ValueError(_JUNK)
    try:
        raw = base64.urlsafe_b64decode(text)
    except binascii.Error:
        raise ValueError(_JUNK) from None
    seq = int(struct.unpack(">q", raw[:8])[0])
    if pack(seq) != text:
        raise ValueError(_JUNK)
    return seq


_JUNK = "is not a cursor from this list: take it from links.next, or leave it out to begin at the newest"
