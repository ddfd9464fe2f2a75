"""Tasks that fail until they are allowed to succeed, and tasks that do to other jobs what an app may do."""

from pathlib import Path
from uuid import UUID

from jobs import Jobs, RetryPolicy, current_job, task

jobs = Jobs()


@task
def doubled(number: int) -> int:
    return 2 * number


@task(retry=RetryPolicy(2, base=0.01))
def fails_until(path: str) -> int:
    """Which attempt it is, once the file exists."""
    if not Path(path).exists():
        raise LookupError("not yet")
    return current_job.attempt


@task(retry=RetryPolicy(2, base=0.01))
async def submits_many(count: int) -> list[str]:
    handles = await jobs.enqueue_many((doubled, (number,), {}) for number in range(count))
    return [handle.id for handle in handles]


@task
async def retries_and_reruns(job_id: str) -> list[str | bool]:
    handle = await jobs.get(UUID(job_id))
    return [await handle.retry(), handle.state, (await handle.rerun()).id]
