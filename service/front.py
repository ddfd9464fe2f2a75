"""What `serve` puts around any app: the health answers, and an end to what is open at shutdown."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from jobs import Jobs, JobsError

from .api.problems import UNAVAILABLE, Refusal, unready

Message = Any  #: of ASGI: the servers' and frameworks' own types do not agree
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Any, Any], Awaitable[None]]


class Front:
    """An ASGI app that answers `/livez` and `/readyz` itself and passes everything else on.

    `end_streams` and `end` let go of clients that would otherwise hold the server open: the app sees
    its client disconnect, and stops as it would for that.
    """

    def __init__(self, app: App, jobs: Jobs) -> None:
        self._app, self._jobs = app, jobs
        self._open: set[_Exchange] = set()
        self._stopping = False

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _empty_lifespan(receive, send)
            return
        if (
            scope["type"] == "http"
            and scope["path"] in ("/livez", "/readyz")
            and scope["method"] in ("GET", "HEAD")
        ):
            await self._health(scope["path"], send)
            return
        exchange = _Exchange(scope, receive, send)
        self._open.add(exchange)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            self._open.discard(exchange)
        await exchange.finish()

    def end_streams(self) -> None:
        """Not ready from now on; end what has no end of its own: event streams and websockets."""
        self._stopping = True
        for exchange in list(self._open):
            if exchange.endless:
                exchange.cut()

    def end(self) -> None:
        """End every request that is still open."""
        for exchange in list(self._open):
            exchange.cut()

    async def _health(self, path: str, send: Send) -> None:
        if path == "/readyz":
            if self._stopping:
                await _problem(send, Refusal(UNAVAILABLE, "the service is shutting down"), path)
                return
            try:
                await self._jobs.check()
            except JobsError as error:
                await _problem(send, unready(error), path)
                return
        await _respond(send, 200, b"application/json", {"status": "ok"})


class _Exchange:
    """One request, or one websocket, under way."""

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._reader: asyncio.Task[Any] | None = None
        self._cut = self._started = self._finished = False
        self.endless = scope["type"] == "websocket"

    async def receive(self) -> Message:
        if self._cut:
            return self._disconnect()
        self._reader = asyncio.current_task()
        assert self._reader is not None
        try:
            return await self._receive()
        except asyncio.CancelledError:
            # Ours, unless the app cancelled its reader as well.
            if not self._cut or self._reader.uncancel() > 0:
                raise
            return self._disconnect()
        finally:
            self._reader = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            self.endless = any(
                name.lower() == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in message.get("headers", ())
            )
        elif message["type"] == "http.response.body":
            self._finished = not message.get("more_body", False)
        await self._send(message)

    def cut(self) -> None:
        """Let the app see its client go."""
        self._cut = True
        if self._reader is not None:
            self._reader.cancel()

    async def finish(self) -> None:
        """After a cut, leave the client with a whole answer where there can be one."""
        if not self._cut or self._scope["type"] != "http" or self._finished:
            return
        if not self._started:
            refusal = Refusal(UNAVAILABLE, "the service shut down before it could answer")
            await _problem(self._send, refusal, self._scope["path"])
        elif self.endless:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _disconnect(self) -> Message:
        if self._scope["type"] == "websocket":
            return {"type": "websocket.disconnect", "code": 1001}
        return {"type": "http.disconnect"}


async def _empty_lifespan(receive: Receive, send: Send) -> None:
    """The app's own lifespan is run beside the server (see `service.server`)."""
    for _ in range(2):
        message = await receive()
        await send({"type": f"{message['type']}.complete"})


async def _problem(send: Send, refusal: Refusal, path: str) -> None:
    kind = refusal.kind
    document = {
        "type": f"/problems/{kind.slug}",
        "title": kind.title,
        "status": kind.status,
        "detail": refusal.detail,
        "instance": quote(path),
    }
    await _respond(send, kind.status, b"application/problem+json", document, (b"retry-after", b"1"))


async def _respond(
    send: Send, status: int, kind: bytes, content: dict[str, Any], *more: tuple[bytes, bytes]
) -> None:
    body = json.dumps(content).encode()
    headers = [
        (b"content-type", kind),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
