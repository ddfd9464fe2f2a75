"""The app that `celery -A jobs.engines.celery` finds."""

import os
import sys
from typing import Any, NoReturn

from celery import Celery, signals
from celery.concurrency import get_implementation

from jobs.child import import_all
from jobs.errors import ConfigurationError
from jobs.extension import Jobs
from jobs.model import JobId
from jobs.registry import Task
from jobs.settings import Settings

from .app import DEFAULT_QUEUE, make_app, queues
from .pool import LanePool

SERVICE = "service.app:create_app()"  #: the app for task modules, by its import string as any other


def make_worker_app(settings: Settings) -> Celery:
    """The Celery app of workers: a Celery task for each of ours, by the same name, and a queue for each of
    theirs. Raises `ConfigurationError`, and whatever the tasks' modules raise."""
    if settings.broker is None:
        raise ConfigurationError(
            "no broker is named: set JOBS_BROKER, as for the service, such as redis://host:6379/0"
        )
    # Celery's command has put the working directory there, and takes it away again; the lanes need it.
    sys.path.insert(0, os.getcwd())
    app = make_app(settings.broker)
    app.conf.worker_concurrency = settings.lane_count or 1
    app.jobs = None
    if settings.app or settings.tasks:
        host = import_all(settings.app or SERVICE, settings.tasks)
        app.jobs = jobs = host.extensions["jobs"]
        _register(app, jobs)
    signals.worker_init.connect(_check, weak=False)
    signals.task_revoked.connect(_revoke, weak=False)
    return app


def _register(app: Celery, jobs: Jobs) -> None:
    tasks = jobs.registry.values()
    for task in tasks:
        app.task(name=task.name, shared=False)(_stand_in(task))
    names = dict.fromkeys([DEFAULT_QUEUE, *(task.queue for task in tasks)])
    app.conf.task_queues = queues(list(names))


def _stand_in(task: Task[..., Any]) -> Any:
    def run(*args: Any, **kwargs: Any) -> NoReturn:
        raise ConfigurationError(
            f"{task.name} is a task of quart-jobs: submit it through Jobs or its API, which keep the job first"
        )

    run.__doc__ = task.fn.__doc__
    return run


def _check(sender: Any, **_: Any) -> None:
    # An exception would only be logged.
    if sender.app.jobs is None:
        sys.exit(
            "quart-jobs: say which tasks to run: JOBS_APP=module:app or JOBS_TASKS=module[,module…]"
        )
    if get_implementation(sender.pool_cls) is not LanePool:
        sys.exit(
            "quart-jobs: jobs run in lanes of our own, which are this worker's pool: leave out -P and --pool"
        )
    if sender.options.get("autoscale"):
        sys.exit(
            "quart-jobs: a worker's lanes do not change in number: leave out --autoscale, and set -c"
        )


def _revoke(sender: Any, request: Any, terminated: bool, **_: Any) -> None:
    """`celery control revoke` has struck a message that was not running: its job is not to run either."""
    pool = getattr(sender.app, "jobs_pool", None)
    if pool is not None and not terminated:
        pool.cancel(JobId(request.id))
