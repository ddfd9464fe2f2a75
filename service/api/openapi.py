"""The OpenAPI 3.1 document, written from the route table and the task registry."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_json

from jobs import __version__
from jobs.errors import InvalidArguments
from jobs.registry import Task

from . import render, sse
from .body import JSON_LINES
from .examples import example
from .headers import HEADERS, OF_PROBLEMS, references
from .job_request import JobRequest
from .json_schema import Wanted, components
from .problems import ANYWHERE, INVALID, ProblemType
from .routes import Answer, Parameter, Route
from .schemas import JobObject, ProblemObject
from .submission_schema import for_tasks

Json = dict[str, Any]

MAX_EXAMPLES = 8  #: of submissions to `/jobs`, one a task

ABOUT = """\
Run functions in the background. **Submit** a job to a task: the answer, a `202`, means that it is on
disk. **Look** at its `state` at `links.self`, every `Retry-After` seconds, or once with `Prefer: wait=30`,
and **get** what it returned at `links.result`. A job runs at least once, and again
if its process or the service dies meanwhile, or while a failed attempt leaves others to be made.

States: `PENDING` → `STARTED` → `SUCCESS`, `FAILURE` or `REVOKED`; `RETRY` waits for another attempt.

Callers send an API key, `Authorization: Bearer qj_…`, where the service wants one, and see the jobs of the
key's owner; another's job is a `404`.

JSON may be nested 64 levels deep, and its strings hold no NUL. Errors are `application/problem+json`;
each problem's `type` is an address that explains it. Where there is a rate limit, every answer has `RateLimit`.
"""

_LINES = {"type": "string", "description": "One JSON object a line."}

_EVENTS = {"type": "string", "description": "Server-sent events (WHATWG HTML, 9.2)."}

SECURITY = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "qj_<id>_<secret>",
        "description": "An API key, as `quart-jobs keys create` makes it. Each operation names the scope that it"
        " needs: submit, read or cancel; admin is all of them, to everyone's jobs.",
    }
}


def document(
    routes: Iterable[Route], tasks: Iterable[Task[..., Any]], *, keys_wanted: bool = True
) -> Json:
    """The whole document but `servers`, which depends on where it is asked for. Where no keys are wanted,
    they are optional in it."""
    return _Writer(list(routes), tasks, keys_wanted).write()


class _Writer:
    def __init__(
        self, routes: list[Route], tasks: Iterable[Task[..., Any]], keys_wanted: bool
    ) -> None:
        self._routes, self._keys_wanted = routes, keys_wanted
        self._tasks = sorted(tasks, key=lambda task: task.name)
        self._schemas, self._shared = components(list(self._wanted()))
        self._operations: set[str] = set()
        self._links = {
            route.name: {
                "operationId": route.name,
                "parameters": {"job_id": "$response.body#/id"},
                "description": route.summary + ".",
            }
            for route in routes
            if "<job_id>" in route.path
        }
        self._shared[JobRequest.__name__] = for_tasks(
            self._shared[JobRequest.__name__],
            self._tasks,
            {task.name: self._schemas[f"{task.name} takes"]["$ref"] for task in self._tasks},
            self._shared,
        )

    def _wanted(self) -> Iterable[Wanted]:
        models: set[type[BaseModel]] = {ProblemObject}
        models |= {
            answer.model for route in self._routes for answer in route.answers if answer.model
        }
        for model in sorted(models, key=lambda each: each.__name__):
            yield model.__name__, "serialization", TypeAdapter(model)
        for route in self._routes:
            if route.body:
                yield route.name, "validation", TypeAdapter(route.body)
        for task in self._tasks:
            yield f"{task.name} takes", "validation", task.args_adapter
            yield f"{task.name} gives", "serialization", task.result_adapter

    def write(self) -> Json:
        paths: dict[str, Json] = defaultdict(dict)
        for route in self._routes:
            for task in self._tasks if route.each_task else [None]:
                path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route.path)
                if task is not None:
                    path = path.replace("{name}", quote(task.name, safe=""))
                paths[path][route.method.lower()] = self._operation(route, task)
        used = sorted({p for route in self._routes for p in route.problems}, key=lambda p: p.slug)
        return {
            "openapi": "3.1.0",
            "info": {"title": "quart-jobs", "version": __version__, "description": ABOUT},
            "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in self._routes)],
            "paths": paths,
            "components": {
                "schemas": dict(sorted(self._shared.items())),
                "responses": {
                    "problem": _problem_response("Another problem.", ANYWHERE),
                    **{kind.slug: _problem_response(kind.title + ".", (kind,)) for kind in used},
                },
                "headers": HEADERS,
                "links": self._links,
                "securitySchemes": SECURITY,
            },
        }

    def _operation(self, route: Route, task: Task[..., Any] | None) -> Json:
        parameters = [_parameter(p) for p in route.parameters if task is None or p.place != "path"]
        operation: Json = {
            "operationId": self._name(route.name if task is None else f"submit_{task.name}"),
            "tags": [route.tag],
            "summary": route.summary,
            "description": route.description,
            "parameters": parameters,
            "security": self._security(route),
        }
        if route.body:
            samples = route.examples
            if route.body is JobRequest:
                samples = {each["task"]: each for each in self._submissions()}
            elif route.takes_lines and (several := list(self._submissions())):
                samples = {"several jobs": {"jobs": several}}
            operation["requestBody"] = _body(self._schemas[route.name], samples)
        if route.takes_lines:
            for media in JSON_LINES:
                operation["requestBody"]["content"][media] = {"schema": _LINES}
        if task is not None:
            operation |= self._task_parts(task)
        operation["responses"] = self._responses(route)
        return {key: value for key, value in operation.items() if value}

    def _submissions(self) -> Iterable[Json]:
        for task in self._tasks[:MAX_EXAMPLES]:
            for args in self._sample(task):
                yield {"task": task.name, "args": args}

    def _security(self, route: Route) -> list[Json]:
        if route.scope is None:
            return []
        return [{name: [route.scope] for name in SECURITY}, *([] if self._keys_wanted else [{}])]

    def _task_parts(self, task: Task[..., Any]) -> Json:
        takes, gives = (self._schemas[f"{task.name} {verb}"] for verb in ("takes", "gives"))
        if "$ref" not in gives:
            name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{task.name}.Result")
            self._shared[name] = gives
            gives = {"$ref": f"#/components/schemas/{name}"}
        told = gives["$ref"].rpartition("/")[2]
        sample = self._sample(task)
        return {
            "summary": f"Submit a job of {task.name}",
            "description": f"{render.description(task)}\n\nThe result is a `{told}`.".strip(),
            "requestBody": _body(takes, {"example": sample[0]} if sample else {}),
            "x-result": gives,
        }

    def _sample(self, task: Task[..., Any]) -> list[Any]:
        """Arguments that the task accepts, if they can be guessed from its schema."""
        sample = example(self._schemas[f"{task.name} takes"], self._shared)
        try:
            task.accept(to_json(sample))
        except (InvalidArguments, ValueError):
            return []
        return [sample]

    def _responses(self, route: Route) -> Json:
        responses: Json = {}
        for answer in route.answers:
            made = self._answer(answer)
            first = responses.setdefault(str(answer.status), made)
            if first is not made:  # the same in another form
                first["content"] |= made["content"]
                first["headers"] |= made["headers"]
        by_status: dict[int, list[ProblemType]] = defaultdict(list)
        for kind in route.problems:
            by_status[kind.status].append(kind)
        for status, kinds in sorted(by_status.items()):
            responses[str(status)] = (
                {"$ref": f"#/components/responses/{kinds[0].slug}"}
                if len(kinds) == 1
                else _problem_response(" Or: ".join(f"{kind.title}." for kind in kinds), kinds)
            )
        return {**responses, "default": {"$ref": "#/components/responses/problem"}}

    def _answer(self, answer: Answer) -> Json:
        schema = self._schemas[answer.model.__name__] if answer.model else {}
        made: Json = {"description": answer.description}
        if answer.media_type == sse.MEDIA_TYPE:
            # As OpenAPI 3.2 has it in `itemSchema`: the schema is that of the data of one event.
            made["content"] = {answer.media_type: {"schema": _EVENTS, "x-itemSchema": schema}}
        elif answer.media_type:
            made["content"] = {answer.media_type: {"schema": schema}}
        made["headers"] = references(*answer.headers)
        if answer.model is JobObject:
            made["links"] = {name: {"$ref": f"#/components/links/{name}"} for name in self._links}
        return made

    def _name(self, wanted: str) -> str:
        """An operationId that no other operation has, of characters that are good in any language."""
        plain = name = re.sub(r"\W", "_", wanted, flags=re.ASCII)
        count = 1
        while name in self._operations:
            count += 1
            name = f"{plain}_{count}"
        self._operations.add(name)
        return name


def _parameter(parameter: Parameter) -> Json:
    made: Json = {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.place == "path",
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }
    if parameter.example is not None:
        made["example"] = parameter.example
    return made


def _body(schema: Json, samples: Mapping[str, Any]) -> Json:
    content: Json = {"schema": schema}
    if samples:
        content["examples"] = {title: {"value": value} for title, value in samples.items()}
    return {"required": True, "content": {"application/json": content}}


def _problem_response(title: str, kinds: Iterable[ProblemType]) -> Json:
    content: Json = {"schema": {"$ref": f"#/components/schemas/{ProblemObject.__name__}"}}
    examples = {
        kind.slug: {
            "value": {
                "type": f"/problems/{kind.slug}",
                "title": kind.title,
                "status": kind.status,
                "detail": kind.help,
                "instance": "/jobs",
            }
            | (
                {"errors": [{"pointer": "/args/text", "detail": "is missing"}]}
                if kind is INVALID
                else {}
            )
        }
        for kind in kinds
    }
    if examples:
        content["examples"] = examples
    of_kinds = sorted({name for kind in kinds for name in kind.headers})
    return {
        "description": title,
        "content": {"application/problem+json": content},
        "headers": references(*of_kinds, *OF_PROBLEMS),
    }
