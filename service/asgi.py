"""Answers without a framework, for what stands in front of the app."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from .api.body import LINGER_BYTES, LINGER_SECONDS
from .api.problems import Refusal

Message = Any  #: of ASGI: the servers' and frameworks' own types do not agree
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Any, Any], Awaitable[None]]
Fields = list[tuple[bytes, bytes]]


def answer(
    content: dict[str, Any], media_type: bytes = b"application/json"
) -> tuple[Fields, bytes]:
    """The header fields and the body of an answer in JSON."""
    body = json.dumps(content).encode()
    fields = [
        (b"content-type", media_type),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    return fields, body


def problem(refusal: Refusal, path: str) -> tuple[Fields, bytes]:
    """The header fields and the body of an answer that is a problem."""
    kind = refusal.kind
    fields, body = answer(
        {
            "type": f"/problems/{kind.slug}",
            "title": kind.title,
            "status": kind.status,
            "detail": refusal.detail,
            "instance": quote(path),
        },
        b"application/problem+json",
    )
    more = refusal.headers.items()
    return fields + [(name.lower().encode(), value.encode()) for name, value in more], body


async def refuse(scope: Message, receive: Receive, send: Send, refusal: Refusal, path: str) -> None:
    """Answer a request, or the handshake of a websocket, with a problem.

    What the client still sends is read on within bounds: a server that closes a connection with
    unread data in it resets it, and the client would lose the answer."""
    fields, body = problem(refusal, path)
    prefix = "http.response"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close"})
            return
        prefix = "websocket.http.response"
    status = refusal.kind.status
    await send({"type": f"{prefix}.start", "status": status, "headers": fields})
    await send({"type": f"{prefix}.body", "body": body, "more_body": True})
    if scope["type"] == "http":
        await _read_on(receive)
    await send({"type": f"{prefix}.body", "body": b"", "more_body": False})


async def _read_on(receive: Receive) -> None:
    size, more = 0, True
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while more and size < LINGER_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                more = message.get("more_body", False)
    except TimeoutError:
        pass
