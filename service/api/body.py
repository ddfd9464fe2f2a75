"""Request bodies: read with a limit, and left alone with care."""

import asyncio
import json
from collections.abc import AsyncIterator
from time import monotonic

from quart import request
from quart.wrappers.request import Body
from werkzeug.exceptions import HTTPException

from .extension import running
from .problems import MEDIA_TYPE, SLOW_BODY, TOO_LARGE, Refusal
from .routes import current_request

JSON_LINES = ("application/jsonl", "application/x-ndjson")

LINGER_BYTES = 67_108_864
LINGER_SECONDS = 5.0


async def read_json(limit: int, setting: str = "max_body_bytes") -> bytes:
    """The body, not yet parsed. Raises `Refusal` if it is not declared to be JSON, or is over `limit`
    bytes (which `setting` says), or does not come in time."""
    here = current_request()
    media = here.headers.get("Content-Type", "")
    if media != "application/json" and not _declares_json(media):
        said = f"it was declared to be {media!r}" if media else "it was not declared to be anything"
        raise Refusal(
            MEDIA_TYPE, f"the body must be JSON, with Content-Type: application/json; {said}"
        )
    if (here.content_length or 0) > limit:
        raise _too_large(limit, setting)
    data = bytearray()
    for _ in range(2):
        if _at_hand(here.body, data, limit, setting):
            return bytes(data)
        await asyncio.sleep(0)
    seconds = running().settings.body_timeout
    try:
        async with asyncio.timeout(seconds):
            await _read(here.body, data, limit, setting)
    except TimeoutError:
        raise _too_slow(seconds) from None
    return bytes(data)


async def _read(body: Body, data: bytearray, limit: int, setting: str) -> None:
    async for piece in body:
        data += piece
        if len(data) > limit:
            raise _too_large(limit, setting)


def declares_lines() -> bool:
    """Whether the body at hand is declared to be JSON Lines, by either of its two names."""
    media = current_request().headers.get("Content-Type", "")
    return media.partition(";")[0].strip().lower() in JSON_LINES


async def read_lines(limit: int, setting: str, longest: int) -> AsyncIterator[list[bytes]]:
    """The lines of the body that are not blank, as they come. Raises `Refusal` when there are more than `limit`
    bytes (which `setting` says), a line is over `longest`, or waiting for them takes too long."""
    here = current_request()
    if (here.content_length or 0) > limit:
        raise _too_large(limit, setting)
    rest, size = b"", 0
    async for piece in _pieces(here.body):
        size += len(piece)
        if size > limit:
            raise _too_large(limit, setting)
        *lines, rest = (rest + piece).split(b"\n")
        if max(map(len, (rest, *lines))) > longest:
            raise _too_large_line(longest)
        yield [line for line in lines if line.strip()]
    if rest.strip():
        yield [rest]


async def _pieces(body: Body) -> AsyncIterator[bytes]:
    seconds = running().settings.body_timeout
    left = seconds
    while True:
        began = monotonic()
        try:
            async with asyncio.timeout(left):
                piece = await anext(body)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise _too_slow(seconds) from None
        left -= monotonic() - began  # what is done with the piece is not the client's time
        yield piece


def _at_hand(body: Body, data: bytearray, limit: int, setting: str) -> bool:
    """Read what has come, and say whether it is all: nearly always it is, and a timer for each body
    costs a submission a tenth of its time."""
    reading = _read(body, data, limit, setting)
    try:
        reading.send(None)
    except StopIteration:
        return True
    reading.close()
    return False


async def lingering(answer: bytes, body: Body) -> AsyncIterator[bytes]:
    """A response body that, once sent, reads on what the client still sends, within bounds.

    A server that closes a connection with unread data in it resets it, and a client that sends its
    whole body before it reads would lose the answer."""
    yield answer
    size = 0
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            async for piece in body:
                size += len(piece)
                if size > LINGER_BYTES:
                    return
    except (TimeoutError, HTTPException):
        return


def has_body() -> bool:
    """Whether the request came with a body."""
    return bool(request.content_length) or "Transfer-Encoding" in request.headers


def is_json(raw: bytes) -> bool:
    """Whether this is JSON by its syntax, if not by what it holds."""
    try:
        json.loads(
            raw.decode()
        )  # NaN passes: it is told apart, with a pointer, as what cannot be kept
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def _declares_json(media: str) -> bool:
    kind = media.partition(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


def _too_large(limit: int, setting: str) -> Refusal:
    return Refusal(TOO_LARGE, f"the body may have {limit} bytes at most (setting: {setting})")


def _too_large_line(longest: int) -> Refusal:
    return Refusal(TOO_LARGE, f"a line may have {longest} bytes at most (setting: max_body_bytes)")


def _too_slow(seconds: float) -> Refusal:
    return Refusal(
        SLOW_BODY,
        f"the body did not arrive within {seconds:g} s (setting: body_timeout)",
        headers={"Connection": "close"},
    )
