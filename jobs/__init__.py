"""Background jobs for async Python web apps, with the request's context and no other server to run."""

import sys

if sys.platform == "win32":
    raise ImportError("quart-jobs runs on Linux and macOS; on Windows, run it in WSL")

from .adopted import celery_task
from .current import current_job
from .errors import (
    BodyNotCarried,
    ConfigurationError,
    InvalidArguments,
    JobFailed,
    JobInterrupted,
    JobNotFound,
    JobRevoked,
    JobsError,
    NotRunning,
    ResultTimeout,
    StoreError,
    UnknownTask,
)
from .extension import Jobs
from .handle import JobHandle
from .model import JobState
from .registry import Registry, Task, task
from .release import __version__ as __version__
from .retry import Reject, Retry, RetryPolicy

__all__ = [
    # The extension and its tasks
    "Jobs",
    "Registry",
    "Reject",
    "Retry",
    "RetryPolicy",
    "Task",
    "celery_task",
    "task",
    # One job
    "JobHandle",
    "JobState",
    "current_job",
    # Errors
    "BodyNotCarried",
    "ConfigurationError",
    "InvalidArguments",
    "JobFailed",
    "JobInterrupted",
    "JobNotFound",
    "JobRevoked",
    "JobsError",
    "NotRunning",
    "ResultTimeout",
    "StoreError",
    "UnknownTask",
]
