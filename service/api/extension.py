"""The `Jobs` of the app that a request came to."""

from quart import Quart, current_app

from jobs.errors import NotRunning
from jobs.extension import Jobs


def app() -> Quart:
    """The app itself: on the way of every submission, each look through Quart's proxy counts."""
    here: Quart = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
    return here


def installed() -> Jobs:
    """The app's `Jobs`, open or not. Raises `NotRunning`."""
    here = app()
    jobs = here.extensions.get("jobs")
    if not isinstance(jobs, Jobs):
        raise NotRunning(f"the app {here.name!r} serves the job API but has no Jobs: add Jobs(app)")
    return jobs


def running() -> Jobs:
    """The app's `Jobs`, which is open. Raises `NotRunning`."""
    jobs = installed()
    if not jobs.is_open:
        raise NotRunning("the service is starting or stopping: its Jobs is not open")
    return jobs
