"""From the members of a submission's JSON object to what is asked for."""

from typing import Any

from pydantic_core import to_json

from jobs import strict_json
from jobs.errors import InvalidArguments, InvalidJson, Problem
from jobs.extension import Jobs
from jobs.registry import Task
from jobs.submission import NO_OPTIONS, Options, Submission

from .body import is_json
from .job_request import JobRequest
from .problems import MALFORMED, Refusal

_members = tuple(JobRequest.__annotations__)


def asked_for(jobs: Jobs, members: dict[str, Any], max_bytes: int) -> Submission:
    """What a `JobRequest` asks for; `members` keeps the options only. Raises `UnknownTask`, and
    `InvalidArguments` with pointers into the request."""
    task = jobs.registry.get(members.pop("task"))
    try:
        # NaN as NaN, which `accept` refuses: by default it would turn into null.
        args = task.accept(
            to_json(members.pop("args", {}), inf_nan_mode="constants"), max_bytes=max_bytes
        )
    except InvalidArguments as error:
        kind = InvalidJson if isinstance(error, InvalidJson) else InvalidArguments
        raise kind([Problem(f"/args{p.pointer}", p.detail) for p in error.problems]) from None
    return Submission(task, args, Options(**members) if members else NO_OPTIONS)


def parts(jobs: Jobs, task: Task[..., Any], args: str, wishes: dict[str, Any]) -> tuple[bytes, ...]:
    """What tells a submission from another, without a word of its secrets."""
    readable, secrets = task.split(args)
    tag = b"" if secrets is None else jobs.sealer.tag(secrets)
    return task.name.encode(), readable.encode(), to_json(wishes), tag


def refused(error: InvalidJson, raw: bytes) -> Exception:
    """What is not JSON by its syntax is another problem than JSON that cannot be kept."""
    if is_json(raw):
        return error
    first = error.problems[0]
    return Refusal(MALFORMED, f"{first.pointer or 'the body'} {first.detail}", error.problems)


def misfit(item: Any) -> Problem:
    """What pydantic says is wrong with a `JobRequest`, or one of several, in our words."""
    pointer = "".join(f"/{strict_json.escape(part)}" for part in item["loc"])
    detail = {
        "missing": "is missing",
        "extra_forbidden": f"is not known; a job has {', '.join(_members)}",
        "dict_type": f"must be an object with {', '.join(_members)}",
    }.get(item["type"], item["msg"].removeprefix("Value error, "))
    return Problem(pointer, detail)
