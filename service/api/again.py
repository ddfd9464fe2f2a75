"""Routes that let a job run again: the same one, or another like it."""

import json

from pydantic_core import to_json
from quart import Response

from jobs.idempotency import IdempotencyKey, fingerprint
from jobs.keys import Scope
from jobs.model import Job

from .extension import running
from .idempotency import IDEMPOTENCY_KEY, key_of_request
from .jobs import JOB_ID
from .principal import visible_job
from .problems import (
    BAD_KEY,
    KEY_REUSED,
    NOT_RETRIABLE,
    QUEUING,
    SUBMITTING,
    UNKNOWN_JOB,
    UNKNOWN_TASK,
    Refusal,
)
from .render import job_object, json_response
from .routes import Answer, Routes, root
from .run_times import run_times
from .schemas import JobAgain

routes = Routes("Jobs")


@routes.add(
    "POST",
    "/jobs/<job_id>/retry",
    "Retry a job",
    scope=Scope.SUBMIT,
    description="A job that failed or was revoked runs once more, at once and under its id. It has all its attempts"
    " anew, which are numbered on. The request that it came with was deleted when it ended: it runs without.",
    parameters=(JOB_ID,),
    answers=(Answer(202, "It will run again.", JobAgain, headers=("Retry-After",)),),
    problems=(UNKNOWN_JOB, NOT_RETRIABLE, *SUBMITTING),
)
async def retry_job(job_id: str) -> Response:
    jobs = running()
    job = await visible_job(job_id)
    again = await jobs.retry(job.id)
    job = await jobs.get_job(job.id)
    if not again:
        detail = f"job {job.id} is {job.state}, and only one that failed or was revoked is retried"
        raise Refusal(NOT_RETRIABLE, detail, members={"state": job.state})
    return _response(job)


@routes.add(
    "POST",
    "/jobs/<job_id>/rerun",
    "Run another job like this one",
    scope=Scope.SUBMIT,
    description="A new job with the task, arguments and options of this one, whatever its state; it is due at once, and"
    " belongs to the same owner. It runs without the request that this one came with.",
    parameters=(JOB_ID, IDEMPOTENCY_KEY),
    answers=(
        Answer(
            202,
            "The new job is stored, and will run.",
            JobAgain,
            headers=("Location", "Retry-After"),
        ),
    ),
    problems=(BAD_KEY, UNKNOWN_JOB, UNKNOWN_TASK, NOT_RETRIABLE, KEY_REUSED, *QUEUING),
)
async def rerun_job(job_id: str) -> Response:
    jobs, key = running(), key_of_request()
    job = await visible_job(job_id)
    once = None
    if key is not None:
        once = IdempotencyKey(key, job.owner, fingerprint(b"rerun", job.id.encode()))
    new = await jobs.rerun(job.id, once)
    return _response(new, Location=f"{root()}/jobs/{new.id}")


def _response(job: Job, **headers: str) -> Response:
    if not job.state.ended:
        headers["Retry-After"] = str(run_times().retry_after(job))
    shown = job_object(job, root()) | {"context": json.loads(job.origin or "{}").get("context")}
    return json_response(to_json(shown), 202, **headers)
