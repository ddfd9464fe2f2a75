"""The Celery app that service and worker share, and what a message of ours says."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from celery import Celery
from kombu import Queue
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.errors import ConfigurationError, JobsError
from jobs.model import Job, JobId

HEADER = "quart_jobs"  #: of a message: the version of its form
VERSION = 1
DEFAULT_QUEUE = "default"


class BadMessage(JobsError):
    """A message that this release cannot act on."""


class Announcement(NamedTuple):
    """What a message says: this attempt of this job may be claimed."""

    job_id: JobId
    attempt: int


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    job_id: str = Field(max_length=36)
    attempt: int = Field(ge=1, le=2**31)


def make_app(broker: str) -> Celery:
    """A Celery app of its own for jobs, on the broker at that URL."""
    if "://" not in broker:
        raise ConfigurationError(
            "setting 'broker' (JOBS_BROKER): give a URL, such as redis://host:6379/0 or amqp://host//"
        )
    app = Celery("jobs", broker=broker, set_as_current=False)
    app.conf.update(
        # JSON only, and results are the store's.
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        result_backend=None,
        # Acknowledged once the store has recorded the end. A lost child's job is put back by the store, which
        # counts; Celery would hand it out again for ever.
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        worker_prefetch_multiplier=1,
        task_default_queue=DEFAULT_QUEUE,
        task_publish_retry=False,
        broker_connection_retry_on_startup=True,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_pool="jobs.celery.pool:LanePool",
        worker_consumer="jobs.celery.consumer:JobsConsumer",
    )
    return app


def queues(names: Sequence[str]) -> list[Queue]:
    """Celery's queues of these names."""
    return [Queue(name, routing_key=name) for name in names]


def message_of(app: Celery, job: Job) -> Any:
    """What Celery sends for the job's next attempt."""
    number = job.attempt + 1
    message = app.amqp.as_task_v2(
        job.id, job.task, (job.id, number), retries=job.attempt, ignore_result=True
    )
    message.headers[HEADER] = VERSION
    return message


def read(version: Any, args: Any) -> Announcement:
    """What a message says. Raises `BadMessage`."""
    if version != VERSION:
        raise BadMessage(
            f"the message is of version {version!r} and this release of quart-jobs reads {VERSION}: run the same"
            " release in services and workers"
        )
    try:
        job_id, attempt = args
        said = _Message(job_id=job_id, attempt=attempt)
    except (TypeError, ValueError, ValidationError):
        raise BadMessage("the message does not say which attempt of which job") from None
    return Announcement(JobId(said.job_id), said.attempt)
