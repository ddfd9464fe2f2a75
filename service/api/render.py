"""What goes out: jobs, tasks and problems as JSON."""

from typing import Any
from urllib.parse import quote

from pydantic_core import from_json, to_json
from quart import Response, request

from jobs.model import Job, JobError
from jobs.registry import Task

from . import times
from .body import has_body, lingering
from .problems import PRECONDITION, SLOW_BODY, Refusal
from .run_times import run_times


def job_object(job: Job, root: str) -> dict[str, Any]:
    """A job on the wire. `root` is where this API is mounted."""
    here = f"{root}/jobs/{job.id}"
    state = job.state
    links = {
        "self": here,
        "result": f"{here}/result",
        "attempts": f"{here}/attempts",
        "logs": f"{here}/logs",
        "events": f"{here}/events",
    }
    if not state.ended:
        links["cancel"] = here
    return {
        "id": job.id,
        "task": job.task,
        "queue": job.queue,
        "priority": job.priority,
        "state": state.value,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "owner": job.owner,
        "created_at": times.show(job.created_at),
        "run_at": times.show(job.run_at),
        "started_at": times.show(job.started_at),
        "finished_at": times.show(job.finished_at),
        "progress": None if job.progress is None else from_json(job.progress),
        "error": None if job.error is None else error_object(job.error),
        "links": links,
    }


def error_object(error: JobError) -> dict[str, Any]:
    """Why a job failed, on the wire."""
    return {
        "kind": error.kind,
        "type": error.type,
        "message": error.message,
        "traceback": error.traceback,
    }


def task_object(task: Task[..., Any], root: str) -> dict[str, Any]:
    """A task on the wire."""
    here = f"{root}/tasks/{quote(task.name, safe='')}"
    return {
        "name": task.name,
        "description": description(task),
        "queue": task.queue,
        "priority": task.priority,
        "timeout": task.timeout,
        "max_attempts": task.retry.max_attempts,
        "links": {"self": here, "submit": f"{here}/jobs"},
    }


def description(task: Task[..., Any]) -> str:
    """What the function's docstring says."""
    return (task.fn.__doc__ or "").strip()


def json_response(body: bytes, status: int = 200, **headers: str) -> Response:
    """A response of JSON text."""
    return Response(body, status, {"Content-Type": "application/json", **headers})


def job_response(job: Job, root: str, status: int = 200, **headers: str) -> Response:
    """A response that is a job."""
    if job.state.ended:
        run_times().learn(job)
    else:
        headers["Retry-After"] = str(run_times().retry_after(job))
    return json_response(to_json(job_object(job, root)), status, **headers)


async def if_changed(response: Response) -> Response:
    """The response, or a 304 for a client that has it already. Raises `Refusal`."""
    response = await response.make_conditional(request)
    if response.status_code == 412:
        raise Refusal(PRECONDITION, PRECONDITION.help)
    return response


def problem_object(refusal: Refusal, root: str) -> dict[str, Any]:
    """A problem on the wire."""
    kind = refusal.kind
    document: dict[str, Any] = {
        "type": f"{root}/problems/{kind.slug}" if kind.slug else "about:blank",
        "title": kind.title,
        "status": kind.status,
        "detail": refusal.detail,
        "instance": quote(request.root_path + request.path),
    }
    if refusal.errors:
        document["errors"] = [item._asdict() for item in refusal.errors]
    return document | dict(refusal.members)


def problem_response(refusal: Refusal, root: str) -> Response:
    """A response that is a problem."""
    kind = refusal.kind
    body = to_json(problem_object(refusal, root))
    # Who was too slow is not waited for.
    linger = has_body() and kind is not SLOW_BODY
    response = Response(
        lingering(body, request.body) if linger else body,
        kind.status,
        headers={
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            **refusal.headers,
        },
        content_type="application/problem+json",
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
