"""What a job's error says where the store itself ends, or puts back, a job."""

from jobs.model import ErrorKind, JobError

from .rows import error_to_text

MAX_LOST = 3  #: attempts of one job that may lose their whole service before it fails


def _error(kind: ErrorKind, type_: str, message: str) -> str | None:
    return error_to_text(JobError(kind, type_, message))


NOT_BEGUN = _error(ErrorKind.CANCELLED, "Cancelled", "cancelled before it began")
NOT_AGAIN = _error(ErrorKind.CANCELLED, "Cancelled", "cancelled; the attempt under way had failed")
EXPIRED = _error(ErrorKind.EXPIRED, "Expired", "not started before it expired")
GONE = _error(ErrorKind.LOST, "Lost", "the service that ran it died")
LOST = {
    "PENDING": _error(ErrorKind.LOST, "Lost", "the service that ran it died; it runs again"),
    "FAILURE": _error(ErrorKind.LOST, "Lost", f"the service that ran it died, {MAX_LOST} times"),
    "REVOKED": _error(ErrorKind.CANCELLED, "Cancelled", "cancelled; the service that ran it died"),
}
