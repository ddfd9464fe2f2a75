"""`mail.welcome`: a mail whose links and user come from the request that asked for it."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from quart import request, url_for

from jobs import current_job, task

Address = Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$", max_length=254)]


@dataclass
class Mail:
    to: str
    subject: str
    body: str


@task(name="mail.welcome")
def welcome(address: Address) -> Mail:
    """Write the mail that welcomes a new user; who that is, the header `X-User` says."""
    user = request.headers.get("X-User", "reader")
    link = url_for("jobs_api.get_job", job_id=current_job.id, _external=True)
    body = f"Dear {user},\n\nwelcome. Where this mail comes from can be seen at {link}\n"
    return Mail(to=address, subject=f"Welcome, {user}", body=body)
