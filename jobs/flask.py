"""For plain Celery with Flask: `from jobs.flask import RequestContextTask`. Needs the extra `celery`.

A Flask app that runs its jobs without Celery needs nothing of this: `from jobs import Jobs`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .request_context_task import RequestContextTask

__all__ = ["RequestContextTask"]


def __getattr__(name: str) -> Any:
    if name != "RequestContextTask":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from .request_context_task import RequestContextTask
    except ModuleNotFoundError as error:
        if error.name != "celery":
            raise
        raise ModuleNotFoundError(
            "RequestContextTask needs Celery: pip install 'quart-jobs[celery]'", name="celery"
        ) from None
    return RequestContextTask
