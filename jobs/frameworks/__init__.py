"""The web frameworks whose apps can have jobs: a module for each, all with the same face."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from pydantic import JsonValue
from quart import Quart

from jobs.errors import ConfigurationError
from jobs.snapshot import Carrier, RequestSnapshot

from . import quart


class Openable(Protocol):
    """A `Jobs`, as far as a framework opens and closes it."""

    @property
    def is_open(self) -> bool:
        """Whether it is open in this process."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


class Restored(Protocol):
    """The context of a job: its request's, or without a snapshot the app's.

    `before_request` functions do not run again, teardown functions do run. Setting `result` and leaving
    without an exception runs, if `after_request`, the functions that see each response, on one made of
    the result; what they change is discarded, and the session is not saved.
    Entering raises `BadContext`.
    """

    result: Any

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Framework(Protocol):
    """What jobs need of a web framework. Each module of a framework in this package is one."""

    g: Any

    @property
    def needs_loop(self) -> bool:
        """Whether entering and leaving a context waits for an event loop."""

    def current_app(self) -> Any:
        """The app whose context this is, or None."""

    def current_request(self) -> Any:
        """The request that is being handled here, or None."""

    def open_with(self, app: Any, jobs: Openable) -> None:
        """Have `jobs` opened and closed as the app's servers start and end."""

    def take(self, request: Any, values: dict[str, JsonValue]) -> RequestSnapshot:
        """The request as it is now; `values` is what travels of `g`."""

    def restored(
        self,
        app: Any,
        snapshot: RequestSnapshot | None,
        carriers: Mapping[str, Carrier],
        *,
        after_request: bool = False,
    ) -> Restored:
        """The context of a job."""


def framework_of(app: Any) -> Framework:
    """The framework of an app. Raises `ConfigurationError` for what is no app."""
    if isinstance(app, Quart):
        return quart
    from flask import Flask

    if isinstance(app, Flask):
        from . import flask

        return flask
    raise ConfigurationError(f"Jobs takes a Quart or a Flask app, not a {type(app).__qualname__}")
