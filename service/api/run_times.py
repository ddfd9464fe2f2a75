"""How long the jobs of each task have lately taken: when it is worth looking again."""

from jobs.model import Job, JobState, now_ms

from .extension import app

MOST = 3600  #: seconds that a client is asked to wait at most
_NEWS = 0.3  #: how much the latest job counts against those before it


class RunTimes:
    """Learns from the jobs that are looked at."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def learn(self, job: Job) -> None:
        """A job that has ended well."""
        if job.state is JobState.SUCCESS and job.started_at and job.finished_at:
            took = max(job.finished_at - job.started_at, 0) / 1000
            before = self._seconds.get(job.task, took)
            self._seconds[job.task] = before + _NEWS * (took - before)

    def retry_after(self, job: Job) -> int:
        """Whole seconds, at least 1, until a job that has not ended may have."""
        now, takes = now_ms(), self._seconds.get(job.task, 0.0)
        if job.state is JobState.STARTED and job.started_at:
            left = takes - (now - job.started_at) / 1000
        else:
            left = max((job.run_at or now) - now, 0) / 1000 + takes
        return min(max(-int(-left // 1), 1), MOST)


def run_times() -> RunTimes:
    """Those of the current app."""
    extensions = app().extensions
    known: RunTimes | None = extensions.get("jobs_run_times")
    if known is None:
        known = extensions["jobs_run_times"] = RunTimes()
    return known
