"""The JSON Schema of `POST /jobs`, whose `args` depend on its `task`: one closed object for each."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.registry import Task

Json = dict[str, Any]

_REF = "#/components/schemas/"


def for_tasks(
    general: Json,
    tasks: Sequence[Task[..., Any]],
    takes: Mapping[str, str],
    shared: dict[str, Json],
) -> Json:
    """The schema `general` of any submission, made one for these tasks. `takes` is the reference to the
    schema of a task's arguments by its name; `shared` has what such references name, and gets the rest."""
    if not tasks:
        return general
    mapping = {}
    for task in tasks:
        reference = takes[task.name]
        name = f"{reference.removeprefix(_REF).removesuffix('_Arguments')}_Submission"
        shared[name] = _one(general, task, reference, shared)
        mapping[task.name] = f"{_REF}{name}"
    return {
        "description": general["description"],
        "oneOf": [{"$ref": reference} for reference in mapping.values()],
        "discriminator": {"propertyName": "task", "mapping": mapping},
    }


def _one(general: Json, task: Task[..., Any], takes: str, shared: Mapping[str, Json]) -> Json:
    arguments = shared[takes.removeprefix(_REF)]
    required = arguments.get("required", [])
    by_position = [
        name
        for name, parameter in inspect.signature(task.fn).parameters.items()
        if parameter.kind is not parameter.KEYWORD_ONLY
    ]
    forms: list[Json] = [{"$ref": takes}]
    if set(required) <= set(by_position):
        # Not by reference: generators of clients follow only those to a component.
        items = [arguments["properties"][name] for name in by_position]
        in_order: Json = {"type": "array", "minItems": len(required), "maxItems": len(items)}
        in_order["prefixItems" if items else "items"] = items or {}  # one of the two they want
        forms.append(in_order)
    args = {**general["properties"]["args"], "anyOf": forms}
    del args["type"]
    return {
        **general,
        "title": f"{task.name}.Submission",
        "description": f"A job of {task.name} to run.",
        "properties": {
            **general["properties"],
            "task": {"type": "string", "const": task.name},
            "args": args,
        },
        "required": ["task", "args"] if required else ["task"],
    }
