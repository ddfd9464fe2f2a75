"""Routes of jobs: submit, look, list, result, cancel."""

from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json
from quart import Response, request

from jobs import strict_json
from jobs.errors import InvalidArguments, InvalidJson, Problem
from jobs.extension import Jobs
from jobs.idempotency import IdempotencyKey, fingerprint
from jobs.keys import Scope
from jobs.model import Job, JobState, size_of
from jobs.registry import Task
from jobs.submission import NO_OPTIONS, Options

from . import cursor, listing
from .asking import asked_for, misfit, parts, refused
from .body import read_json
from .extension import running
from .idempotency import IDEMPOTENCY_KEY, key_of_request
from .job_request import JobRequest
from .prefer import NONE as NO_PREFERENCES
from .prefer import PREFER, WAIT, Preferences, ended_within
from .principal import principal, visible, visible_job
from .problems import (
    BAD_KEY,
    ENDED,
    INVALID,
    KEY_REUSED,
    MALFORMED,
    MEDIA_TYPE,
    NO_RESULT,
    NOT_READY,
    PRECONDITION,
    QUEUING,
    SUBMITTING,
    TOO_LARGE,
    UNAVAILABLE,
    UNKNOWN_JOB,
    UNKNOWN_TASK,
    Refusal,
)
from .render import error_object, if_changed, job_object, job_response, json_response
from .routes import Answer, Parameter, Routes, root
from .run_times import run_times
from .schemas import EXAMPLE_ID, JobList, JobObject

routes = Routes("Jobs")

JOB_ID = Parameter(
    "job_id",
    "The job's id.",
    {"type": "string"},
    place="path",
    example=EXAMPLE_ID,
)
IF_NONE_MATCH = Parameter(
    "If-None-Match",
    "The ETag of an earlier answer.",
    {"type": "string"},
    place="header",
)
SUBMITTED = (
    Answer(
        200,
        "The job has ended within the seconds of `Prefer: wait`.",
        JobObject,
        headers=("Location", "Preference-Applied", "Vary"),
    ),
    Answer(
        202,
        "The job is stored, and will run.",
        JobObject,
        headers=("Location", "Retry-After", "Preference-Applied", "Vary"),
    ),
)

_OF_JOB = ("ETag", "Preference-Applied", "Vary", "Cache-Control")

REFUSED = (
    MALFORMED,
    BAD_KEY,
    UNKNOWN_TASK,
    TOO_LARGE,
    MEDIA_TYPE,
    INVALID,
    KEY_REUSED,
    *QUEUING,
)
"""What may be wrong with a submission."""

_request = TypeAdapter(JobRequest)


@routes.add(
    "POST",
    "/jobs",
    "Submit a job of any task",
    scope=Scope.SUBMIT,
    body=JobRequest,
    parameters=(PREFER, IDEMPOTENCY_KEY),
    answers=SUBMITTED,
    problems=REFUSED,
)
async def submit_job() -> Response:
    jobs = running()
    limit = jobs.settings.max_body_bytes
    raw = await read_json(limit)
    try:
        members: dict[str, Any] = _request.validate_json(raw)  # type: ignore[assignment]
    except ValidationError as error:
        try:
            strict_json.check(raw, max_bytes=limit)
        except InvalidJson as reason:
            raise refused(reason, raw) from None
        raise InvalidArguments([misfit(item) for item in error.errors()]) from None
    try:
        task, args, options = asked_for(jobs, members, limit)
    except InvalidJson as error:
        raise refused(error, raw) from None
    return await _submitted(jobs, task, args, options, members)


@routes.add(
    "POST",
    "/tasks/<name>/jobs",
    "Submit a job",
    scope=Scope.SUBMIT,
    parameters=(PREFER, IDEMPOTENCY_KEY),
    answers=SUBMITTED,
    problems=REFUSED,
    each_task=True,
)
async def submit_task(name: str) -> Response:
    jobs = running()
    task, limit = jobs.registry.get(name), jobs.settings.max_body_bytes
    raw = await read_json(limit)
    if raw.lstrip()[:1] == b"[":
        raise InvalidArguments([Problem("", "must be an object: the arguments by name")])
    try:
        args = task.accept(raw, max_bytes=limit)
    except InvalidJson as error:
        raise refused(error, raw) from None
    return await _submitted(jobs, task, args, NO_OPTIONS, {})


@routes.add(
    "GET",
    "/jobs",
    "List jobs, newest first",
    scope=Scope.READ,
    parameters=listing.PARAMETERS,
    answers=(Answer(200, "A page of jobs.", JobList),),
    problems=(INVALID, UNAVAILABLE),
)
async def list_jobs() -> Response:
    query = visible(listing.read(request.args))
    page = await running().store.find(query)
    base = root()
    following = None
    if page.next_seq is not None:
        following = listing.link(f"{base}/jobs", request.args, cursor.pack(page.next_seq))
    listed = {"jobs": [job_object(job, base) for job in page.jobs], "links": {"next": following}}
    return json_response(to_json(listed))


@routes.add(
    "GET",
    "/jobs/<job_id>",
    "Look at a job",
    scope=Scope.READ,
    description="With the `ETag` of an earlier answer in `If-None-Match`, an unchanged job is a `304` without a body.",
    parameters=(JOB_ID, WAIT, IF_NONE_MATCH),
    answers=(
        Answer(200, "The job.", JobObject, headers=("Retry-After", *_OF_JOB)),
        Answer(304, "The job is as it was.", headers=("Retry-After", *_OF_JOB), media_type=""),
    ),
    problems=(UNKNOWN_JOB, PRECONDITION, UNAVAILABLE),
)
async def get_job(job_id: str) -> Response:
    jobs, preferences = running(), Preferences.of_request()
    job = await visible_job(job_id)
    if preferences.wait:
        job = await ended_within(jobs, job, preferences.wait)
    response = preferences.applied_to(job_response(job, root()), "wait")
    response.headers["Cache-Control"] = "no-cache"
    await response.add_etag()
    return await if_changed(response)


@routes.add(
    "GET",
    "/jobs/<job_id>/result",
    "Get what a job returned",
    scope=Scope.READ,
    description="The JSON that the task returned, exactly as it was stored.",
    parameters=(JOB_ID,),
    answers=(
        Answer(
            200,
            "The result: JSON as the task's `result` schema says.",
            headers=("X-Content-Type-Options",),
        ),
    ),
    problems=(UNKNOWN_JOB, NOT_READY, NO_RESULT, UNAVAILABLE),
)
async def get_result(job_id: str) -> Response:
    job = await visible_job(job_id)
    if not job.state.ended:
        raise Refusal(
            NOT_READY,
            f"job {job.id} is {job.state}",
            headers={"Retry-After": str(run_times().retry_after(job))},
            members={"state": job.state},
        )
    if job.state is not JobState.SUCCESS:
        why = job.error
        raise Refusal(
            NO_RESULT,
            f"job {job.id} is {job.state}" + (f": {why.type}: {why.message}" if why else ""),
            members={"state": job.state, "error": error_object(why) if why else None},
        )
    response = json_response((job.result or "null").encode())
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


@routes.add(
    "DELETE",
    "/jobs/<job_id>",
    "Cancel a job",
    scope=Scope.CANCEL,
    description="A job that has not begun is revoked at once. A running one is asked to stop, then made to.",
    parameters=(JOB_ID,),
    answers=(
        Answer(200, "It had not begun, and never will.", JobObject),
        Answer(202, "It is being stopped: look again.", JobObject, headers=("Retry-After",)),
    ),
    problems=(UNKNOWN_JOB, ENDED, *SUBMITTING),
)
async def cancel_job(job_id: str) -> Response:
    jobs = running()
    job = await visible_job(job_id)
    found = await jobs.cancel(job.id)
    if found.ended:
        raise Refusal(ENDED, f"job {job_id} is {found} and stays so", members={"state": found})
    job = await jobs.get_job(job.id)
    return job_response(job, root(), 202 if found is JobState.STARTED else 200)


async def _submitted(
    jobs: Jobs, task: Task[..., Any], args: str, options: Options, wishes: dict[str, Any]
) -> Response:
    limit = jobs.settings.max_args_bytes
    if (size := size_of(args)) > limit:
        detail = (
            f"the arguments are {size} bytes of JSON; at most {limit} fit (setting: max_args_bytes)"
        )
        raise Refusal(TOO_LARGE, detail)
    owner = principal().owner
    key = key_of_request()
    job: Job
    if key is None:
        job = (await jobs.submit(task, args, options, owner=owner)).job
    else:
        once = IdempotencyKey(key, owner, fingerprint(*parts(jobs, task, args, wishes)))
        job = await jobs.submit_once(task, args, options, once)
    base = root()
    location = f"{base}/jobs/{job.id}"
    preferences = Preferences.of_request()
    if preferences is NO_PREFERENCES:
        return job_response(job, base, 202, Location=location)
    if preferences.wait:
        job = await ended_within(jobs, job, preferences.wait)
    status = 200 if job.state.ended else 202
    response = job_response(job, base, status, Location=location)
    if preferences.minimal:
        response.set_data(b"")
        del response.headers["Content-Type"]
    return preferences.applied_to(response, "wait", "respond-async", "return")
