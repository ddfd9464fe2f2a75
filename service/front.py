"""What `serve` puts around any app: the health answers, a limit to what is under way at one time, and an
end to that at shutdown."""

import asyncio
from typing import Any

from jobs import Jobs, JobsError

from .api.problems import OVERLOADED, UNAVAILABLE, Refusal, unready
from .asgi import App, Fields, Message, Receive, Send, answer, problem, refuse
from .guard import is_health

_RETRY = {"Retry-After": "1"}


class Front:
    """An ASGI app that answers `/livez` and `/readyz` itself and passes everything else on.

    `end_streams` and `end` let go of clients that would otherwise hold the server open: the app sees
    its client disconnect, and stops as it would for that.

    Args:
        max_requests: over so many under way, others are refused; what has no end is not counted.
    """

    def __init__(self, app: App, jobs: Jobs, *, max_requests: int) -> None:
        self._app, self._jobs, self._max_requests = app, jobs, max_requests
        self._open: set[_Exchange] = set()
        self._endless: set[_Exchange] = set()
        self._stopping = False

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _empty_lifespan(receive, send)
            return
        if is_health(scope):
            await self._health(scope["path"], send)
            return
        if len(self._open) - len(self._endless) >= self._max_requests:
            why = f"{self._max_requests} requests are under way (setting: max_requests)"
            refusal = Refusal(OVERLOADED, why, headers=_RETRY)
            await refuse(scope, receive, send, refusal, scope["path"])
            return
        exchange = _Exchange(scope, receive, send, self._endless)
        self._open.add(exchange)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            self._open.discard(exchange)
            self._endless.discard(exchange)
        await exchange.finish()

    def end_streams(self) -> None:
        """Not ready from now on; end what has no end of its own: event streams and websockets."""
        self._stopping = True
        self._jobs.stopping.set()
        for exchange in list(self._endless):
            exchange.cut()

    def end(self) -> None:
        """End every request that is still open."""
        for exchange in list(self._open):
            exchange.cut()

    async def _health(self, path: str, send: Send) -> None:
        if path == "/readyz":
            if self._stopping:
                await _problem(send, _stopping("the service is shutting down"), path)
                return
            try:
                await self._jobs.check()
            except JobsError as error:
                await _problem(send, unready(error), path)
                return
        await _respond(send, 200, *answer({"status": "ok"}))


class _Exchange:
    """One request, or one websocket, under way."""

    def __init__(
        self, scope: Message, receive: Receive, send: Send, endless: "set[_Exchange]"
    ) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._reader: asyncio.Task[Any] | None = None
        self._cut = self._started = self._finished = self._streams = False
        self._endless = endless
        if scope["type"] == "websocket":
            endless.add(self)

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
            self._streams = any(
                name.lower() == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in message.get("headers", ())
            )
            if self._streams:
                self._endless.add(self)
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
            refusal = _stopping("the service shut down before it could answer")
            await _problem(self._send, refusal, self._scope["path"])
        elif self._streams:
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


def _stopping(why: str) -> Refusal:
    return Refusal(UNAVAILABLE, why, headers=_RETRY)


async def _problem(send: Send, refusal: Refusal, path: str) -> None:
    await _respond(send, refusal.kind.status, *problem(refusal, path))


async def _respond(send: Send, status: int, headers: Fields, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
