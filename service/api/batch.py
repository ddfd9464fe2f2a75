"""Many jobs in one request: all or nothing, or each for itself."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import IO, Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import to_json
from quart import Response, request
from typing_extensions import TypedDict

from jobs import strict_json
from jobs.errors import InvalidArguments, InvalidJson, JobsError, Problem, QueueFull, UnknownTask
from jobs.extension import Jobs
from jobs.idempotency import IdempotencyKey, fingerprint
from jobs.keys import Scope
from jobs.model import Job
from jobs.pointers import MAX_PROBLEMS
from jobs.submission import Submission, check_size

from .asking import asked_for, misfit, parts, refused
from .body import declares_lines, read_json, read_lines
from .extension import running
from .idempotency import IDEMPOTENCY_KEY, key_of_request
from .job_request import JobRequest
from .listing import pointer
from .principal import principal
from .problems import (
    BAD_KEY,
    INVALID,
    KEY_REUSED,
    MALFORMED,
    MEDIA_TYPE,
    QUEUING,
    SLOW_BODY,
    TOO_LARGE,
    Refusal,
    from_error,
)
from .render import job_object, json_response, problem_object
from .routes import Answer, Parameter, Routes, root
from .schemas import JobBatch

routes = Routes("Jobs")

MAX_JOBS = 1000  #: of a JSON body, and of what one transaction stores of lines that are each for themselves
MAX_ATOMIC_LINES = 10_000  #: one transaction, for which all other writes wait
BREATH = 100  #: jobs after which other requests get their turn
SPOOLED = 1 << 20  #: bytes of an answer in lines that are kept in memory

ATOMIC = Parameter(
    "atomic",
    "`true`: all jobs or none; so it is with a JSON body. `false`: each for itself; the default with JSON Lines.",
    {"type": "boolean"},
)


class BatchRequest(TypedDict):
    """Jobs to run, each as `POST /jobs` takes it."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    jobs: Annotated[list[JobRequest], Field(min_length=1, max_length=MAX_JOBS)]


_TASK, _ARGS, _CONTEXT, _ORIGIN = map(Job._fields.index, ("task", "args", "context", "origin"))

_batch = TypeAdapter(BatchRequest)
_one = TypeAdapter(JobRequest)

Wanted = Sequence[dict[str, Any]]


@routes.add(
    "POST",
    "/jobs/batch",
    "Submit many jobs",
    scope=Scope.SUBMIT,
    description=f"""\
Either `{{"jobs": […]}}` with up to {MAX_JOBS} jobs: all are stored, in one transaction, or none.

Or JSON Lines (`Content-Type: application/jsonl` or `application/x-ndjson`), one job a line, any number. They are
stored while they arrive, and the answer has a line for each, in order: `{{"job": …}}`, or `{{"problem": …}}` with
the problem document that `POST /jobs` would have answered with. If the body is cut short, the last line says why.
With `?atomic=true` they are as one JSON body of up to {MAX_ATOMIC_LINES} jobs.

An `Idempotency-Key` is for the whole batch, and only for all or nothing.""",
    body=BatchRequest,
    takes_lines=True,
    parameters=(ATOMIC, IDEMPOTENCY_KEY),
    answers=(
        Answer(202, "All jobs are stored, and will run.", JobBatch),
        Answer(200, "A line for each job that was sent.", media_type="application/jsonl"),
    ),
    problems=(MALFORMED, BAD_KEY, SLOW_BODY, TOO_LARGE, MEDIA_TYPE, INVALID, KEY_REUSED, *QUEUING),
)
async def submit_batch() -> Response:
    jobs, in_lines = running(), declares_lines()
    atomic, key = _atomic(in_lines), key_of_request()
    if not atomic:
        if key is not None:
            raise Refusal(
                BAD_KEY, "a key is for a batch that is stored whole or not at all: ?atomic=true"
            )
        return await _submit_each(jobs)
    wanted = await (_read_lines(jobs) if in_lines else _read_json(jobs))
    asked = await _all_asked(jobs, wanted)
    owner = principal().owner
    once = None if key is None else IdempotencyKey(key, owner, _fingerprint(jobs, asked, wanted))
    made = await jobs.submit_many(asked, owner=owner, key=once)
    return json_response(b'{"jobs":[%b]}' % b",".join(_texts(made, root())), 202)


def _texts(made: Sequence[Job], base: str) -> Iterator[bytes]:
    """The JSON of each job. Jobs of a batch are mostly alike but for their ids: one after the other is then
    written once, and gets other ids put in, in a fifth of the time."""
    last: tuple[Any, ...] = ()
    around: list[bytes] = []
    for job in made:
        job_id = job.id.encode()
        shown = job[_TASK:_ARGS] + job[_ARGS + 1 : _CONTEXT] + job[_ORIGIN + 1 :]
        if shown != last:
            last, around = shown, to_json(job_object(job, base)).split(job_id)
        yield job_id.join(around)


def _atomic(in_lines: bool) -> bool:
    """What the query says. Raises `InvalidArguments`."""
    given = request.args.to_dict(flat=False)
    texts = given.pop(ATOMIC.name, [])
    problems = [Problem(pointer(name), f"is not known; known is {ATOMIC.name}") for name in given]
    if texts and (len(texts) > 1 or texts[0] not in ("true", "false")):
        problems.append(Problem(pointer(ATOMIC.name), "must be true or false"))
    elif texts == ["false"] and not in_lines:
        detail = "must be true with a JSON body; in JSON Lines (application/jsonl), each job can be for itself"
        problems.append(Problem(pointer(ATOMIC.name), detail))
    if problems:
        raise InvalidArguments(problems)
    return texts == ["true"] if texts else not in_lines


async def _read_json(jobs: Jobs) -> Wanted:
    limit = jobs.settings.max_batch_bytes
    raw = await read_json(limit, "max_batch_bytes")
    try:
        return _batch.validate_json(raw)["jobs"]  # type: ignore[return-value]
    except ValidationError as error:
        try:
            strict_json.check(raw, max_bytes=limit)
        except InvalidJson as reason:
            raise refused(reason, raw) from None
        found = error.errors(include_url=False)[:MAX_PROBLEMS]
        raise InvalidArguments([_misfit(item) for item in found]) from None


async def _read_lines(jobs: Jobs) -> Wanted:
    settings = jobs.settings
    wanted: list[dict[str, Any]] = []
    problems: list[Problem] = []
    async for lines in read_lines(
        settings.max_batch_bytes, "max_batch_bytes", settings.max_body_bytes
    ):
        if len(wanted) + len(lines) > MAX_ATOMIC_LINES:
            raise Refusal(
                TOO_LARGE, f"at most {MAX_ATOMIC_LINES} jobs can be stored all or nothing"
            )
        for line in lines:
            at = f"/jobs/{len(wanted)}"
            try:
                wanted.append(_members(line))
            except InvalidArguments as error:
                wanted.append({})
                problems += [Problem(at + p.pointer, p.detail) for p in error.problems]
            except Refusal as refusal:
                raise Refusal(refusal.kind, f"{at} {refusal.detail}") from None
    if not wanted:
        problems.append(Problem("", "must have a line at least"))
    if problems:
        raise InvalidArguments(problems[:MAX_PROBLEMS])
    return wanted


async def _all_asked(jobs: Jobs, wanted: Wanted) -> list[Submission]:
    """What all of them ask for. Raises `InvalidArguments`."""
    asked: list[Submission] = []
    problems: list[Problem] = []
    for number, members in enumerate(wanted):
        if not number % BREATH:
            await asyncio.sleep(0)
        at = f"/jobs/{number}"
        try:
            asked.append(_asked(jobs, members))
        except UnknownTask as error:
            problems.append(Problem(f"{at}/task", str(error)))
        except InvalidArguments as error:
            problems += [Problem(at + p.pointer, p.detail) for p in error.problems]
        if len(problems) >= MAX_PROBLEMS:
            break
    if problems:
        raise InvalidArguments(problems)
    return asked


async def _submit_each(jobs: Jobs) -> Response:
    settings = jobs.settings
    spool = tempfile.SpooledTemporaryFile(SPOOLED)  # noqa: SIM115 - `_sent` closes it
    try:
        async for lines in read_lines(
            settings.max_batch_bytes, "max_batch_bytes", settings.max_body_bytes
        ):
            for at in range(0, len(lines), MAX_JOBS):
                spool.write(await _outcomes(jobs, lines[at : at + MAX_JOBS]))
    except Refusal as refusal:
        if not spool.tell():
            spool.close()
            raise
        # Some jobs are stored: the answer has to name them.
        spool.write(_problem_line(refusal, root()))
    except BaseException:
        spool.close()
        raise
    size = spool.tell()
    spool.seek(0)
    return Response(
        _sent(spool), 200, {"Content-Length": str(size)}, content_type="application/jsonl"
    )


async def _sent(spool: IO[bytes]) -> AsyncIterator[bytes]:
    with spool:
        while piece := spool.read(65536):
            yield piece


async def _outcomes(jobs: Jobs, lines: Sequence[bytes]) -> bytes:
    """Submit a job for each line, and say what became of each."""
    base = root()
    understood: list[Submission | Refusal] = []
    for number, line in enumerate(lines):
        if not number % BREATH:
            await asyncio.sleep(0)
        try:
            understood.append(_asked(jobs, _members(line)))
        except Refusal as refusal:
            understood.append(refusal)
        except JobsError as error:
            understood.append(from_error(error))
    asked = [each for each in understood if isinstance(each, Submission)]
    told = await _told(jobs, asked, base) if asked else []
    following = iter(told)
    return b"".join(
        _problem_line(each, base) if isinstance(each, Refusal) else next(following)
        for each in understood
    )


async def _told(jobs: Jobs, asked: Sequence[Submission], base: str) -> list[bytes]:
    """Store these in one transaction; a line for each."""
    try:
        made = await jobs.submit_many(asked, owner=principal().owner)
    except QueueFull as error:
        if len(asked) > 1:  # some may fit
            each = await asyncio.gather(*(_told(jobs, [one], base) for one in asked))
            return [line for lines in each for line in lines]
        return [_problem_line(from_error(error), base)]
    except JobsError as error:
        failure = from_error(error)
        if failure.kind.status == 500:
            raise
        return [_problem_line(failure, base)] * len(asked)
    return [b'{"job":%b}\n' % text for text in _texts(made, base)]


def _problem_line(refusal: Refusal, base: str) -> bytes:
    return to_json({"problem": problem_object(refusal, base)}) + b"\n"


def _members(line: bytes) -> dict[str, Any]:
    """The members of the submission on a line. Raises `InvalidArguments`, `Refusal`."""
    try:
        return _one.validate_json(line)  # type: ignore[return-value]
    except ValidationError as error:
        try:
            strict_json.check(line, max_bytes=None)
        except InvalidJson as reason:
            raise refused(reason, line) from None
        raise InvalidArguments([misfit(item) for item in error.errors()]) from None


def _asked(jobs: Jobs, members: dict[str, Any]) -> Submission:
    settings = jobs.settings
    submission = asked_for(jobs, members, settings.max_body_bytes)
    try:
        check_size(submission.args, settings.max_args_bytes)
    except InvalidArguments as error:
        raise InvalidArguments([Problem("/args", error.problems[0].detail)]) from None
    return submission


def _fingerprint(jobs: Jobs, asked: Sequence[Submission], wanted: Wanted) -> str:
    return fingerprint(
        *(
            part
            for each, wishes in zip(asked, wanted, strict=True)
            for part in parts(jobs, each.task, each.args, wishes)
        )
    )


def _misfit(item: Any) -> Problem:
    if len(item["loc"]) > 1:
        return misfit(item)
    where = "".join(f"/{strict_json.escape(part)}" for part in item["loc"])
    detail = {
        "missing": "is missing",
        "extra_forbidden": "is not known; a batch has jobs",
        "dict_type": "must be an object with jobs",
    }.get(item["type"], f"must be an array of 1 to {MAX_JOBS} jobs")
    return Problem(where, detail)
