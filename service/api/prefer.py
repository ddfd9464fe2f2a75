"""What a client prefers (RFC 7240): to wait for the job's end, or to be told little."""

import asyncio
import re
from dataclasses import dataclass

from quart import Response
from werkzeug.http import parse_list_header

from jobs.errors import ResultTimeout
from jobs.extension import Jobs
from jobs.model import Job

from .routes import Parameter, current_request, field

MAX_WAIT = 60  #: seconds; who wants to wait longer asks again

PREFER = Parameter(
    "Prefer",
    f"RFC 7240. `wait=N`: answer when the job has ended, after N seconds (at most {MAX_WAIT}) at the latest."
    " `respond-async`: do not wait longer than that. `return=minimal`: no body.",
    {"type": "string"},
    place="header",
)
WAIT = Parameter(
    "Prefer",
    f"RFC 7240. `wait=N`: answer when the job has ended, after N seconds (at most {MAX_WAIT}) at the latest.",
    {"type": "string"},
    place="header",
)

_SECONDS = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Preferences:
    """The preferences that this service knows. What it does not know, or cannot read, it ignores, as the
    RFC wants."""

    wait: int | None = None  #: seconds
    respond_async: bool = False
    minimal: bool = False

    @classmethod
    def of_request(cls) -> "Preferences":
        """Those of the request at hand."""
        given = field(current_request(), "Prefer")
        return cls.read(",".join(given)) if given else NONE

    @classmethod
    def read(cls, text: str) -> "Preferences":
        """Those of a `Prefer` header; of one that is given twice, the first counts."""
        given: dict[str, str] = {}
        for preference in parse_list_header(text):
            name, _, value = preference.partition(";")[0].partition("=")
            given.setdefault(name.strip().lower(), value.strip().strip('"'))
        wait = given.get("wait", "")
        return cls(
            wait=min(int(wait), MAX_WAIT) if _SECONDS.fullmatch(wait) else None,
            respond_async="respond-async" in given,
            minimal=given.get("return", "").lower() == "minimal",
        )

    def applied_to(self, response: Response, *names: str) -> Response:
        """The response, saying which of the preferences of these names were honoured."""
        honoured = {
            "wait": f"wait={self.wait}" if self.wait is not None else "",
            "respond-async": "respond-async" if self.respond_async else "",
            "return": "return=minimal" if self.minimal else "",
        }
        if applied := ", ".join(filter(None, (honoured[name] for name in names))):
            response.headers["Preference-Applied"] = applied
        response.headers["Vary"] = "Prefer"
        return response


NONE = Preferences()


async def ended_within(jobs: Jobs, job: Job, seconds: float) -> Job:
    """The job as it is when it has ended, or after that many seconds, or when the service is to stop.
    Raises `JobNotFound`."""
    if job.state.ended:
        return job
    waiting = asyncio.create_task(jobs.ended(job.id, seconds))
    stopping = asyncio.create_task(jobs.stopping.wait())
    try:
        await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
    except ResultTimeout:
        pass
    finally:
        waiting.cancel()
        stopping.cancel()
    return await jobs.get_job(job.id)
