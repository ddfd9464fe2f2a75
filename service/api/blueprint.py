"""The API as a blueprint that any Quart app can register."""

from collections import defaultdict
from typing import Any

from quart import Blueprint, Quart, Response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from jobs.errors import JobsError
from service import docs

from . import again, attempts, batch, bulk, description, events, health, jobs, tasks, workers
from .principal import Hook, for_callers
from .problems import Refusal, from_error, from_http
from .render import problem_response
from .routes import Route, own, root

TABLE: tuple[Route, ...] = (
    *jobs.routes,
    *attempts.routes,
    *events.routes,
    *again.routes,
    *batch.routes,
    *bulk.routes,
    *tasks.routes,
    *health.routes,
    *workers.routes,
    *description.routes,
    *docs.routes,
)
"""Every route of the API."""

_METHODS = ("GET", "HEAD", "QUERY", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


_TAKES_KEYS = "jobs_api_takes_keys"


def jobs_api(
    name: str = "jobs_api", url_prefix: str | None = None, *, principal: Hook | None = None
) -> Blueprint:
    """The job API: submit, status, result, list, cancel, tasks, health, OpenAPI and its page.

    The app that registers it also has a `Jobs(app)`. Its errors are `application/problem+json`; the
    app's other routes are left as they are.

    Args:
        principal: says who sent a request, in place of API keys: a function, sync or async, that takes
            the request and returns a `Principal`, or None for a 401. It may ask `key_principal`.
    """
    made = Blueprint(name, __name__, url_prefix=url_prefix)
    if principal is None:
        made.record(lambda setup: setup.app.extensions.update({_TAKES_KEYS: True}))
    by_path: dict[str, set[str]] = defaultdict(set)
    for route in TABLE:
        made.add_url_rule(
            route.path,
            route.name,
            for_callers(route, principal),
            methods=[route.method],
            provide_automatic_options=False,
        )
        by_path[route.path] |= {route.method} | ({"HEAD"} if route.method == "GET" else set())
    for number, (path, taken) in enumerate(by_path.items()):
        # Without these rules a wrong method would be answered by the host app, in HTML.
        made.add_url_rule(
            path,
            own(f"other_methods_{number}", path),
            _other_methods(sorted({*taken, "OPTIONS"})),
            methods=[method for method in _METHODS if method not in taken],
            provide_automatic_options=False,
        )
    answer_with_problems(made)
    return made


def takes_keys(app: Quart) -> bool:
    """Whether an app serves the job API to whoever has a key, or to anyone."""
    return _TAKES_KEYS in app.extensions


def answer_with_problems(scope: Blueprint | Quart) -> None:
    """Answer the errors of a blueprint's routes, or of all an app's, with problem documents."""
    scope.register_error_handler(Refusal, _refusal)
    scope.register_error_handler(JobsError, _jobs_error)
    scope.register_error_handler(HTTPException, _http_error)


def _other_methods(allowed: list[str]) -> Any:
    async def other_methods(**_: str) -> Response:
        if request.method == "OPTIONS":
            return Response(b"", 200, headers={"Allow": ", ".join(allowed)})
        raise MethodNotAllowed(allowed)

    return other_methods


async def _refusal(refusal: Refusal) -> Response:
    return problem_response(refusal, root())


async def _jobs_error(error: JobsError) -> Response:
    refusal = from_error(error)
    if refusal.kind.status == 500:
        raise error
    return problem_response(refusal, root())


async def _http_error(error: HTTPException) -> Any:
    if error.response is not None:
        return error.response
    return problem_response(from_http(error, request.method, request.path), root())


blueprint = jobs_api()
"""The API, to be registered once: `app.register_blueprint(blueprint, url_prefix=…)`."""
