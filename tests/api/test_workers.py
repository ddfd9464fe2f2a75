"""The list of the processes that share the jobs."""

import os

from quart import Quart

from jobs.release import __version__
from jobs.stores.migrate import migrations
from service.api.schemas import WorkerList


async def test_this_process_is_listed_with_what_it_runs(app: Quart) -> None:
    answer = await app.test_client().get("/workers")
    assert answer.status_code == 200
    listed = WorkerList.model_validate_json(await answer.get_data())
    (worker,) = listed.workers
    assert (listed.release, listed.schema_version) == (__version__, len(migrations()))
    assert (worker.release, worker.engine, worker.lanes) == (__version__, "inline", 2)
    assert worker.pid == os.getpid()
    assert worker.tasks == sorted(app.extensions["jobs"].registry)
    assert listed.problems == []
