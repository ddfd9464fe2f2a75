"""Flask: a request as a snapshot, and a snapshot as a live context again.

WSGI has folded repeated headers into one, and their names are of its spelling, before Flask sees them;
what Flask shows is what travels. What a server puts into the environ besides, such as `REMOTE_USER`,
does not.
"""

import inspect
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, NoReturn, Self

from flask import Flask, Request, g, request
from flask import current_app as _app
from flask import has_app_context as _has_app
from flask import has_request_context as _has_request
from flask.ctx import AppContext
from pydantic import JsonValue
from werkzeug.datastructures import Headers

from jobs.errors import BadContext, BodyNotCarried
from jobs.snapshot import Carrier, RequestSnapshot

from .first_request import open_with

__all__ = ["current_app", "current_request", "g", "needs_loop", "open_with", "restored", "take"]

needs_loop = False


def current_app() -> Flask | None:
    """The app whose context this is."""
    return _app._get_current_object() if _has_app() else None  # type: ignore[attr-defined]  # noqa: SLF001


def current_request() -> Request | None:
    """The request that is being handled here."""
    return request._get_current_object() if _has_request() else None  # type: ignore[attr-defined]  # noqa: SLF001


def take(request: Request, values: dict[str, JsonValue]) -> RequestSnapshot:
    """The request as it is now; `values` is what travels of `g`."""
    return RequestSnapshot(
        method=request.method,
        scheme=request.scheme,
        host=request.host,
        root_path=request.root_path,
        path=request.path,
        query_string=request.query_string.decode("latin-1"),
        headers=tuple(request.headers),
        client=request.remote_addr,
        http_version=request.environ.get("SERVER_PROTOCOL", "HTTP/1.1").removeprefix("HTTP/"),
        globals=values,
    )


class restored:  # noqa: N801 - read as `with restored(…)`
    """`jobs.frameworks.Restored`, which needs no `await`: `with` will do as well as `async with`."""

    def __init__(
        self,
        app: Flask,
        snapshot: RequestSnapshot | None,
        carriers: Mapping[str, Carrier],
        *,
        after_request: bool = False,
    ) -> None:
        self._app, self._snapshot, self._carriers = app, snapshot, carriers
        self._after_request = after_request
        self._context: Any = None
        self._stack = ExitStack()
        self.result: Any = None

    def __enter__(self) -> Self:
        try:
            with ExitStack() as stack:
                if self._snapshot is None:
                    stack.enter_context(self._app.app_context())
                else:
                    self._restore(self._snapshot, stack)
                self._stack = stack.pop_all()
        except BadContext:
            raise
        except Exception as error:
            raise BadContext(f"the request's context cannot be restored: {error!r}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)

    def _restore(self, snapshot: RequestSnapshot, stack: ExitStack) -> None:
        self._context = context = self._app.request_context(_environ(snapshot))
        if not isinstance(context, AppContext):
            # Flask before 3.2 would share the app context, and `g`, of a caller who has one.
            stack.enter_context(self._app.app_context())
        context.request.headers = Headers(snapshot.headers)
        _refuse_body(context.request)
        stack.enter_context(context)
        for name, value in snapshot.globals.items():
            setattr(g, name, self._loaded(name, value))
        if self._after_request:
            stack.push(self._see_response)

    def _loaded(self, name: str, value: Any) -> Any:
        carrier = self._carriers.get(name)
        if carrier is None:
            return value
        try:
            loaded = carrier.load(value)
        except Exception as error:
            raise BadContext(f"g.{name}: its carrier's load failed: {error!r}") from error
        if inspect.iscoroutine(loaded):
            loaded.close()
            raise BadContext(
                f"g.{name}: its carrier's load is async, which Flask does not wait for"
            )
        return loaded

    def _see_response(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None:
            return
        app = self._app
        try:
            response = app.make_response(self.result or "")
        except TypeError:  # a number, a model: nothing a view could return
            response = app.make_response("")
        functions = list(self._context._after_request_functions)  # noqa: SLF001
        for scope in (*request.blueprints, None):
            functions.extend(reversed(app.after_request_funcs.get(scope, ())))
        for function in functions:
            response = app.ensure_sync(function)(response)


def _environ(snapshot: RequestSnapshot) -> dict[str, Any]:
    host, colon, port = snapshot.host.rpartition(":")
    if not colon or not port.isdecimal():
        host, port = snapshot.host, "443" if snapshot.scheme == "https" else "80"
    environ: dict[str, Any] = {
        "REQUEST_METHOD": snapshot.method,
        "SCRIPT_NAME": _wsgi(snapshot.root_path),
        "PATH_INFO": _wsgi(snapshot.path),
        "QUERY_STRING": snapshot.query_string,
        "SERVER_NAME": host.strip("[]"),
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{snapshot.http_version}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": snapshot.scheme,
        "wsgi.input": _NoBody(),
        "wsgi.input_terminated": True,  # so that `request.stream` is just that
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if snapshot.client is not None:
        environ["REMOTE_ADDR"] = snapshot.client
    for name, value in snapshot.headers:
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        between = "; " if key == "HTTP_COOKIE" else ","
        environ[key] = f"{environ[key]}{between}{value}" if key in environ else value
    return environ


def _wsgi(text: str) -> str:
    """As PEP 3333 has it: UTF-8 bytes, each as a character."""
    return text.encode().decode("latin-1")


class _NoBody:
    """In the body's place: whatever is asked of it raises."""

    def __getattr__(self, name: str) -> NoReturn:
        raise BodyNotCarried

    def __iter__(self) -> NoReturn:
        raise BodyNotCarried


def _refuse_body(made: Request) -> None:
    """Have the request refuse also what answers without reading a body of another type."""

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise BodyNotCarried

    for name in ("get_data", "get_json", "_load_form_data"):
        setattr(made, name, refuse)
