"""The route table: each route is declared once, and both served and documented from that."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as field_
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel
from quart import Request, Response, request

from jobs.keys import Scope

from .problems import MISSING_SCOPE, RATE_LIMITED, UNAUTHENTICATED, ProblemType

Method = Literal["GET", "POST", "DELETE"]
View = Callable[..., Awaitable[Response]]

_depths: dict[str, int] = {}  #: how many segments of the path are the route's own


def current_request() -> Request:
    """The request itself, as `extension.app` is the app itself."""
    here: Request = request._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
    return here


def field(request: Request, name: str) -> list[str]:
    """What the request's header fields of this name say, one each. Looked up in what ASGI has, where names are in
    lower case: to Werkzeug's headers, a field that is not there costs an exception."""
    wanted = name.lower().encode()
    return [value.decode("latin-1") for each, value in request.scope["headers"] if each == wanted]


def root() -> str:
    """Where the API is mounted, as the client sees it: the proxy's prefix, then the blueprint's."""
    here = current_request()
    depth = _depths.get((here.endpoint or "").rpartition(".")[2], 0)
    prefix = here.path.rsplit("/", depth)[0] if depth else ""
    return quote(here.root_path + prefix) if prefix or here.root_path else ""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter in the path, the query or a header."""

    name: str
    description: str
    schema: Mapping[str, Any]
    place: Literal["path", "query", "header"] = "query"
    example: Any = None  #: of an optional header none: the documentation page would send it


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route says when all is well."""

    status: int
    description: str
    model: type[BaseModel] | None = None  #: None: any JSON, or no JSON at all
    media_type: str = "application/json"  #: empty: no body
    headers: tuple[str, ...] = ()  #: names; `headers` says what they are


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path."""

    method: Method
    path: str  #: in Werkzeug's spelling
    name: str  #: endpoint and operationId
    view: View
    scope: Scope | None  #: what a caller must be allowed to do; None: anyone may ask
    tag: str
    summary: str
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Any = None  #: the type of the JSON body
    examples: Mapping[str, Any] = field_(default_factory=dict)  #: of the body, by title
    takes_lines: bool = False  #: the body may also be JSON Lines
    answers: tuple[Answer, ...] = ()
    problems: tuple[ProblemType, ...] = ()
    each_task: bool = False  #: documented once for every task, with its body


def own(endpoint: str, path: str) -> str:
    """Note that an endpoint's own path is `path`, whatever prefix it is registered under."""
    _depths[endpoint] = path.count("/")
    return endpoint


class Routes:
    """The routes of one resource."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self._routes: list[Route] = []

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def add(
        self,
        method: Method,
        path: str,
        summary: str,
        *,
        scope: Scope | None,
        problems: tuple[ProblemType, ...] = (),
        **facts: Any,
    ) -> Callable[[View], View]:
        """Declare the decorated view; `facts` are the other fields of `Route`."""
        if scope is not None:
            problems = (UNAUTHENTICATED, MISSING_SCOPE, RATE_LIMITED, *problems)

        def declare(view: View) -> View:
            self._routes.append(
                Route(
                    method=method,
                    path=path,
                    name=own(view.__name__, path),
                    view=view,
                    scope=scope,
                    problems=problems,
                    tag=self.tag,
                    summary=summary,
                    **facts,
                )
            )
            return view

        return declare
