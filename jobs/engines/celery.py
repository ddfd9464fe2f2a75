"""`celery -A jobs.engines.celery worker`: Celery's worker for the jobs of a service with `JOBS_ENGINE=celery`.

Settings are those of the service, from the environment: JOBS_BROKER, JOBS_DATABASE, JOBS_TASKS or JOBS_APP.
"""

from jobs.celery.worker import make_worker_app
from jobs.settings import Settings

app = make_worker_app(Settings.load())
