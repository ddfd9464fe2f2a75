"""Quart: a request as a snapshot, and a snapshot as a live context again."""

import inspect
from collections.abc import AsyncIterator, Generator, Mapping
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, cast
from urllib.parse import quote

from hypercorn.typing import HTTPScope
from pydantic import JsonValue
from quart import Quart, Request, g, request
from quart import current_app as _app
from quart import has_app_context as _has_app
from quart import has_request_context as _has_request
from quart.ctx import AppContext
from werkzeug.datastructures import Headers

from jobs.errors import BadContext, BodyNotCarried
from jobs.keys import holds_key
from jobs.snapshot import Carrier, RequestSnapshot

if TYPE_CHECKING:
    from . import Openable

_NO_ADDRESS = "<local>"  #: what Quart has where the server knows no client address

__all__ = ["current_app", "current_request", "g", "needs_loop", "open_with", "restored", "take"]

needs_loop = True


def current_app() -> Quart | None:
    """The app whose context this is."""
    return _app._get_current_object() if _has_app() else None  # type: ignore[attr-defined]  # noqa: SLF001


def current_request() -> Request | None:
    """The request that is being handled here; a websocket is none."""
    return request._get_current_object() if _has_request() else None  # type: ignore[attr-defined]  # noqa: SLF001


def open_with(app: Quart, jobs: "Openable") -> None:
    """Open before the server serves, close after."""

    async def start() -> None:
        await jobs.__aenter__()

    async def close() -> None:
        await jobs.__aexit__(None, None, None)

    app.before_serving(start)
    app.after_serving(close)


def take(request: Request, values: dict[str, JsonValue]) -> RequestSnapshot:
    """The request as it is now; `values` is what travels of `g`.

    A client-sent `Remote-Addr` header is left out, because Quart has one of its own making, which is
    where the client's address is read from. An API key of ours opens what no task has business with,
    and does not travel either.
    """
    return RequestSnapshot(
        method=request.method,
        scheme=request.scheme,
        host=request.host,
        root_path=request.root_path,
        path=request.path,
        query_string=request.query_string.decode("latin-1"),
        headers=tuple(pair for pair in request.headers if _travels(*pair)),
        client=_client(request),
        http_version=request.http_version,
        globals=values,
    )


def _travels(name: str, value: str) -> bool:
    lower = name.lower()
    return lower != "remote-addr" and not (lower == "authorization" and holds_key(value))


def _client(request: Request) -> str | None:
    client = request.scope.get("client")
    if client:
        return client[0]
    first = next(iter(request.headers), None)
    return _NO_ADDRESS if first == ("Remote-Addr", _NO_ADDRESS) else None


class restored:  # noqa: N801 - read as `async with restored(…)`
    """The context of a job: its request's, or without a snapshot the app's.

    `before_request` functions do not run again, teardown functions do run. Setting `result` and leaving
    without an exception runs, if `after_request`, the functions that see each response, on one made of
    the result; what they change is discarded, and the session is not saved.
    Entering raises `BadContext`.
    """

    def __init__(
        self,
        app: Quart,
        snapshot: RequestSnapshot | None,
        carriers: Mapping[str, Carrier],
        *,
        after_request: bool = False,
    ) -> None:
        self._app, self._snapshot, self._carriers = app, snapshot, carriers
        self._after_request = after_request and snapshot is not None
        self._contexts: list[Any] = []
        self.result: Any = None

    async def __aenter__(self) -> Self:
        if self._snapshot is None:
            await self._push(self._app.app_context())
            return self
        try:
            context = self._app.request_context(_request(self._app, self._snapshot))
            if not isinstance(context, AppContext):
                # Quart 0.22 would share the app context, and `g`, of a caller who has one.
                await self._push(self._app.app_context())
            await self._push(context)
            for name, value in self._snapshot.globals.items():
                setattr(g, name, await self._loaded(name, value))
        except BaseException as error:
            await self._pop(error)
            if isinstance(error, BadContext) or not isinstance(error, Exception):
                raise
            raise BadContext(f"the request's context cannot be restored: {error!r}") from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._after_request and error is None:
                await self._see_response()
        except BaseException as raised:
            error = raised
            raise
        finally:
            await self._pop(error)

    async def _push(self, context: Any) -> None:
        self._contexts.append(context)
        await context.push()

    async def _pop(self, error: BaseException | None) -> None:
        try:
            while self._contexts:
                await self._contexts.pop().pop(error)
        finally:
            if self._contexts:  # a teardown function raised; the others are to run all the same
                await self._pop(error)

    async def _loaded(self, name: str, value: Any) -> Any:
        carrier = self._carriers.get(name)
        if carrier is None:
            return value
        try:
            loaded = carrier.load(value)
            return await loaded if inspect.isawaitable(loaded) else loaded
        except Exception as error:
            raise BadContext(f"g.{name}: its carrier's load failed: {error!r}") from error

    async def _see_response(self) -> None:
        app = self._app
        try:
            response = await app.make_response(self.result or "")
        except TypeError:  # a number, a model: nothing a view could return
            response = await app.make_response("")
        functions = list(self._contexts[-1]._after_request_functions)  # noqa: SLF001
        for scope in (*request.blueprints, None):
            functions.extend(reversed(app.after_request_funcs.get(scope, ())))
        for function in functions:
            response = await app.ensure_async(function)(response)


def _request(app: Quart, snapshot: RequestSnapshot) -> Request:
    headers = Headers()
    if snapshot.client is not None:
        headers.add("Remote-Addr", snapshot.client)
    for name, value in snapshot.headers:
        headers.add(name, value)
    scope = _scope(snapshot)
    restored_request = _without_body(app.request_class)(
        snapshot.method,
        snapshot.scheme,
        snapshot.path,
        scope["query_string"],
        headers,
        snapshot.root_path,
        snapshot.http_version,
        scope,
        send_push_promise=_push_nothing,
    )
    restored_request.body = cast("Any", _NoBody())
    return restored_request


def _scope(snapshot: RequestSnapshot) -> HTTPScope:
    host, colon, port = snapshot.host.rpartition(":")
    if not colon or not port.isdecimal():
        host, port = snapshot.host, "443" if snapshot.scheme == "https" else "80"
    path = snapshot.root_path + snapshot.path
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": snapshot.http_version,
        "method": snapshot.method,
        "scheme": snapshot.scheme,
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": snapshot.query_string.encode("latin-1"),
        "root_path": snapshot.root_path,
        "headers": [
            (n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in snapshot.headers
        ],
        "client": None if snapshot.client is None else (snapshot.client, 0),
        "server": (host.strip("[]"), int(port)) if host else None,
        "state": {},
        "extensions": {},
    }
    return cast("HTTPScope", scope)


async def _push_nothing(path: str, headers: Headers) -> None:
    """A job has no connection to push on."""


class _NoBody:
    """In the body's place: awaiting or iterating it, which would wait for ever, raises."""

    def __await__(self) -> Generator[Any, None, bytes]:
        raise BodyNotCarried
        yield

    def __aiter__(self) -> AsyncIterator[bytes]:
        raise BodyNotCarried


@cache
def _without_body(request_class: type[Request]) -> type[Request]:
    """The app's request class, refusing also what answers without reading a body of another type."""

    async def refuse(self: Request, *args: Any, **kwargs: Any) -> NoReturn:
        raise BodyNotCarried

    members = dict.fromkeys(("get_data", "get_json", "_load_form_data"), refuse)
    return type(
        request_class.__name__,
        (request_class,),
        {**members, "__module__": request_class.__module__},
    )
