"""Existing Celery tasks as tasks of ours."""

import importlib
import inspect
import sys
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from . import current
from .errors import ConfigurationError
from .registry import Registry, Task, default_registry
from .retry import Reject, Retry

if TYPE_CHECKING:
    from datetime import datetime


def celery_task(
    name: str, *, app: str, registry: Registry = default_registry, **options: Any
) -> Task[..., Any]:
    """Register a Celery task, by its name, as a task of the same name: it gets our ids, states, REST and
    context, in lanes and in Celery's workers alike, and needs no change.

    `app` is the import string of the Celery app that has it (`"shop.celery:app"`); `options` are those of
    `@task`. Call it at the top level of a module that `JOBS_TASKS`, or the app, imports.

    The function runs under our rules. `self.request.id` and `.retries` are the job's; `self.retry(…)`,
    `autoretry_for` and `max_retries` count as in Celery, and the store keeps the time; `Ignore` and `Reject`
    end the job as failed. Of a `RequestContextTask` the request is the job's own, and `carry` and
    `after_request` hold. A `__call__` of another base class is not called, results go to our store only, and
    what the function itself sends with `delay` is Celery's. Raises `ConfigurationError`.
    """
    theirs = _find(name, app)
    for option in ("carry", "after_request"):
        if hasattr(theirs, option):
            options.setdefault(option, getattr(theirs, option))
    plain: Callable[..., Any] = inspect.unwrap(theirs.run)

    @wraps(plain)
    def run(*args: Any, **kwargs: Any) -> Any:
        return _run(theirs, args, kwargs)

    run.__signature__ = inspect.signature(theirs.run)  # type: ignore[attr-defined]
    run.__module__ = sys._getframe(1).f_globals["__name__"]  # noqa: SLF001 - what a child has to import
    run.__name__ = run.__qualname__ = plain.__name__
    made: Task[..., Any] = Task(run, name=name, **options)
    registry.add(made)
    return made


def _find(name: str, app: str) -> Any:
    module, colon, attribute = app.partition(":")
    if not colon:
        raise ConfigurationError(
            f"celery_task({name!r}, app={app!r}): say where the Celery app is: module:attribute"
        )
    celery = importlib.import_module(module)
    for part in attribute.split("."):
        celery = getattr(celery, part)
    theirs: Any = celery
    theirs.loader.import_default_modules()
    theirs.finalize(auto=True)
    if name not in theirs.tasks:
        known = ", ".join(sorted(each for each in theirs.tasks if not each.startswith("celery.")))
        raise ConfigurationError(
            f"the Celery app {app} has no task {name!r}; it has {known or 'none'}"
        )
    return theirs.tasks[name]


def _run(theirs: Any, args: Any, kwargs: Any) -> Any:
    from celery import exceptions

    job = current.job()
    if job is None:
        return theirs.run(*args, **kwargs)  # called as the plain function that it also is
    theirs.push_request(
        id=job.id,
        args=args,
        kwargs=kwargs,
        retries=job.attempt - 1,
        called_directly=False,
        is_eager=True,  # `retry` is to raise, and to send nothing
    )
    try:
        return theirs.run(*args, **kwargs)
    except exceptions.Retry as again:
        raise _as_ours(again) from again.exc
    except (exceptions.Ignore, exceptions.Reject) as end:
        raise Reject(f"{type(end).__name__}: {end}") from end
    finally:
        theirs.pop_request()


def _as_ours(again: Any) -> Retry:
    when: float | datetime | None = again.when
    reason = f"the task asked to run once more: {again.excs or again.message or 'retry'}"
    if when is None or isinstance(when, int | float):
        return Retry(reason, countdown=when)
    return Retry(reason, eta=when)
