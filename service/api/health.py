"""Routes for whoever watches the process."""

from quart import Response

from jobs.errors import JobsError

from .extension import running
from .problems import UNAVAILABLE, unready
from .render import json_response
from .routes import Answer, Routes
from .schemas import Health

routes = Routes("Health")

_OK = b'{"status":"ok"}'


@routes.add(
    "GET",
    "/livez",
    "Does the process run?",
    scope=None,
    answers=(Answer(200, "It does.", Health),),
)
async def live() -> Response:
    return json_response(_OK)


@routes.add(
    "GET",
    "/readyz",
    "Can a job be stored and run now?",
    scope=None,
    answers=(Answer(200, "It can.", Health),),
    problems=(UNAVAILABLE,),
)
async def ready() -> Response:
    try:
        await running().check()
    except JobsError as error:
        raise unready(error) from None
    return json_response(_OK)
