"""Celery as its users run it: prefork with two processes, results in Redis."""

import os

from celery import Celery

URL = os.environ["BENCH_BROKER"]
app = Celery("celery_app", broker=f"{URL}?virtual_host=0", backend=f"{URL}?virtual_host=1")
app.conf.update(
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    task_acks_late="BENCH_ACKS_LATE" in os.environ,
)


@app.task(name="noop")
def noop() -> None:
    """Nothing."""
