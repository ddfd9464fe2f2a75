"""Every error a client can see, and which of ours becomes which (RFC 9457)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

from jobs import errors
from jobs.errors import Problem


@dataclass(frozen=True, slots=True)
class ProblemType:
    """A kind of problem. Its `type` URI is `/problems/<slug>`, where `help` can be read."""

    slug: str
    status: int
    title: str
    help: str
    headers: tuple[str, ...] = ()  #: that come with it; `headers` says what they are


MALFORMED_REQUEST = ProblemType(
    "malformed-request",
    400,
    "The request is not well-formed HTTP",
    "Its head or the framing of its body is not what RFC 9112 says. The connection was closed.",
)
MALFORMED = ProblemType(
    "malformed-json",
    400,
    "The body is not JSON",
    "The body could not be parsed. The detail says where.",
)
BAD_KEY = ProblemType(
    "idempotency-key",
    400,
    "The Idempotency-Key cannot be used",
    "Send one Idempotency-Key header with 1 to 255 visible ASCII characters but quotes; a UUID is a good key.",
)
UNAUTHENTICATED = ProblemType(
    "unauthenticated",
    401,
    "Nobody is known by this request",
    "Send an API key that is good: Authorization: Bearer qj_…. `quart-jobs keys create` makes one; a key may"
    " have expired, or have been revoked.",
    headers=("WWW-Authenticate",),
)
MISSING_SCOPE = ProblemType(
    "missing-scope",
    403,
    "The caller may not do this",
    "What a key may do was said when it was made: quart-jobs keys create --scopes submit,read,cancel. The detail"
    " names the scope that this needs.",
    headers=("WWW-Authenticate",),
)
NOT_FOUND = ProblemType(
    "not-found",
    404,
    "Nothing is at this address",
    "No route has this path. /docs lists those that exist.",
)
UNKNOWN_TASK = ProblemType(
    "unknown-task",
    404,
    "No task has this name",
    "Task names are exact. GET /tasks lists them; the detail names the nearest ones.",
)
UNKNOWN_JOB = ProblemType(
    "unknown-job",
    404,
    "No job has this id",
    "The id is wrong, or the job ended so long ago that it was deleted (setting: retention).",
)
NOT_READY = ProblemType(
    "result-not-ready",
    404,
    "The job has not ended",
    "Ask again after the seconds in Retry-After; GET /jobs/<id> shows the state.",
    headers=("Retry-After",),
)
METHOD = ProblemType(
    "method-not-allowed",
    405,
    "This address does not take that method",
    "The Allow header lists the methods it takes.",
    headers=("Allow",),
)
SLOW_BODY = ProblemType(
    "body-timeout", 408, "The body did not arrive in time", "Send the request again."
)
NO_RESULT = ProblemType(
    "no-result",
    409,
    "The job ended without a result",
    "It failed or was revoked; `error` says why, with the task's own traceback. It will never have a result.",
)
ENDED = ProblemType(
    "already-ended",
    409,
    "The job has already ended",
    "An ended job cannot be cancelled. One that failed or was revoked can be retried.",
)
NOT_RETRIABLE = ProblemType(
    "not-retriable",
    409,
    "The job cannot run again",
    "A job can be retried that failed or was revoked. POST /jobs/<id>/rerun makes a new job like any. Where a task"
    " needs secret arguments, neither can be: they are forgotten when a job ends.",
)
PRECONDITION = ProblemType(
    "precondition-failed",
    412,
    "It is not what If-Match says",
    "What is at this address has another ETag now. Ask without If-Match to see it.",
)
TOO_LARGE = ProblemType(
    "too-large",
    413,
    "The body is too large",
    "Pass a large input by reference: the address of a file, the key of a record.",
)
URI_TOO_LONG = ProblemType(
    "uri-too-long",
    414,
    "The address is too long",
    "Send what is long in a body (setting: max_url_bytes).",
)
MEDIA_TYPE = ProblemType(
    "unsupported-media-type",
    415,
    "The body must be JSON",
    "Send the header Content-Type: application/json.",
)
INVALID = ProblemType(
    "invalid-arguments",
    422,
    "The request does not fit",
    "Each entry of `errors` says what is wrong with one value and where it is: a JSON pointer into the body,"
    " or /query/<name>. Nothing was stored. GET /tasks/<name> shows what a task takes.",
)
KEY_REUSED = ProblemType(
    "idempotency-key-reused",
    422,
    "The Idempotency-Key belongs to another request",
    "A key names one request: its task, arguments and options. Send that very request again, or take a new key."
    " Nothing was stored.",
)
RATE_LIMITED = ProblemType(
    "rate-limited",
    429,
    "Too many requests from one client",
    "Nothing was done. Send the request again after the seconds in Retry-After. Requests are counted by API key, or by"
    " address where there is no good one (setting: rate_limit).",
    headers=("Retry-After", "RateLimit", "RateLimit-Policy"),
)
OWNER_QUEUE_FULL = ProblemType(
    "owner-queue-full",
    429,
    "Too many jobs of one owner wait to run",
    "Nothing was stored. Send the request again after the seconds in Retry-After (settings: max_queued_per_owner,"
    " max_queued_bytes_per_owner).",
    headers=("Retry-After",),
)
HEADERS_TOO_LARGE = ProblemType(
    "headers-too-large",
    431,
    "The header fields are too many or too large",
    "Send fewer, or shorter ones; cookies are often to blame (settings: max_headers, max_header_bytes).",
)
UNEXPECTED = ProblemType(
    "internal-error",
    500,
    "Something went wrong here",
    "This is a fault of the service, not of the request; its log has the details.",
)
NOT_IMPLEMENTED = ProblemType(
    "not-implemented",
    501,
    "The request asks for what is not implemented here",
    "Methods are GET, HEAD, QUERY, POST, PUT, PATCH, DELETE and OPTIONS, in capitals; a Transfer-Encoding can only"
    " be `chunked`.",
)
OVERLOADED = ProblemType(
    "overloaded",
    503,
    "Too many requests at one time",
    "Nothing was done. Send the request again after the seconds in Retry-After (setting: max_requests).",
    headers=("Retry-After",),
)
TOO_MANY_STREAMS = ProblemType(
    "too-many-streams",
    503,
    "Too many event streams are open",
    "Ask again after the seconds in Retry-After, or look at the job itself: GET /jobs/<id> (setting: max_streams).",
    headers=("Retry-After",),
)
BUSY = ProblemType(
    "busy",
    503,
    "Too much is waiting to be written",
    "Nothing was stored. Send the request again after the seconds in Retry-After.",
    headers=("Retry-After",),
)
QUEUE_FULL = ProblemType(
    "queue-full",
    503,
    "Too many jobs wait to run",
    "Nothing was stored. Send the request again after the seconds in Retry-After (settings: max_queued,"
    " max_queued_bytes).",
    headers=("Retry-After",),
)
UNAVAILABLE = ProblemType(
    "unavailable",
    503,
    "The job store cannot be used",
    "Nothing was stored. The service is starting, stopping, or its database has a problem: see its log.",
    headers=("Retry-After",),
)
HTTP_VERSION = ProblemType(
    "http-version",
    505,
    "This version of HTTP is not spoken here",
    "Send the request in HTTP/1.1; a proxy in front can speak the others.",
)
FULL = ProblemType(
    "storage-full",
    507,
    "The disk is full",
    "Nothing was stored. Free disk space, then send it again.",
)

ANYWHERE = (
    MALFORMED_REQUEST, METHOD, URI_TOO_LONG, RATE_LIMITED, HEADERS_TOO_LARGE, UNEXPECTED, NOT_IMPLEMENTED,
    OVERLOADED, HTTP_VERSION,
)  # fmt: skip
"""What any address may answer."""

TYPES = {
    kind.slug: kind
    for kind in (
        MALFORMED, BAD_KEY, UNAUTHENTICATED, MISSING_SCOPE, NOT_FOUND, UNKNOWN_TASK, UNKNOWN_JOB, NOT_READY, SLOW_BODY,
        NO_RESULT, ENDED, PRECONDITION, TOO_LARGE, MEDIA_TYPE, INVALID, KEY_REUSED, TOO_MANY_STREAMS, BUSY, UNAVAILABLE,
        FULL, NOT_RETRIABLE, OWNER_QUEUE_FULL, QUEUE_FULL, *ANYWHERE,
    )
}  # fmt: skip

SUBMITTING = (BUSY, UNAVAILABLE, FULL)
"""What may go wrong with any write."""

QUEUING = (OWNER_QUEUE_FULL, QUEUE_FULL, *SUBMITTING)
"""What may go wrong with any that makes new jobs."""

_BY_ERROR: dict[type[Exception], ProblemType] = {
    errors.InvalidArguments: INVALID,
    errors.KeyReused: KEY_REUSED,
    errors.SecretsGone: NOT_RETRIABLE,
    errors.UnknownTask: UNKNOWN_TASK,
    errors.JobNotFound: UNKNOWN_JOB,
    errors.NotRunning: UNAVAILABLE,
    errors.StoreBusy: BUSY,
    errors.QueueFull: QUEUE_FULL,
    errors.OwnerQueueFull: OWNER_QUEUE_FULL,
    errors.StoreFull: FULL,
    errors.StoreError: UNAVAILABLE,
    errors.JobsError: UNEXPECTED,
}

_BY_STATUS = {kind.status: kind for kind in (NOT_FOUND, METHOD, SLOW_BODY, TOO_LARGE, UNEXPECTED)}

_RETRY = {"Retry-After": "1"}


@dataclass(slots=True, eq=False)
class Refusal(Exception):
    """An answer that is a problem."""

    kind: ProblemType
    detail: str
    errors: Sequence[Problem] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, Any] = field(default_factory=dict)  #: further members of the document


def from_error(error: errors.JobsError) -> Refusal:
    """What a client is told of one of our errors."""
    kind = next(_BY_ERROR[cls] for cls in type(error).__mro__ if cls in _BY_ERROR)
    problems = error.problems if isinstance(error, errors.InvalidArguments) else ()
    detail = UNEXPECTED.help if kind is UNEXPECTED else str(error)
    if problems:
        detail = "; ".join(f"{item.pointer or 'the body'} {item.detail}" for item in problems[:3])
        detail += f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
    return Refusal(kind, detail, problems, _RETRY if kind.status in (429, 503) else {})


def unready(error: errors.JobsError) -> Refusal:
    """What is said of an error that keeps the service from taking jobs: 503, whatever it is."""
    return Refusal(UNAVAILABLE, str(error), headers=_RETRY)


def from_http(error: HTTPException, method: str, path: str) -> Refusal:
    """What a client is told of an error of the framework, or of the host app's `abort`."""
    status = error.code or 500
    headers = {
        name: value
        for name, value in error.get_headers()
        if name.lower() not in {"content-type", "content-length"}
    }
    kind = _BY_STATUS.get(status)
    if kind is None:
        title = HTTP_STATUS_CODES.get(status, "Error")
        return Refusal(
            ProblemType("", status, title, ""), error.description or title, headers=headers
        )
    detail = {
        NOT_FOUND.status: f"no route has the path {path}",
        METHOD.status: f"{path} takes {headers.get('Allow', 'other methods')}, not {method}",
        UNEXPECTED.status: UNEXPECTED.help,
    }.get(status, kind.help)
    return Refusal(kind, detail, headers=headers)
