"""Routes of tasks: what can be run, and what it takes and gives."""

from pydantic_core import to_json
from quart import Response

from jobs.keys import Scope

from .extension import installed
from .json_schema import task_schemas
from .problems import UNKNOWN_TASK
from .render import json_response, task_object
from .routes import Answer, Parameter, Routes, root
from .schemas import TaskDetail, TaskList

routes = Routes("Tasks")

NAME = Parameter("name", "The task's name.", {"type": "string"}, place="path")


@routes.add(
    "GET",
    "/tasks",
    "List the tasks",
    scope=Scope.READ,
    answers=(Answer(200, "All tasks, by name.", TaskList),),
)
async def list_tasks() -> Response:
    registry, base = installed().registry, root()
    return json_response(
        to_json({"tasks": [task_object(registry[name], base) for name in sorted(registry)]})
    )


@routes.add(
    "GET",
    "/tasks/<name>",
    "Look at a task",
    scope=Scope.READ,
    description="With the JSON Schemas of what it takes and gives.",
    parameters=(NAME,),
    answers=(Answer(200, "The task.", TaskDetail),),
    problems=(UNKNOWN_TASK,),
)
async def get_task(name: str) -> Response:
    task = installed().registry.get(name)
    arguments, result = task_schemas(task)
    return json_response(
        to_json({**task_object(task, root()), "arguments": arguments, "result": result})
    )
