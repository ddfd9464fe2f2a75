"""The `Jobs` of the app that a request came to."""

from quart import current_app

from jobs.errors import NotRunning
from jobs.extension import Jobs


def installed() -> Jobs:
    """The app's `Jobs`, open or not. Raises `NotRunning`."""
    jobs = current_app.extensions.get("jobs")
    if not isinstance(jobs, Jobs):
        raise NotRunning(
            f"the app {current_app.name!r} serves the job API but has no Jobs: add Jobs(app)"
        )
    return jobs


def running() -> Jobs:
    """The app's `Jobs`, which is open. Raises `NotRunning`."""
    jobs = installed()
    if not jobs.is_open:
        raise NotRunning("the service is starting or stopping: its Jobs is not open")
    return jobs
