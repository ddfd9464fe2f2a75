"""The app that is measured over HTTP: the job API, and an empty route beside it.

A module of its own, so that what the benchmarks themselves import is not measured with it.
"""

from quart import Quart

from benchmarks import tasks  # noqa: F401 - registers them
from jobs import Jobs
from service.api import blueprint

app = Quart(__name__)
Jobs(app)
app.register_blueprint(blueprint)


@app.post("/empty")
async def nothing() -> tuple[dict[str, str], int]:
    """The least a Quart route can do."""
    return {}, 202
