"""The route of the processes that share the jobs."""

from pydantic_core import to_json
from quart import Response

from jobs.keys import Scope
from jobs.release import __version__

from . import times
from .extension import running
from .problems import UNAVAILABLE
from .render import json_response
from .routes import Answer, Routes
from .schemas import WorkerList

routes = Routes("Health")


@routes.add(
    "GET",
    "/workers",
    "List the processes that share the jobs",
    scope=Scope.ADMIN,
    description="Services and workers with the same database, as they were a moment ago, and what does not fit"
    " between them: other releases, tasks that no worker has.",
    answers=(Answer(200, "Who is there.", WorkerList),),
    problems=(UNAVAILABLE,),
)
async def list_workers() -> Response:
    roster = running().roster
    await roster.look()
    peers = sorted(roster.peers.processes, key=lambda peer: peer.opened_at)
    workers = [peer.model_dump() | {"opened_at": times.show(peer.opened_at)} for peer in peers]
    return json_response(
        to_json(
            {
                "release": __version__,
                "schema_version": roster.peers.schema_version,
                "workers": workers,
                "problems": roster.problems,
            }
        )
    )
