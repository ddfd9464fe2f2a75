"""Routes that say what the others are: the OpenAPI document, and a page for each kind of problem."""

from html import escape
from typing import Any

from pydantic_core import to_json
from quart import Response, current_app

from jobs.registry import Task

from .extension import installed
from .openapi import document
from .principal import keys_are_wanted
from .problems import NOT_FOUND, TYPES, Refusal
from .render import json_response
from .routes import Answer, Parameter, Routes, root

routes = Routes("Documentation")

_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<h1>{title}</h1>
<p>HTTP status {status}, problem type <code>{slug}</code>.</p>
<p>{help}</p>
</html>
"""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}

_written: tuple[tuple[tuple[Task[..., Any], ...], bool], bytes] = (((), False), b"")


@routes.add(
    "GET",
    "/openapi.json",
    "This document",
    scope=None,
    answers=(Answer(200, "The API, in OpenAPI 3.1."),),
)
async def openapi_json() -> Response:
    global _written  # noqa: PLW0603 - written once, and again only when something of it has changed
    from .blueprint import TABLE, takes_keys

    jobs = installed()
    tasks = tuple(jobs.registry.values())
    wanted = not (takes_keys(current_app) and jobs.is_open) or await keys_are_wanted()
    if _written[0] != (tasks, wanted) or not _written[1]:
        _written = (tasks, wanted), to_json(document(TABLE, tasks, keys_wanted=wanted))
    servers = to_json({"servers": [{"url": root() or "/"}]})
    return json_response(servers[:-1] + b"," + _written[1][1:])


@routes.add(
    "GET",
    "/problems/<slug>",
    "What a kind of problem means",
    scope=None,
    parameters=(
        Parameter("slug", "The end of a problem's `type`.", {"enum": list(TYPES)}, place="path"),
    ),
    answers=(Answer(200, "A page about it.", media_type="text/html", headers=tuple(_HEADERS)),),
    problems=(NOT_FOUND,),
)
async def problem_page(slug: str) -> Response:
    kind = TYPES.get(slug)
    if kind is None:
        raise Refusal(
            NOT_FOUND, f"no kind of problem is named {slug!r}; there are {', '.join(TYPES)}"
        )
    page = _PAGE.format(
        title=escape(kind.title), status=kind.status, slug=kind.slug, help=escape(kind.help)
    )
    return Response(
        page,
        headers=_HEADERS,
        content_type="text/html; charset=utf-8",
    )
